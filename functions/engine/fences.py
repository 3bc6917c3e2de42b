"""Takes the code out of a model's answer, whatever shape its fences have.

Fences are what CommonMark says they are (backticks or tildes, three or more, indented, in a list, in a quote, left open
at the end), as read by markdown-it-py. Without a fence the whole answer is the code.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


def code_in(answer: str, language: str = "", *, growing: bool = False) -> str:
    """The code in an answer: the fenced blocks in the language that was asked for, or else the longest block. Ends with
    a newline unless it is empty. While an answer is still growing, what stands outside of fences is no code yet."""
    blocks = [
        (token.info.strip().split(" ")[0].lower(), token.content)
        for token in _parser().parse(answer)
        if token.type == "fence" and token.content.strip()
    ]
    wanted = [content for info, content in blocks if info == language.lower()]
    if wanted:
        code = "\n".join(content.strip("\n") for content in wanted)
    elif blocks:
        code = max((content for _, content in blocks), key=len)
    else:
        code = "" if growing or _is_only_fence(answer) else answer
    code = code.strip("\n").rstrip()
    return f"{code}\n" if code else ""


def _is_only_fence(answer: str) -> bool:
    """Whether there is nothing but an empty or just opened fence."""
    return any(token.type == "fence" for token in _parser().parse(answer))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # Fences are blocks. What stands inside of a line is not looked at: it costs time that grows with its square.
    return MarkdownIt("commonmark").disable("inline")
