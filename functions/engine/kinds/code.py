"""Kind `code`: ask a language model for a program."""

from __future__ import annotations

import time

from pydantic import ValidationError

from functions.engine.fences import code_in
from functions.engine.handler import Failed, Step
from functions.engine.model import Answer, model, whole
from sluice.kinds.code import Inputs, Outputs, Usage

#: Seconds between two looks at the growing answer.
LOOK_SECONDS = 0.5

#: Characters up to which it is looked at: finding fences takes longer the more there is, and everybody's answers wait.
LOOK_CHARACTERS = 32 * 1024

INSTRUCTIONS = (
    "You are an experienced programmer. Answer with one short sentence and then exactly one fenced code block that "
    "holds the whole program in the language that the user names: complete, correct, idiomatic, with short comments. "
    "No other code blocks, and nothing after the code."
)


def run(task: Inputs, step: Step) -> Outputs:
    with step("ask the model"):
        answer = model(step.settings).ask(
            [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": f"Language: {task.language}\n\n{task.objective}"},
            ],
            step=step,
            on_text=_Growing(step, task.language),
        )
    with step("take out the code"):
        code = code_in(answer.text, task.language)
        if not code.strip():
            raise Failed("empty_answer", "The model's answer held no code. Say in other words what the code should do.")
    return Outputs(code=code, model=answer.model, usage=_usage(answer))


def _usage(answer: Answer) -> Usage | None:
    try:
        return Usage.model_validate(answer.usage)
    except ValidationError:
        return None  # not all servers count


class _Growing:
    """Shows the code while it grows, at most twice a second."""

    def __init__(self, step: Step, language: str) -> None:
        self._step = step
        self._language = language
        self._looked = time.monotonic()

    def __call__(self, text: str) -> None:
        if len(text) <= LOOK_CHARACTERS and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._step.show(code=code_in(whole(text), self._language, growing=True))
