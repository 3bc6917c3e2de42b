"""What the next calls get: a list of rules, each a fault or an answer for the calls it matches.

A rule is a JSON object. The first rule in the list that matches a call, is not spent, and wins its own draw applies;
a call that no rule wants gets an ordinary answer.

    match        regex searched in the last user message (all calls)
    times        number of calls it applies to before it is spent, null for no end (null)
    probability  from 0 to 1: chance that a matching call gets it (1)
    seed         int: makes the draws repeatable
    seconds      how long it takes (`seconds_per_answer`; 0 for the faults status, garbage, html, no_choices)
    answer       text to answer with, instead of what the model knows
    fault        one of FAULTS; without one, the answer is fine
    status, retry_after (seconds), code, type, message      only with the fault "status"
"""

import random
import re
import threading
from dataclasses import dataclass

#: Name of a fault, and what it does.
FAULTS = {
    "status": "answers with an HTTP error status",
    "hang": "accepts and never answers",
    "hang_midway": "answers half and then hangs",
    "cut_off": "answers half and closes the connection",
    "length": "answers half, finish_reason length",
    "refuse": "answers with a refusal",
    "content_filter": "answers half, finish_reason content_filter",
    "empty": "answers with no text",
    "garbage": "answers 200 with broken JSON",
    "html": "answers 200 with a page",
    "no_choices": "answers 200 with no choices",
}

#: Faults that are over at once unless the rule says otherwise.
QUICK = {"status", "garbage", "html", "no_choices"}

#: Faults that send no text, so an `answer` beside them would be a mistake.
MUTE = {"status", "hang", "empty", "garbage", "html", "no_choices"}

#: Keys that mean something only beside the fault "status".
STATUS_KEYS = {"status", "retry_after", "code", "type", "message"}

KEYS = {"match", "times", "probability", "seed", "seconds", "answer", "fault"} | STATUS_KEYS

#: Longest an answer may be told to take, in seconds.
SECONDS_AT_MOST = 3600


class BadRule(ValueError):
    """The script cannot be read. The message names the rule, the key and what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """One rule of a script, checked."""

    match: re.Pattern[str]
    times: int | None
    probability: float
    draws: random.Random
    #: Seconds, or None for the server's own pace.
    seconds: float | None
    answer: str | None
    fault: str | None
    #: HTTP status, 0 unless the fault is "status".
    status: int
    #: Seconds, sent as a header.
    retry_after: float | None
    code: str | None
    type: str | None
    message: str | None


class Script:
    """The rules in force, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Rule, list[int]]] = []

    def replace(self, rules: object) -> int:
        """Put `rules` (a list of objects) in force instead of what was, and return how many there are.

        Raises `BadRule`, and then the old rules stay.
        """
        if not isinstance(rules, list):
            raise BadRule("a script is a list of rules")
        read = [(_read(index, rule), [0]) for index, rule in enumerate(rules)]
        with self._lock:
            self._rules = read
        return len(read)

    def pick(self, message: str) -> Rule | None:
        """The rule for a call whose last user message is `message`; it counts as used."""
        with self._lock:
            for rule, used in self._rules:
                if rule.times is not None and used[0] >= rule.times:
                    continue
                if not rule.match.search(message):
                    continue
                if rule.probability < 1 and rule.draws.random() >= rule.probability:
                    continue
                used[0] += 1
                return rule
        return None


def _read(index: int, rule: object) -> Rule:
    def bad(what: str) -> BadRule:
        return BadRule(f"rule {index}: {what}")

    if not isinstance(rule, dict):
        raise bad("must be an object")
    unknown = sorted(str(key) for key in rule.keys() - KEYS)
    if unknown:
        raise bad(f"unknown key {', '.join(unknown)} (known: {', '.join(sorted(KEYS))})")

    def text(key: str) -> str | None:
        value = rule.get(key)
        if value is None or isinstance(value, str):
            return value
        raise bad(f"{key} must be a string, not {value!r}")

    def number(key: str, most: float) -> float | None:
        value = rule.get(key)
        if value is None:
            return None
        # bool is an int to Python, not to the one who wrote the rule; NaN fails the comparison.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise bad(f"{key} must be a number from 0 to {most:g}, not {value!r}")
        return float(value)

    def whole(key: str) -> int | None:
        value = rule.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise bad(f"{key} must be a whole number, not {value!r}")

    try:
        match = re.compile(text("match") or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise bad(f"match is not a regex: {error}") from error
    times = whole("times")
    if times is not None and times < 0:
        raise bad(f"times must be 0 or more, not {times}")
    fault = text("fault")
    if fault is not None and fault not in FAULTS:
        raise bad(f"unknown fault {fault!r} (known: {', '.join(FAULTS)})")
    answer = text("answer")
    if answer is not None and fault in MUTE:
        raise bad(f"answer does not go with the fault {fault}, which sends none")
    status = whole("status")
    if fault == "status":
        if status is None or not 400 <= status <= 599:
            raise bad(f"the fault status needs a status from 400 to 599, not {status}")
    elif rule.keys() & STATUS_KEYS:
        raise bad(f"{', '.join(sorted(rule.keys() & STATUS_KEYS))} goes only with the fault status")
    probability = number("probability", 1)
    return Rule(
        match=match,
        times=times,
        probability=1.0 if probability is None else probability,
        draws=random.Random(whole("seed")),
        seconds=number("seconds", SECONDS_AT_MOST),
        answer=answer,
        fault=fault,
        status=status or 0,
        retry_after=number("retry_after", SECONDS_AT_MOST),
        code=text("code"),
        type=text("type"),
        message=text("message"),
    )
