"""The laws of a task's life, written down a second time: every version of every document is held against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from functions.engine.handler import Failed, Retry
from functions.engine.isolation import Crashed
from functions.engine.worker import LAST_PAUSE
from sluice.kinds import kinds
from sluice.settings import Settings
from sluice.task import MOVES, TERMINAL, Document, Task
from tests.machine.strands import Stage

#: What a handler may end with: outputs, or an error.
Outcome = Document | Exception

#: What an attempt may change without moving its task.
OF_AN_ATTEMPT = {"lease_until", "steps", "progress", "message", "swept_at"}


@dataclass(frozen=True)
class Write:
    """One change of one document: whose turn it was, and since when that one has been at what it does."""

    before: Document | None
    after: Document
    by: str
    since: datetime
    now: datetime

    @property
    def old(self) -> Document:
        return self.before or {}

    @property
    def changed(self) -> set[str]:
        return {name for name in {**self.old, **self.after} if self.old.get(name) != self.after.get(name)}

    @property
    def is_claim(self) -> bool:
        return self.before is not None and self.after["attempts"] != self.before["attempts"]

    @property
    def is_retry(self) -> bool:
        return self.old.get("status") in TERMINAL and self.after["status"] == "pending"

    def becomes(self, status: str, code: str | None = None) -> bool:
        """Whether this is the move to a status (by an error with this code)."""
        return self.after["status"] == status != self.old.get("status") and code in (
            None,
            (self.after["error"] or {}).get("code"),
        )


Law = Callable[["Ledger", Write], Iterator[str]]
LAWS: list[Law] = []


def law(check: Law) -> Law:
    LAWS.append(check)
    return check


class Ledger:
    """What was promised, what was written, and what handlers gave. `faults` says which laws were broken, and how."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        self.faults: list[str] = []
        #: Every version of every task's document, oldest first.
        self.versions: dict[str, list[Write]] = {}
        #: The tasks that somebody was told about with a 202.
        self.accepted: set[str] = set()
        #: What each attempt's handler ended with.
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        #: The attempts whose handler was started.
        self.begun: set[tuple[str, int]] = set()
        #: How often a process died of a task, since a person has started it.
        self.deaths: Counter[str] = Counter()
        #: What has happened in all, to see that all that matters does.
        self.seen: Counter[str] = Counter()
        #: The last attempt before a person started the task again.
        self._bygone: Counter[str] = Counter()
        self.settings = settings
        self._stage = stage
        self._keys: dict[tuple[str, str], str] = {}

    def latest(self, task_id: str) -> Document | None:
        versions = self.versions.get(task_id)
        return versions[-1].after if versions else None

    def is_over(self, task_id: str) -> bool:
        latest = self.latest(task_id)
        return latest is not None and latest["status"] in TERMINAL

    def has_time(self, task_id: str, seconds: float) -> bool:
        """Whether an unfinished task may still be started for so many seconds, and nothing is decided yet."""
        latest = self.latest(task_id)
        assert latest is not None
        if latest["status"] in TERMINAL or (task_id, latest["attempts"]) in self.outcomes:
            return False
        return bool(latest["deadline"] - self._stage.time.now > timedelta(seconds=seconds))

    # --- what happens ------------------------------------------------------------------------------------------------

    def accept(self, task: Task, text: str, key: str | None) -> None:
        """Somebody was answered with 202, and this task."""
        self.accepted.add(task.id)
        if task.document["text"] != text:
            self.fault(task.id, "asked for one thing, and was shown another")
        if key is not None and self._keys.setdefault((task.user_id, key), task.id) != task.id:
            self.fault(task.id, "one key, two tasks")

    def write(self, before: Document | None, after: Document) -> None:
        """The database holds a new version of a document."""
        strand = self._stage.current
        assert strand is not None, "the test itself writes nothing"
        write = Write(before, after, str(strand), strand.since, self._stage.time.now)
        self.versions.setdefault(after["_id"], []).append(write)
        if write.is_claim and write.old["status"] == "running":
            self.deaths[after["_id"]] = max(1, self.deaths[after["_id"]])
            self.seen["taken over"] += 1
        if write.is_retry:
            self.deaths[after["_id"]] = 0
            self._bygone[after["_id"]] = after["attempts"]
        for check in LAWS:
            for complaint in check(self, write):
                self.fault(after["_id"], f"{check.__name__}: {complaint}")
        code = (after["error"] or {}).get("code")
        if write.becomes(after["status"]):
            self.seen[after["status"] if code is None else f"{after['status']}: {code}"] += 1

    def begin(self, task_id: str, attempt: int) -> None:
        """An attempt's handler starts."""
        if (task_id, attempt) in self.begun:
            self.fault(task_id, f"attempt {attempt} is run twice")
        self.begun.add((task_id, attempt))

    def end(self, task_id: str, attempt: int, outcome: Outcome) -> None:
        """An attempt's handler ends. Nothing of it is written yet."""
        self.outcomes[task_id, attempt] = outcome
        latest = self.latest(task_id)
        assert latest is not None
        if latest["attempts"] > attempt or latest["status"] != "running":
            self.seen["came too late"] += 1
        elif isinstance(outcome, Crashed):
            self.deaths[task_id] += 1

    def acknowledge(self, task_id: str, attempt: int, *, is_elsewhere: bool) -> None:
        """Who made an attempt has done with its message, which may be elsewhere too. Then its end is written down."""
        latest = self.latest(task_id)
        if latest is None or latest["attempts"] != attempt or attempt == self._bygone[task_id]:
            return
        if latest["status"] == "running":
            self.fault(task_id, "its message is gone before its result is written")
        elif latest["status"] == "pending" and not is_elsewhere:
            self.fault(task_id, "its message is gone before there is one for the next try")

    def fault(self, task_id: str, complaint: str) -> None:
        history = [
            f"    {write.now:%H:%M:%S}  {write.by}: "
            + (", ".join(f"{name}={write.after.get(name)!s:.60}" for name in sorted(write.changed)))
            for write in self.versions.get(task_id, [])
        ]
        self.faults.append("\n".join([f"task {task_id}: {complaint}", *history]))


# --- the laws --------------------------------------------------------------------------------------------------------


@law
def what_was_asked_for_stays(_ledger: Ledger, write: Write) -> Iterator[str]:
    if write.before is not None and (lost := write.changed & {"_id", "user_id", "kind", "text", "created_at"}):
        yield f"{', '.join(sorted(lost))} changed"


@law
def a_task_is_born_pending_and_fresh(ledger: Ledger, write: Write) -> Iterator[str]:
    if write.before is None:
        born = (write.after["status"], write.after["attempts"], write.after["error"], write.after["message"])
        if born != ("pending", 0, None, ""):
            yield f"born as {born}"
        if write.after["deadline"] != write.after["created_at"] + timedelta(seconds=ledger.settings.task_ttl_seconds):
            yield "the deadline is not the acceptance's"


@law
def only_legal_moves(_ledger: Ledger, write: Write) -> Iterator[str]:
    before, after = write.old.get("status"), write.after["status"]
    if before is not None and before != after and after not in MOVES[before]:
        yield f"{before} to {after}"


@law
def an_end_is_left_only_by_a_persons_retry(_ledger: Ledger, write: Write) -> Iterator[str]:
    if write.old.get("status") not in TERMINAL:
        return
    if not (write.is_retry and write.by == "retry"):
        yield f"{write.by} changed {', '.join(sorted(write.changed)) or 'nothing'}"
    elif any(write.after[name] != value for name, value in kinds()[write.after["kind"]].blank_outputs().items()):
        yield "the old result is still shown"


@law
def the_deadline_changes_only_by_a_persons_retry(ledger: Ledger, write: Write) -> Iterator[str]:
    if write.is_retry:
        asked = write.after["deadline"] - timedelta(seconds=ledger.settings.task_ttl_seconds)
        if not write.since <= asked <= write.now:
            yield f"to {write.after['deadline']}, asked for at {write.since}"
    elif write.before is not None and "deadline" in write.changed:
        yield f"to {write.after['deadline']}"


@law
def attempts_only_grow_and_each_by_a_claim(_ledger: Ledger, write: Write) -> Iterator[str]:
    """A claim knows what time it was when it was sent. It may be under way for long: then it starts a task later than
    that, but takes none away from anybody."""
    before, after = write.before, write.after
    if before is None or not (write.is_claim or write.becomes("running")):
        return
    if (after["attempts"], after["status"]) != (before["attempts"] + 1, "running"):
        yield f"attempt {after['attempts']} after {before['attempts']}, {after['status']}"
    if after["deadline"] <= after["started_at"] or not write.since <= after["started_at"] <= write.now:
        yield "started after its deadline"
    if before["status"] == "running" and before["lease_until"] > write.now:
        yield "taken from an engine whose lease is good"
    if before["retry_at"] is not None and before["retry_at"] > write.now:
        yield "started before its pause is over"


@law
def only_who_holds_an_attempt_writes_for_it(_ledger: Ledger, write: Write) -> Iterator[str]:
    """Cancelling, giving up what nobody holds, and the sweep's marks are for everybody."""
    before, after = write.before, write.after
    if before is None or before["status"] != "running" or write.is_claim or write.changed == {"swept_at"}:
        return
    if after["status"] == "cancelled" and write.by == "cancel":
        return
    is_given_up = write.becomes("failed", "expired") or write.becomes("failed", "crashed")
    if is_given_up and before["lease_until"] <= write.now:
        return
    if write.by.split()[0] != before["engine"]:
        yield f"{write.by} writes for {before['engine']}"
    if after["status"] == "running" and (strange := write.changed - OF_AN_ATTEMPT):
        yield f"an attempt changed {', '.join(sorted(strange))}"


@law
def a_result_is_of_the_attempt_that_the_document_names(ledger: Ledger, write: Write) -> Iterator[str]:
    if write.becomes("completed"):
        given = ledger.outcomes.get((write.after["_id"], write.after["attempts"]))
        if given != {"message": write.after["message"]}:
            yield f"shown is {write.after['message']!r}, and attempt {write.after['attempts']} gave {given!r}"


@law
def an_error_is_of_the_attempt_that_the_document_names(ledger: Ledger, write: Write) -> Iterator[str]:
    error = write.after["error"]
    given = ledger.outcomes.get((write.after["_id"], write.after["attempts"]))
    if write.old.get("status") != "running" or error is None or not isinstance(given, Failed | Retry):
        return
    if error["code"] not in ("expired", given.code) or given.message not in error["message"]:
        yield f"shown is {error}, and attempt {write.after['attempts']} gave {given!r}"


@law
def expired_is_only_whose_time_was_over(ledger: Ledger, write: Write) -> Iterator[str]:
    """Or would have been over by its next try."""
    if write.becomes("failed", "expired"):
        outcome = ledger.outcomes.get((write.after["_id"], write.after["attempts"]))
        pause = 0.0
        if write.old["status"] == "running" and isinstance(outcome, Retry | Crashed):
            pause = max(LAST_PAUSE * 1.25, getattr(outcome, "after", None) or 0)
        if write.after["deadline"] > write.now + timedelta(seconds=pause):
            yield f"given up {write.after['deadline'] - write.now} before its deadline"


@law
def crashed_is_only_who_crashed_often_enough(ledger: Ledger, write: Write) -> Iterator[str]:
    if write.becomes("failed", "crashed") and ledger.deaths[write.after["_id"]] < ledger.settings.crash_limit:
        yield f"given up after {ledger.deaths[write.after['_id']]} deaths"


@law
def every_field_goes_with_the_status(_ledger: Ledger, write: Write) -> Iterator[str]:
    after, status = write.after, write.after["status"]
    if (status in TERMINAL) != (after["completed_at"] is not None):
        yield f"{status}, completed at {after['completed_at']}"
    if (status == "running") != (after.get("lease_until") is not None):
        yield f"{status}, with a lease until {after.get('lease_until')}"
    if status in ("running", "completed") and after["error"] is not None:
        yield f"{status}, with the error {after['error']}"
    if status == "failed" and not (after["error"] and after["error"]["message"]):
        yield "failed without a word"
    if after["retry_at"] is not None and status != "pending":
        yield f"{status}, to be tried again at {after['retry_at']}"
