"""The language model, by the `openai` package: any server that speaks Chat Completions.

The only module that knows openai. It is imported when the first task needs it (it costs 0.2 s and 13 MB), and its
calls run on one asyncio loop in a thread of their own: a cancelled call closes its connection at once, in whatever
state it is, which no blocking call can do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from functions.engine.handler import Failed, Retry, Step, presentable
from functions.engine.lazy import import_lazily
from sluice.settings import Settings

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionChunk

log = logging.getLogger(__name__)

# The types of the whole API, of which a chat needs a tenth: without the rest, openai's import takes a third of its CPU
# time (0.2 s instead of 0.7) and six tenths of its memory (an engine grows by 13 MB instead of 22).
import_lazily("openai.types", "openai.types.responses")

#: Characters of an answer after which it is broken off.
MAX_ANSWER = 512 * 1024

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    text: str
    model: str | None
    #: `prompt_tokens`, `completion_tokens`, `total_tokens` and more, as the server counts them, if it does.
    usage: dict[str, Any] | None


class Model:
    """A client for one model. Safe to use from many threads at once."""

    def __init__(self, *, api_key: str, base_url: str | None, model: str, timeout: float) -> None:
        self._model = model
        self._timeout = timeout
        with _uncollected():
            import httpcore2  # noqa: F401 - which the other thread would import, at the same time as this one
            import httpx2

            with ThreadPoolExecutor(1) as aside:  # reading the authorities takes 40 ms, and not the interpreter's lock
                context = aside.submit(httpx2.create_ssl_context)
                import openai

            client = openai.AsyncOpenAI(
                api_key=api_key,
                base_url=base_url,
                max_retries=0,  # retries belong to the queue: it waits without holding one of the engine's places
                timeout=timeout,
                http_client=openai.DefaultAsyncHttpxClient(verify=context.result()),
            )
            self._completions = client.chat.completions  # imported when it is asked for
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="model", daemon=True).start()

    def ask(self, messages: Messages, *, step: Step, on_text: Callable[[str], None] = lambda _: None) -> Answer:
        """The model's answer; `on_text` is called with the text so far while it grows.

        Raises Retry for what may work later, Failed for what will not, Stopped when the handler is to stop.
        """
        step.check()
        call = asyncio.run_coroutine_threadsafe(self._ask(messages, step.task_id, on_text), self._loop)
        with step.on_stop(call.cancel):
            try:
                return call.result()
            except CancelledError:
                step.check()
                raise

    async def _ask(self, messages: Messages, task_id: str, on_text: Callable[[str], None]) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._stream(messages, task_id, on_text)
        except Exception as error:
            outcome = self._meaning(error)
        # Raised here, without what it came from: that would keep the broken stream alive until some thread collects it.
        raise outcome.with_traceback(None)

    def _meaning(self, error: Exception) -> Exception:
        """What an error means for the task."""
        import httpx2
        import openai

        match error:
            case Failed() | Retry():
                return error
            case TimeoutError():
                return Retry("model_timeout", f"The model did not finish within {self._timeout:g} seconds.")
            case openai.APIError():
                return _translated(error)
            case httpx2.HTTPError():  # the package lets it through where the body of an error breaks off
                return Retry("cut_off", "The model's answer broke off.")
            case ValueError() | TypeError() | AttributeError() | LookupError() | RecursionError():
                log.warning("the model's answer can't be read: %s", repr(error))
                return Retry("invalid_answer", "The model's server sent an answer that can't be read.")
        return error

    async def _stream(self, messages: Messages, task_id: str, on_text: Callable[[str], None]) -> Answer:
        import httpx2
        import openai

        text, refusal = "", ""
        finish_reason: str | None = None
        model: str | None = None
        usage: Any = None
        stream = await self._completions.create(
            model=self._model,
            messages=cast("Any", messages),
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"X-Client-Request-Id": task_id},
        )
        try:
            async with _ended(stream):
                async for chunk in stream:
                    model = presentable(chunk.model) if isinstance(chunk.model, str) else model
                    usage = chunk.usage or usage
                    for choice in chunk.choices[:1]:
                        text += choice.delta.content or ""
                        refusal += choice.delta.refusal or ""
                        finish_reason = choice.finish_reason or finish_reason
                    if len(text) > MAX_ANSWER:
                        raise Failed("answer_too_long", "The model's answer is too long. Ask for less at once.")
                    on_text(text)
        except (openai.APIConnectionError, httpx2.HTTPError):
            raise Retry("cut_off", "The model's answer broke off.") from None
        if refusal:
            raise Failed("refused", f"The model refused: {refusal[:500]}")
        if finish_reason == "content_filter":
            raise Failed("refused", "The model's provider refused to answer this. Change what you ask for.")
        if finish_reason == "length":
            raise Failed("cut_off", "The model ran out of room before the answer was complete. Ask for less at once.")
        if finish_reason is None:
            raise Retry("cut_off", "The model's answer broke off.")
        return Answer(whole(text), model, usage.model_dump(warnings=False) if isinstance(usage, BaseModel) else None)


@contextmanager
def _uncollected() -> Iterator[None]:
    """What imports make, stays: to look through it for garbage, again and again while it grows, takes time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@asynccontextmanager
async def _ended(stream: openai.AsyncStream[ChatCompletionChunk]) -> AsyncIterator[None]:
    """Close the stream, and run its generators to their end. The stream and they hold each other: what is not run to
    its end waits for the garbage collector, which ends it on any thread, while this loop may be at work on it."""
    try:
        yield
    finally:
        await stream.close()
        with suppress(Exception):
            async for _ in stream:
                pass


def whole(text: str) -> str:
    """A text whose characters may have been cut in two (a stream may end a piece between two halves)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _translated(error: openai.APIError) -> Failed | Retry:
    """What an error of the API means for the task."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Retry("model_timeout", "The model did not answer in time.")
    if isinstance(error, openai.APIConnectionError):
        return Retry("model_unreachable", "The model's server can't be reached.")
    if not isinstance(error, openai.APIStatusError):
        return Retry("model_error", "The model's server reported an error in the middle of its answer.")
    log.warning("the model's server answered %s (%s)", error.status_code, error.code)
    match error.status_code, error.code:
        case 429, "insufficient_quota":
            return Failed(
                "quota_exhausted", "The model's quota is used up. Whoever runs this service has to extend it."
            )
        case 429, _:
            return Retry("rate_limited", "The model is busy.", after=_retry_after(error))
        case (408 | 409, _):
            return Retry("model_error", "The model's server had a passing problem.", after=_retry_after(error))
        case (401 | 403, _):
            return Failed("model_access", "The model's server refused the key of this service. Tell whoever runs it.")
        case 404, _:
            return Failed(
                "model_not_found", "The model's server does not know the model. Tell whoever runs this service."
            )
        case _, "context_length_exceeded":
            return Failed("too_long", "The text is too long for the model. Shorten it.")
        case _, "content_filter" | "content_policy_violation":
            return Failed("refused", "The model's provider refused to answer this. Change what you ask for.")
        case status, _ if status >= 500:
            return Retry("model_error", "The model's server has a problem.", after=_retry_after(error))
    return Failed("invalid_request", "The model's server did not accept the request.")


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds of the Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    text = error.response.headers.get("retry-after", "")
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


_lock = threading.Lock()


@cache
def _model(settings: Settings) -> Model:
    key = settings.openai_api_key
    return Model(
        api_key="none" if key is None else key.get_secret_value(),  # local servers need no key, but the package does
        base_url=settings.openai_base_url,
        model=settings.openai_model,
        timeout=settings.openai_timeout_seconds,
    )


def model(settings: Settings) -> Model:
    """The model that the settings name; one client for all tasks of a process."""
    with _lock:
        return _model(settings)
