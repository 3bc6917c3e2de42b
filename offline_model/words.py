"""Turns a sentence into the words that carry its meaning.

"Create a function that sums up 3 numbers, please" and "Sum of three numbers" both become sum, 3, number. What is thrown
away must never change what was asked: when in doubt a word is kept, and an objective goes without an answer.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
#: Number words and their digits.
NUMBERS = {word: str(number) for number, word in enumerate(_NUMBERS.split())}

_STOPS = """
    a an the this that these those which who whose it its is are be been was of for to in on at by into from as and or
    any some all both given certain following provided please kindly can could would should will shall must
    may might i im id me my we us our you your he she they them their there need want like help thanks
    thank so then just also up out over when where what how do does did has have having so such via per with within
    use uses using used code program script snippet function functions func def fn method methods routine procedure
    class module algorithm algorithms implementation example solution logic utility tool helper way task
    simple basic small easy nice clean efficient elegant good proper
    input inputs output outputs parameter parameters argument arguments arg args result results
    true false yes nth new let lets able together
    """
#: Words without a meaning of their own here.
STOPS = frozenset(_STOPS.split())

#: Verbs without a meaning of their own here, in any form; stems.
_STOP_VERBS = """create write make build implement develop code solve provide design take accept receive pass return get
    give find calculate compute determine print show display produce tell work need want call define perform do go"""

#: Words that mean the same, singular.
SAME = {
    "array": "list",
    "arr": "list",
    "integer": "number",
    "int": "number",
    "num": "number",
    "str": "string",
    "char": "character",
    "dict": "dictionary",
    "maximum": "max",
    "largest": "max",
    "biggest": "max",
    "greatest": "max",
    "highest": "max",
    "minimum": "min",
    "smallest": "min",
    "least": "min",
    "lowest": "min",
    "summation": "sum",
    "addition": "add",
    "multiplication": "multiply",
    "division": "divide",
    "subtraction": "subtract",
    "conversion": "convert",
    "reversal": "reverse",
    "removal": "remove",
    "delete": "remove",
    "deletes": "remove",
    "deleting": "remove",
    "concat": "concatenate",
    "concatenation": "concatenate",
    "fib": "fibonacci",
    "avg": "average",
    "mean": "average",
    "palindromic": "palindrome",
    "verify": "check",
    "verifies": "check",
    "verifying": "check",
    "if": "check",
    "whether": "check",
    "every": "each",
    "indices": "index",
    "matrices": "matrix",
    "vertices": "vertex",
    "capitalise": "capitalize",
    "capitalises": "capitalize",
}

#: Forms that describe a thing instead of asking for the deed: merging sorted lists is not sorting.
_KEEP = frozenset(("sorted", "linked", "nested", "balanced", "repeated"))

_TESTING = re.compile(
    r"\b(?:test|tests|testing|see|sees|detect|detects|determine|determines|tell|tells|find out|finds out|know)"
    r"\s+(?:me\s+|us\s+)?(?:if|whether)\b"
)
_ASKING = re.compile(r"(?:^|[.:;!?\n])\W*(?:[Ii]s|[Aa]re|[Dd]oes|[Hh]as)\b|\bis(?=[_A-Z][A-Za-z])")
_COUNTING = re.compile(r"\bhow many\b|\bthe (?:total )?number of\b")
_GREETING = re.compile(r"^\W*(?:hello|hi|hey)(?:\s+there)?\s*[,!.:;]", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]+")

#: Longest objective that is compared with the answers, in characters; real ones have a few hundred.
CHARACTERS_AT_MOST = 2_000


def tokens(text: str) -> list[str]:
    """The words of `text` as written, in lower case; questions and counts are put in one form."""
    text = unicodedata.normalize("NFKC", text)[:CHARACTERS_AT_MOST].replace("\u2019", "'")
    text = _GREETING.sub("", text)
    text = _ASKING.sub(" check ", text)
    text = _CAMEL.sub(" ", text).lower()
    text = re.sub(r"'s\b", "", text).replace("'", "")
    text = _TESTING.sub("check", text)
    text = _COUNTING.sub("count", text)
    return _WORD.findall(text)


def stem(word: str) -> str:
    """`word` without its endings, so that sums, summed and summing are one. Not always a word itself."""
    word = SAME.get(word, word)
    word = NUMBERS.get(word, word)
    if word in _KEEP or word.isdigit():
        return word
    word = _singular(word)
    word = SAME.get(word, word)
    word = re.sub(r"ied$", "y", word)
    for ending in ("ing", "ed", "er", "or"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    if len(word) > 3:
        word = word.removesuffix("e")
    if len(word) > 2 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "ches", "shes", "xes", "zzes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


_STOP_STEMS = frozenset(stem(verb) for verb in _STOP_VERBS.split())
_TO = frozenset({"to", "into"})
_FROM = frozenset({"from", "using", "with"})


@dataclass(frozen=True)
class Phrase:
    """The words of one sentence that carry its meaning."""

    #: In the order they were said.
    order: tuple[str, ...]
    #: What stands on the near and on the far side of "to": Celsius and Fahrenheit. Both empty without a direction.
    source: tuple[str, ...]
    target: tuple[str, ...]
    #: The direction is given by a "to", not only by a "from".
    to: bool

    @cached_property
    def words(self) -> frozenset[str]:
        """All of them, as a set."""
        return frozenset(self.order)

    @cached_property
    def turn(self) -> tuple[str, ...]:
        """The two words next to "to", () without one."""
        return (self.source[-1], self.target[0]) if self.to else ()

    def opposes(self, other: "Phrase") -> bool:
        """Whether something leads from one thing to another here, and the other way round in `other`."""
        if other.source:
            near, far = set(self.source) - set(self.target), set(self.target) - set(self.source)
            return bool(near & set(other.target) - set(other.source) and far & set(other.source) - set(other.target))
        if not self.turn or not set(self.turn) <= other.words:
            return False
        # "Fahrenheit Celsius converter" says no direction; the order is all there is.
        return other.order.index(self.turn[0]) > other.order.index(self.turn[1])


def phrase(raw: list[str]) -> Phrase:
    """What the words `raw` (from `tokens`) say."""
    order: list[str] = []
    said: dict[str, list[str]] = {"": [], "to": [], "from": []}
    side = ""
    for word in raw:
        if word in _TO or word in _FROM:
            side = "to" if word in _TO else "from"
        if word in STOPS or stem(word) in _STOP_STEMS:
            continue
        order.append(stem(word))
        said[side].append(order[-1])
    source, target = said["from"], said["to"]
    if source and not target:
        target = said[""]
    elif target and not source:
        source = said[""]
    if not source or not target:
        source, target = [], []
    return Phrase(tuple(order), tuple(source), tuple(target), to=bool(source and said["to"]))
