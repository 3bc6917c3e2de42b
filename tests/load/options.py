"""What the command line may say. Wrong arguments end the process with status 2 and a sentence."""

from __future__ import annotations

import argparse
import math
import os
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

Number = TypeVar("Number", int, float)

#: Where an overview stops to count (`GET /tasks/get/overview`): a user with more tasks could not be watched by it.
MAX_TASKS_PER_USER = 10_000

#: The variable with the broker's password: arguments can be read by everybody on the machine, and stay in the history.
PASSWORD_VARIABLE = "BROKER_PASSWORD"


@dataclass(frozen=True)
class BrokerAddress:
    """The management API of RabbitMQ."""

    base: str
    user: str
    password: str = field(repr=False)
    vhost: str


@dataclass(frozen=True)
class Options:
    """One run of the load script. Times are in seconds."""

    url: str
    tasks: int = 100
    #: Tasks a second; 0 means as fast as it can.
    rate: float = 10.0
    users: int = 10
    kind: str = "message"
    #: Fields of the kind, as text; empty means the kind's own examples.
    inputs: dict[str, str] = field(default_factory=dict)
    #: Posts on their way at once, at most.
    connections: int = 32
    kubeconfig: Path | None = None
    broker: BrokerAddress | None = None
    queue: str = "tasks"
    out: Path = Path("build/load")
    #: How long after the last post the tasks may take.
    timeout: float = 480.0
    #: How long to wait for zero replicas, once all tasks are done.
    back_to_zero: float = 300.0
    seed: int = 0
    quiet: bool = False
    #: Part of every user's name and key: a second run must not find the tasks of the first.
    run: str = field(default_factory=lambda: secrets.token_hex(4))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line (`sys.argv` by default). Raises SystemExit(2) when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        usage="%(prog)s [options]",
        description="Post tasks, watch them to the end, and measure both.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--url", type=_sluice, default="http://localhost:8080", help="where Sluice is (default: %(default)s)")
    add("--tasks", type=_positive_int, default=100, help="how many tasks (default: %(default)s)")
    add("--rate", type=_not_negative, default=10.0, help="tasks a second; 0: as fast as it can (default: %(default)s)")
    add(
        "--users",
        type=_positive_int,
        default=10,
        help="how many users the tasks are spread over (default: %(default)s)",
    )
    add("--kind", default="message", help="the kind of the tasks (default: %(default)s)")
    add("--input", type=_input, action="append", default=[], metavar="FIELD=VALUE", help="an input of the kind, for "
        "all tasks; may be repeated. Without one, the kind's own examples are used")  # fmt: skip
    add(
        "--connections",
        type=_positive_int,
        default=32,
        help="posts on their way at once, at most (default: %(default)s)",
    )
    add("--kubeconfig", type=_file, help="records the replicas of the Deployment engine in the namespace sluice")
    add("--broker", type=broker_address, metavar="http://USER@HOST:15672/VHOST", help="records the queue's depth, "
        f"by RabbitMQ's management API; the password is taken from {PASSWORD_VARIABLE}")  # fmt: skip
    add("--queue", default="tasks", help="the queue whose depth is recorded (default: %(default)s)")
    add("--out", type=Path, help="the folder for the files (default: build/load/TIME-RUN)")
    add(
        "--timeout",
        type=_positive,
        default=480.0,
        help="seconds after the last post that the tasks may take (default: %(default)s)",
    )
    add("--back-to-zero", type=_not_negative, default=300.0, metavar="SECONDS", help="how long to wait for zero "
        "replicas at the end, with --kubeconfig (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, help="chooses which examples are posted, in which order (default: random)")
    add("--quiet", action="store_true", help="no progress, only the table")
    given = parser.parse_args(arguments)
    if math.ceil(given.tasks / given.users) > MAX_TASKS_PER_USER:
        least = math.ceil(given.tasks / MAX_TASKS_PER_USER)
        parser.error(f"a user may have {MAX_TASKS_PER_USER} tasks here: {given.tasks} need --users {least} or more")
    run = secrets.token_hex(4)
    return Options(
        url=given.url,
        tasks=given.tasks,
        rate=given.rate,
        users=given.users,
        kind=given.kind,
        inputs=dict(given.input),
        connections=given.connections,
        kubeconfig=given.kubeconfig,
        broker=given.broker,
        queue=given.queue,
        out=given.out or Path("build/load") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{run}",
        timeout=given.timeout,
        back_to_zero=given.back_to_zero,
        seed=random.randrange(1_000_000) if given.seed is None else given.seed,
        quiet=given.quiet,
        run=run,
    )


def broker_address(text: str) -> BrokerAddress:
    """Read `http://user@host:15672/vhost`, with the password there (`user:password`) or in the environment; without a
    path it is the vhost `/`."""
    parts = urlsplit(_url(text))
    if parts.username is None:
        raise argparse.ArgumentTypeError("needs a user: http://USER@HOST:15672/VHOST")
    password = os.environ.get(PASSWORD_VARIABLE) if parts.password is None else unquote(parts.password)
    if not password:
        raise argparse.ArgumentTypeError(f"needs a password, in {PASSWORD_VARIABLE}")
    return BrokerAddress(
        base=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        user=unquote(parts.username),
        password=password,
        vhost=unquote(parts.path.removeprefix("/")) or "/",
    )


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// or https:// address")
    return text.rstrip("/")


def _sluice(text: str) -> str:
    if urlsplit(_url(text)).username is not None:
        raise argparse.ArgumentTypeError("must be without a user and a password")
    return _url(text)


def _number(text: str, of: Callable[[str], Number]) -> Number:
    try:
        return of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _positive_int(text: str) -> int:
    number = _number(text, int)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _not_negative(text: str) -> float:
    number = _number(text, float)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def _positive(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _input(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return name, value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path
