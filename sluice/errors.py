"""What can go wrong, as a small tree. The HTTP status is given at the door (`sluice.http`).

SluiceError
├── InvalidSettings      the process does not start
├── InvalidKind          the process does not start
├── InvalidRequest       the caller can mend it: names every bad field
│   ├── TooLarge
│   └── UnsupportedMedia
├── TaskNotFound
├── Conflict             the task is in a state that does not allow this
├── KeyReused            one Idempotency-Key, two different bodies
├── NotATask             a message that can't be read as a task
├── Unstorable           a result that the database has no form for
└── Unavailable          worth trying again
    ├── StoreUnavailable
    └── BrokerUnavailable
"""

from __future__ import annotations

from dataclasses import dataclass


class SluiceError(Exception):
    """Base of all errors that Sluice raises on purpose."""


class InvalidSettings(SluiceError):
    """Settings are missing or wrong. The message names all of them, and shows no secret."""


class InvalidKind(SluiceError):
    """A kind of task is not written as a kind must be. The message names the kind and what is wrong."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field of a request."""

    field: str
    message: str


class InvalidRequest(SluiceError):
    """The request can't be accepted as it is."""

    def __init__(self, detail: str, errors: list[FieldError] | None = None) -> None:
        super().__init__(detail)
        self.errors = errors or []


class TooLarge(InvalidRequest):
    """The request holds more than a task may."""


class UnsupportedMedia(InvalidRequest):
    """The body is of a content type that is not read here."""


class TaskNotFound(SluiceError):
    """There is no task with this id."""


class Conflict(SluiceError):
    """The task's status does not allow this."""


class KeyReused(SluiceError):
    """This Idempotency-Key was used before, with another body."""


class NotATask(SluiceError):
    """The message can't be read as a task."""


class Unstorable(SluiceError):
    """The database has no form for this value."""


class Unavailable(SluiceError):
    """A service that is needed does not answer. Try again later."""


class StoreUnavailable(Unavailable):
    """The database did not answer in time."""


class BrokerUnavailable(Unavailable):
    """The queue did not confirm in time."""
