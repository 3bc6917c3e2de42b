"""Writes the text of an answer: a sentence, and a block of code."""

import re

from offline_model.answers import shipped
from offline_model.chat import Message
from offline_model.languages import Language, named, spoken
from offline_model.skeleton import fenced, skeleton

_LANGUAGE_LINE = re.compile(r"^[ \t]*Language:[ \t]*(\S[^\r\n]*?)[ \t]*$", re.MULTILINE | re.IGNORECASE)

DEFAULT_LANGUAGE = "python"


def write(messages: tuple[Message, ...]) -> str:
    """The answer to a conversation. Its objective is the last user message.

    Its language is that of the first line `Language: x`, else one the objective speaks of, else Python.
    """
    last = next((message for message in reversed(messages) if message.role == "user"), Message("user", ""))
    objective = last.text
    first_line = _LANGUAGE_LINE.match(objective.lstrip())
    if first_line is not None:
        objective = objective.lstrip()[first_line.end() :]
    spoken_language, asked = spoken(objective)
    language = _told([last, *reversed(messages)]) or spoken_language or named(DEFAULT_LANGUAGE)

    answer = shipped().find(asked)
    if answer is not None and language.name in answer.code:
        sentence = f"{answer.title} in {language.label}, as Sluice's offline model knows it:"
        return f"{sentence}\n\n{fenced(answer.code[language.name], language.name)}"
    elsewhere = [named(name).label for name in answer.code] if answer is not None else []
    sentence = f"Sluice's offline model cannot do this in {language.label}; here is only a skeleton."
    return f"{sentence}\n\n{fenced(skeleton(objective, language, elsewhere), language.name)}"


def _told(messages: list[Message]) -> Language | None:
    for message in messages:
        line = _LANGUAGE_LINE.search(message.text)
        if line is not None:
            return named(line[1])
    return None
