"""The objectives the offline model knows, and how it recognises them.

One file in `answers/` is one objective: a title, other ways to say it, and one fenced block of code per language.
"""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

from offline_model.words import Phrase, phrase, stem, tokens

FOLDER = Path(__file__).parent / "answers"

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[^\s`]+)[ \t]*\n(?P<code>.*?)\n(?P=fence)[ \t]*$", re.S | re.M)

#: Words that may be left out of a phrase of three or more: "count the words" has to mean those in a string.
_UNDERSTOOD = frozenset(map(stem, ("string", "text", "number")))


class BadAnswer(ValueError):
    """A file in `answers/` is not in the format. The message names the file and what it lacks."""


@dataclass(frozen=True)
class Answer:
    """One objective with its code."""

    slug: str
    title: str
    #: Title and bullets, as written.
    sayings: tuple[str, ...]
    #: Code by the language's name as in `languages.py`.
    code: dict[str, str]


def read_answer(path: Path) -> Answer:
    """The answer in the file at `path`. Raises `BadAnswer`."""
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    code = {match["language"]: match["code"] for match in _FENCE.finditer(text)}
    lines = _FENCE.sub("", text).splitlines()
    if not lines or not lines[0].startswith("# ") or not lines[0][2:].strip():
        raise BadAnswer(f"{path.name}: the first line must be a title, '# ...'")
    if not code:
        raise BadAnswer(f"{path.name}: no block of code")
    title = lines[0][2:].strip()
    bullets = [line[2:].strip() for line in lines[1:] if line.startswith("- ")]
    return Answer(path.stem, title, (title, *bullets), code)


class _Known:
    """An answer's phrases, and what can be said of them together."""

    def __init__(self, answer: Answer, phrases: Iterable[Phrase]) -> None:
        self.answer = answer
        self.phrases = [said for said in phrases if said.words]
        self.vocabulary = frozenset(word for said in self.phrases for word in said.words)
        #: Words that no phrase goes without.
        self.core = frozenset.intersection(*(said.words for said in self.phrases)) if self.phrases else frozenset()
        self._together = {frozenset(pair) for said in self.phrases for pair in combinations(said.words, 2)}

    def rank(self, asked: Phrase) -> int | None:
        """How well the objective `asked` fits: 0 is word for word, None is not at all."""
        # a, b and n are names, not meanings: without them unless the answer speaks of them itself.
        letters = {word for word in asked.words - self.vocabulary if len(word) == 1 and word.isalpha()}
        words = asked.words - letters
        if not words or not words <= self.vocabulary:
            return None
        # The same words, but the other way round: Fahrenheit to Celsius.
        if asked.source and any(said.opposes(asked) for said in self.phrases):
            return None
        ranks = [rank for said in self.phrases if (rank := self._fit(said, asked, words)) is not None]
        return min(ranks, default=None)

    def _fit(self, said: Phrase, asked: Phrase, words: frozenset[str]) -> int | None:
        missing, extra = said.words - words, words - said.words
        if any(word.isdigit() for word in missing | extra):
            return None
        # "Add a number to a list" has the words of "add a list of numbers".
        if (asked.to and not said.to) or said.opposes(asked):
            return None
        if not missing and not extra:
            return 0
        if not missing:
            near = all(frozenset((word, other)) in self._together for word in extra for other in said.words)
            return 1 if near and len(extra) <= len(said.words) // 3 else None
        if len(missing) > 1 or len(said.words) < 3:
            return None
        if not extra:
            return 3 if missing <= _UNDERSTOOD and not missing & set(said.turn) else None
        # Another word in the place of one: a stand-in is never seen beside the word it stands for. Whoever says a whole
        # phrase and something more does not swap words, he asks for something else: "reverse the words of a string".
        swapped = len(extra) == 1 and not missing & self.core and missing | extra not in self._together
        return 2 if swapped and not any(extra <= other.words <= words for other in self.phrases) else None


class Book:
    """All the answers, ready to be asked."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = tuple(answers)
        raw = [[tokens(saying) for saying in answer.sayings] for answer in self.answers]
        self._single = {word for sayings in raw for saying in sayings for word in saying}
        pairs = {pair for sayings in raw for saying in sayings for pair in pairwise(saying) if min(map(len, pair)) > 2}
        self._apart = {"".join(pair): pair for pair in sorted(pairs)}
        self._known = [
            _Known(answer, (phrase(self._joined(saying)) for saying in sayings))
            for answer, sayings in zip(self.answers, raw, strict=True)
        ]

    def find(self, objective: str) -> Answer | None:
        """The answer to `objective`, or None if there is none, or if two fit equally well."""
        asked = phrase(self._joined(tokens(objective)))
        fits: dict[int, list[Answer]] = {}
        for known in self._known:
            rank = known.rank(asked)
            if rank is not None:
                fits.setdefault(rank, []).append(known.answer)
        best = fits[min(fits)] if fits else []
        return best[0] if len(best) == 1 else None

    def _joined(self, raw: list[str]) -> list[str]:
        """Write compounds one way: fizz buzz and fizzbuzz are the same."""
        whole: list[str] = []
        for word in raw:
            if whole and len(word) > 2 and len(whole[-1]) > 2 and whole[-1] + word in self._single:
                whole[-1] += word
            elif word not in self._single and word in self._apart:
                whole.extend(self._apart[word])
            else:
                whole.append(word)
        return whole


_reading = threading.Lock()


def shipped() -> Book:
    """The answers in the package, read on first use. Raises `BadAnswer`."""
    # The cache alone would let two hundred first calls read all the files two hundred times.
    with _reading:
        return _read_shipped()


@cache
def _read_shipped() -> Book:
    return Book(read_answer(path) for path in sorted(FOLDER.glob("*.md")))
