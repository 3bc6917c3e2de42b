"""What MongoDB is set up with gives nobody more rights than needed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sluice.settings import Settings
from tests.manifests.rules import rule
from tests.manifests.system import System

#: What each part does with the tasks (sluice/store.py). Only who looks for lost tasks keeps the indexes in order.
RIGHTS = {
    "add-task": {"find", "insert", "update"},
    "get-tasks": {"find"},
    "cancel-task": {"find", "update"},
    "retry-task": {"find", "update"},
    "engine": {"find", "insert", "update", "createIndex"},
    "sweep": {"find", "update", "createIndex"},
}


@rule
def each_user_of_mongodb_has_the_least_rights(system: System) -> Iterator[str]:
    if system.workload("mongodb") is None:
        return
    scripts = [
        text for config in system.of("ConfigMap") for name, text in config["data"].items() if name == "set-up.js"
    ]
    if len(scripts) != 1:
        yield f"MongoDB is set up by {len(scripts)} scripts"
        return
    table = re.search(r"const RIGHTS = \{(.*?)\n\};", scripts[0], re.DOTALL)
    rows = re.findall(r'^\s*"?([\w-]+)"?: \[(.*?)\]', table[1] if table else "", re.MULTILINE)
    given = {name: set(re.findall(r"\w+", actions)) for name, actions in rows}
    for name in sorted(given.keys() ^ RIGHTS.keys()):
        yield f"MongoDB's user {name} is {'not made' if name in RIGHTS else 'nobody of ours'}"
    for name in sorted(given.keys() & RIGHTS.keys()):
        for action in sorted(given[name] - RIGHTS[name]):
            yield f"MongoDB's user {name} may {action}"
        for action in sorted(RIGHTS[name] - given[name]):
            yield f"MongoDB's user {name} may not {action}"
    database = Settings.model_fields["mongodb_database"].default
    if f'resource: {{ db: "{database}", collection: "tasks" }}' not in scripts[0]:
        yield f"MongoDB's users have rights on something else than the tasks in {database}"
    if re.search(r'roles: \["(?!root")', scripts[0]):
        yield "a user of MongoDB has a role that is not its own"
