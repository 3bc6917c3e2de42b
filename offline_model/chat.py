"""The shapes of Chat Completions: what a request must look like, and what is sent back.

Source: https://platform.openai.com/docs/api-reference/chat. Read from a request are `model`, `messages`, `stream` and
`stream_options`; other settings (temperature, max_tokens, tools) are accepted and have no effect.
"""

import json
import re
import time
from dataclasses import dataclass, field
from uuid import uuid4

#: The one model there is; answers carry this name whatever was asked for.
MODEL = "offline-model"

#: Characters per token, for the rough counts in `usage`.
CHARACTERS_PER_TOKEN = 4

#: Pieces that a stream aims at; each is one event, and events are what costs a client time (0.3 ms in OpenAI's).
PIECES = 64
#: Tokens in one piece at most, so that a long answer still comes in small pieces.
TOKENS_PER_PIECE = 8

_TOKEN = re.compile(r"\s*(?:\w{1,8}|[^\w\s]{1,4})|\s+")


class BadRequest(Exception):
    """The request cannot be answered; carries OpenAI's error shape and an HTTP status."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, "invalid_request_error", code, param)


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, object]:
    """OpenAI's error shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Message:
    """One message of a conversation, its content parts put together to one text."""

    role: str
    text: str


@dataclass(frozen=True)
class Request:
    """A call to /v1/chat/completions, checked."""

    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool

    @property
    def last_user_text(self) -> str:
        """The last message with the role user, "" if there is none."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")


def read_json(body: bytes) -> object:
    """The value in `body`. Raises `BadRequest`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error


def read_request(body: bytes) -> Request:
    """The request in a JSON `body`. Raises `BadRequest`."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    if not isinstance(value.get("model"), str) or not value["model"]:
        raise BadRequest("You must provide a model parameter.", "model")
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list of at least one message.", "messages")
    stream = value.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false.", "stream")
    options = value.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", "stream_options")
    if options is not None and not stream:
        raise BadRequest("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return Request(
        messages=tuple(_read_message(index, message) for index, message in enumerate(messages)),
        stream=bool(stream),
        include_usage=bool(options and options.get("include_usage")),
    )


def _read_message(index: int, message: object) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise BadRequest(f"'{where}' must be an object.", where)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise BadRequest(f"'{where}.role' must be a string.", f"{where}.role")
    if content is None or isinstance(content, str):
        return Message(role, content or "")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type") == "text"]
        if all(isinstance(text, str) for text in texts):
            return Message(role, "\n".join(str(text) for text in texts))
    raise BadRequest(f"'{where}.content' must be a string or a list of parts.", f"{where}.content")


def pieces(text: str, about: int = PIECES) -> list[str]:
    """Cut `text` into small pieces as a model's tokens come, at most `about` of them unless it is long.

    Joined they are `text` again.
    """
    tokens = _TOKEN.findall(text)
    size = min(TOKENS_PER_PIECE, -(-len(tokens) // about) or 1)
    return ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]


@dataclass(frozen=True)
class Shapes:
    """Builds the objects of one answer: they share an id and a time."""

    request: Request
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, text: str) -> dict[str, int]:
        """Rough token counts for an answer of `text`."""
        prompt = sum(_tokens(message.text) for message in self.request.messages)
        completion = _tokens(text)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def completion(self, text: str, finish_reason: str, refusal: bool) -> dict[str, object]:
        """A whole answer, for a request without `stream`."""
        message = {
            "role": "assistant",
            "content": None if refusal else text,
            "refusal": text if refusal else None,
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion", [choice]) | {"usage": self.usage(text)}

    def no_choices(self) -> dict[str, object]:
        """A whole answer, or a chunk of one, that is well formed and says nothing."""
        kind = "chat.completion.chunk" if self.request.stream else "chat.completion"
        return self._object(kind, []) | {"usage": self.usage("")}

    def chunk(self, delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
        """A piece of a streamed answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        # OpenAI sends "usage": null in every chunk but the last once usage was asked for.
        return self._object("chat.completion.chunk", [choice]) | ({"usage": None} if self.request.include_usage else {})

    def usage_chunk(self, text: str) -> dict[str, object]:
        """The last chunk of a stream whose request asked for usage."""
        return self._object("chat.completion.chunk", []) | {"usage": self.usage(text)}

    def _object(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": MODEL,
            "system_fingerprint": None,
            "choices": choices,
        }


def event(value: object) -> bytes:
    """One server-sent event that carries `value` as JSON."""
    return b"data: %b\n\n" % json.dumps(value).encode()


#: The event that ends every good stream.
DONE = b"data: [DONE]\n\n"


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
