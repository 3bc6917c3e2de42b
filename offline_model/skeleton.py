"""What the offline model answers when it does not know: the objective in comments, and no pretence.

The objective is a stranger's text. It must not leave its comment in any language, nor the block that it is shown in.
"""

import textwrap
import unicodedata

from offline_model.languages import Language

#: How much of an objective is quoted, in characters.
QUOTED_CHARACTERS = 2_000
#: Width of a line of comment, in characters.
WIDTH = 90

#: Code around the comments, where a language wants some: (before, after).
_AROUND = {
    "python": ("", 'def objective() -> None:\n    raise NotImplementedError("the offline model does not know how")\n'),
    "javascript": ("", 'function objective() {\n  throw new Error("the offline model does not know how");\n}\n'),
    "typescript": ("", 'function objective(): never {\n  throw new Error("the offline model does not know how");\n}\n'),
    "java": (
        "",
        "final class Objective {\n    static void objective() {\n"
        '        throw new UnsupportedOperationException("the offline model does not know how");\n    }\n}\n',
    ),
    "csharp": (
        "",
        "static class Objective\n{\n    public static void Run() =>\n"
        '        throw new System.NotImplementedException("the offline model does not know how");\n}\n',
    ),
    "go": ("", 'package main\n\nfunc main() {\n\tpanic("the offline model does not know how")\n}\n'),
    "rust": ("", 'fn main() {\n    unimplemented!("the offline model does not know how");\n}\n'),
    "ruby": ("", 'def objective\n  raise NotImplementedError, "the offline model does not know how"\nend\n'),
    # Without the opening tag PHP prints its source.
    "php": (
        "<?php\n",
        'function objective(): never\n{\n    throw new LogicException("the offline model does not know how");\n}\n',
    ),
    "bash": ("", 'echo "the offline model does not know how" >&2\nexit 1\n'),
    "c": ("", "#include <stdlib.h>\n\nint main(void)\n{\n    return EXIT_FAILURE;\n}\n"),
    "cpp": ("", "#include <cstdlib>\n\nint main()\n{\n    return EXIT_FAILURE;\n}\n"),
}

#: What ends or begins something inside a comment in some language, and how it is written instead.
_DEFUSED = (
    ("\\u", "\\ u"),  # Java reads \u000a as the end of the line, even in a comment
    ("?>", "? >"),  # leaves PHP
    ("*/", "* /"),
    ("/*", "/ *"),
    ("(*", "( *"),
    ("*)", "* )"),
    ("--", "- -"),  # XML allows no -- in a comment; twice, for ---
    ("--", "- -"),
    ("<!", "< !"),
    ("</", "< /"),  # ends a script inside a page
)


def skeleton(objective: str, language: Language, elsewhere: list[str]) -> str:
    """A block of code that quotes `objective` and does nothing. `elsewhere`: languages that it is known in."""
    why = (
        f"It knows this one, but not in {language.label}: only in {', '.join(elsewhere)}."
        if elsewhere
        else "This objective is not one of them, so there is no code here."
    )
    comments = [
        *textwrap.wrap(f"Written by Sluice's offline model, which knows only a few dozen objectives. {why}", WIDTH),
        "Set OPENAI_API_KEY to get real answers from a real model.",
        "",
        "The objective was:",
        *(f"  | {line}" for line in _quoted(objective)),
    ]
    before, after = _AROUND.get(language.name, ("", ""))
    body = "\n".join(_comment(line, language) for line in comments)
    return f"{before}{body}\n" + (f"\n{after}" if after else "")


def fenced(code: str, info: str) -> str:
    """`code` in a fence longer than any run of backticks in it."""
    longest = run = 0
    for character in code:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{info}\n{code.rstrip()}\n{fence}\n"


def _quoted(objective: str) -> list[str]:
    cut = len(objective.strip()) > QUOTED_CHARACTERS
    lines: list[str] = []
    # splitlines knows all line ends, among them U+2028, which ends a comment in JavaScript.
    for line in objective.strip()[:QUOTED_CHARACTERS].splitlines():
        lines += textwrap.wrap(_plain(line), WIDTH, break_on_hyphens=False) or [""]
    while lines and not lines[-1]:
        lines.pop()
    return [*(lines or ["(nothing)"]), *(["(and more)"] if cut else [])]


def _plain(line: str) -> str:
    # C: control, format (which can turn the reading direction), surrogate, unassigned; Z: any kind of space.
    return "".join(
        " " if category[0] == "Z" or character == "\t" else "" if category[0] == "C" else character
        for character in line
        for category in [unicodedata.category(character)]
    )


def _comment(line: str, language: Language) -> str:
    for threat, harmless in _DEFUSED:
        line = line.replace(threat, harmless)
    if language.name == "batch":
        line = line.translate(dict.fromkeys(map(ord, "^%&|<>"), " "))
    if language.name == "ocaml":  # reads strings inside comments, and a quote without its partner never ends
        line = line.translate(dict.fromkeys(map(ord, "\"'"), "`"))
    # A line that ends in a backslash (C) or an underscore (Basic) goes on in the next one, even a comment.
    if line.endswith(("\\", "/", "_", "^", "`", "-", "*")):
        line += " ."
    return f"{language.open} {line} {language.close}".rstrip()
