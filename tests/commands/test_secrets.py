"""`make secrets`: every Secret that the manifests refer to, passwords that open the doors, and none of them seen."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
import yaml
from pika.exceptions import ProbableAuthenticationError

from k8s.commands.passwords import COMPONENTS, KEYS, TAGS, WITH_QUEUE, Addresses, Secrets, complete, hashed, rotated
from tests.commands.running import ROOT, path_of, run
from tests.manifests.kustomize import build, kustomize_missing
from tests.servers import require
from tests.servers.ports import LOOPBACK
from tests.servers.rabbit import RabbitNode, rabbitmq_home, rabbitmq_missing

#: For people, who open RabbitMQ's own pages with it: no manifest refers to it.
FOR_PEOPLE = {"rabbitmq": {"operator"}}

ELSEWHERE = {
    "OVERLAY": "production",
    "MONGODB_URI": "mongodb+srv://{name}:{password}@cluster.example/?authSource=admin&tls=true",
    "RABBITMQ_URL": "amqps://{name}:{password}@rabbitmq.example:5671/sluice",
    "RABBITMQ_HTTP_URL": "https://rabbitmq.example/sluice",
}

#: A kubectl that writes down what it is asked and given, and has the Secrets that lie beside it.
KUBECTL = """
echo "$*" >> "$0.asked"
case "$*" in
    *current-context*) [ -e "$0.context" ] && cat "$0.context" || echo kind-sluice ;;
    *"get pvc"*) [ ! -e "$0.claims" ] || cat "$0.claims" ;;
    *"get secret"*) [ ! -e "$0.has" ] || cat "$0.has" ;;
    *"get namespace"*) echo namespace/sluice ;;
    *apply*) cat > "$0.given" ;;
esac
"""


def printed(**settings: str) -> Secrets:
    """The Secrets that PRINT=1 prints, of which no tool needs to be there."""
    ended = run("secrets", path="/nonexistent", PRINT="1", **settings)
    assert ended.returncode == 0, ended.stderr
    return in_yaml(ended.stdout)


def in_yaml(text: str) -> Secrets:
    found = {}
    for secret in yaml.safe_load_all(text):
        assert (secret["apiVersion"], secret["kind"], secret["type"]) == ("v1", "Secret", "Opaque")
        assert secret["metadata"]["namespace"] == "sluice"
        found[secret["metadata"]["name"]] = {
            key: base64.b64decode(value, validate=True).decode() for key, value in secret["data"].items()
        }
    return found


def references(found: object) -> Iterator[tuple[str, str | None]]:
    """Every Secret that an object refers to, with the key, or None for all of its keys."""
    if isinstance(found, dict):
        if "secretKeyRef" in found:
            yield found["secretKeyRef"]["name"], found["secretKeyRef"]["key"]
        if "secretRef" in found:
            yield found["secretRef"]["name"], None
        if isinstance(found.get("secret"), dict):
            volume = found["secret"]
            for item in volume.get("items", [{"key": None}]):
                yield volume.get("secretName") or volume["name"], item["key"]  # `name` in a projected volume
        for target in found.get("secretTargetRef", []):
            yield target["name"], target["key"]
        for value in found.values():
            yield from references(value)
    elif isinstance(found, list):
        for value in found:
            yield from references(value)


def secret_values(secrets: Secrets) -> set[str]:
    """What nobody may see: all but addresses and names."""
    return {
        value for values in secrets.values() for key, value in values.items() if key not in ("amqp", "http", "username")
    }


@pytest.mark.parametrize(("overlay", "settings"), [("local", {}), ("production", ELSEWHERE)])
def test_every_secret_and_key_that_the_manifests_refer_to_is_made_and_no_other(
    overlay: str, settings: dict[str, str]
) -> None:
    require(kustomize_missing())
    asked: dict[str, set[str | None]] = {}
    for manifest in [*build(ROOT / "k8s/overlays" / overlay), *build(ROOT / "keda")]:
        for name, key in references(manifest):
            asked.setdefault(name, set()).add(key)
    made = printed(OPENAI_API_KEY="sk-test", **settings)
    assert made.keys() == asked.keys()
    for name, keys in asked.items():
        if None not in keys:
            assert made[name].keys() - FOR_PEOPLE.get(name, set()) == keys, name


def test_the_databases_know_the_users_that_their_set_up_gives_rights_to() -> None:
    made = printed()
    set_up = (ROOT / "k8s/components/mongodb/set-up.js").read_text()
    rights = re.search(r"^const RIGHTS = \{$(.*?)^\};$", set_up, re.M | re.S)
    assert rights is not None
    users = set(re.findall(r'^  "?([a-z-]+)"?:', rights[1], re.M))
    assert made["mongodb"].keys() == users | {"keyfile", "root"}
    definitions = json.loads((ROOT / "k8s/components/rabbitmq/definitions.json").read_text())
    known = {user["name"] for user in json.loads(made["rabbitmq"]["users.json"])["users"]}
    assert {permission["user"] for permission in definitions["permissions"]} == known == TAGS.keys()


def test_passwords_stand_in_urls_and_files_as_they_are_and_no_two_are_the_same() -> None:
    made = printed()
    urls = [value for values in made.values() for value in values.values() if "://" in value and "@" in value]
    assert len(urls) == len(COMPONENTS) + len(WITH_QUEUE)
    passwords = [urlsplit(url).password or "" for url in urls]
    passwords += [made["keda"]["password"], made["mongodb"]["root"]]
    passwords += [made["rabbitmq"]["operator"], made["rabbitmq"]["erlang-cookie"]]
    assert len(set(passwords)) == len(passwords)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)
    assert 6 <= len(made["mongodb"]["keyfile"]) <= 1024
    assert base64.b64decode(made["mongodb"]["keyfile"], validate=True)


def test_each_url_has_the_password_that_its_database_knows() -> None:
    made = printed()
    users = {user["name"]: user for user in json.loads(made["rabbitmq"]["users.json"])["users"]}
    for name in COMPONENTS:
        url = urlsplit(made[name]["MONGODB_URI"])
        assert (url.username, url.password) == (name, made["mongodb"][name])
    for name in WITH_QUEUE:
        url = urlsplit(made[name]["RABBITMQ_URL"])
        assert url.username == name
        assert opens(users[name], url.password or "")
    assert made["keda"]["username"] == "keda"
    assert opens(users["keda"], made["keda"]["password"])
    assert opens(users["operator"], made["rabbitmq"]["operator"])


def opens(user: dict[str, Any], password: str) -> bool:
    salt = base64.b64decode(user["password_hash"])[:4]
    return bool(user["password_hash"] == hashed(password, salt))


def test_two_runs_have_nothing_in_common_but_addresses() -> None:
    assert not secret_values(printed()) & secret_values(printed())


def test_what_exists_stays_whatever_it_is() -> None:
    first = complete({}, Addresses(), own_databases=True)
    assert complete(first, Addresses(), own_databases=True) == first
    own = {"engine": {"MONGODB_URI": "mongodb://me:secret%2F@elsewhere", "RABBITMQ_URL": "amqp://me:other@elsewhere"}}
    made = complete({**first, **own}, Addresses(), own_databases=True)
    assert made["engine"] == own["engine"]
    assert made["mongodb"]["engine"] == "secret/"


@pytest.mark.parametrize("lost", KEYS)
def test_a_secret_that_is_lost_is_made_again_and_all_fit_together(lost: str) -> None:
    first = complete({}, Addresses(), own_databases=True)
    made = complete({name: first[name] for name in first if name != lost}, Addresses(), own_databases=True)
    users = {user["name"]: user for user in json.loads(made["rabbitmq"]["users.json"])["users"]}
    for name in COMPONENTS:
        assert made["mongodb"][name] in made[name]["MONGODB_URI"]
    for name in WITH_QUEUE:
        assert opens(users[name], urlsplit(made[name]["RABBITMQ_URL"]).password or "")
    assert opens(users["keda"], made["keda"]["password"])
    assert {name for name in first if made[name] != first[name]} - {lost} <= {"rabbitmq", "mongodb"}


@pytest.mark.parametrize("name", [*COMPONENTS, "keda", "operator"])
def test_a_rotation_changes_one_password_wherever_it_stands(name: str) -> None:
    first = complete({}, Addresses(), own_databases=True)
    made = complete(rotated(first, name), Addresses(), own_databases=True)
    changed = {(secret, key) for secret in first for key in first[secret] if first[secret][key] != made[secret][key]}
    expected = {
        "keda": {("keda", "password"), ("rabbitmq", "users.json")},
        "operator": {("rabbitmq", "operator"), ("rabbitmq", "users.json")},
    }
    of_a_component = {(name, "MONGODB_URI"), ("mongodb", name)}
    if name in WITH_QUEUE:
        of_a_component |= {(name, "RABBITMQ_URL"), ("rabbitmq", "users.json")}
    assert changed == expected.get(name, of_a_component)


def test_a_rotation_keeps_the_address_of_a_database_elsewhere() -> None:
    there = Addresses(
        "mongodb+srv://{name}:{password}@cluster.example/?tls=true", "amqps://{name}:{password}@mq.example/s"
    )
    first = complete({}, there, own_databases=False)
    made = complete(rotated(first, "engine"), Addresses(), own_databases=False)
    for key, uri in first["engine"].items():
        (before, after) = (urlsplit(each) for each in (uri, made["engine"][key]))
        assert after.password != before.password
        assert after.geturl().replace(after.password or "", before.password or "") == uri


def test_databases_that_are_elsewhere_are_addressed_as_they_are_there() -> None:
    made = printed(**ELSEWHERE)
    assert re.fullmatch(
        r"mongodb\+srv://get-tasks:\w{48}@cluster\.example/\?authSource=admin&tls=true",
        made["get-tasks"]["MONGODB_URI"],
    )
    assert re.fullmatch(r"amqps://engine:\w{48}@rabbitmq\.example:5671/sluice", made["engine"]["RABBITMQ_URL"])
    assert made["keda"]["amqp"] == "amqps://rabbitmq.example:5671/sluice"
    assert made["keda"]["http"] == "https://rabbitmq.example/sluice"
    assert "@" not in made["keda"]["amqp"]


def test_nothing_is_made_for_databases_nobody_knows_where() -> None:
    ended = run("secrets", path="/nonexistent", PRINT="1", OVERLAY="production", MONGODB_URI="mongodb://only")
    assert ended.returncode == 2
    assert ended.stdout == ""
    for word in (*COMPONENTS, "MONGODB_URI", "RABBITMQ_URL", "RABBITMQ_HTTP_URL"):
        assert word in ended.stderr


def test_the_databases_of_a_developer_are_not_taken_for_the_clusters() -> None:
    assert "elsewhere" not in json.dumps(printed(MONGODB_URI="mongodb://elsewhere", RABBITMQ_URL="amqp://elsewhere"))


@pytest.mark.parametrize("settings", [{"ROTATE": "root"}, {"ROTATE": "engine", "PRINT": "1"}])
def test_what_can_not_be_rotated_is_refused_with_what_can(settings: dict[str, str]) -> None:
    ended = run("secrets", path="/nonexistent", **settings)
    assert ended.returncode == 2
    assert "engine" in ended.stderr


def test_another_cluster_than_the_laptops_is_not_taken_for_one_like_it(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    (tmp_path / "bin" / "kubectl.context").write_text("prod\n")
    ended = run("secrets", path, ROTATE="engine")
    assert (ended.returncode, "OVERLAY=production" in ended.stderr) == (2, True)
    ended = run("secrets", path, OVERLAY="nowhere")
    assert (ended.returncode, "nowhere" in ended.stderr) == (2, True)
    assert not (tmp_path / "bin" / "kubectl.given").exists()


def test_a_key_in_somebodys_shell_is_not_for_the_offline_model(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    ended = run("secrets", path, OPENAI_API_KEY="sk-mine")
    assert (ended.returncode, "is not used" in ended.stderr) == (0, True)
    assert "model" not in in_yaml((tmp_path / "bin" / "kubectl.given").read_text())


def test_what_follows_a_rotation_is_for_the_cluster_that_was_named(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    ended = run("secrets", path, ROTATE="engine", CONTEXT="my prod", OVERLAY="local")
    steps = ended.stdout.partition("Now, in this order:")[2]
    assert steps.count("kubectl") == steps.count("kubectl --context 'my prod' ") > 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"MONGODB_URI": "mongodb://admin:admin@elsewhere"},
        {"RABBITMQ_URL": "http://{name}:{password}@elsewhere"},
        {"RABBITMQ_HTTP_URL": "https://{name}:{password}@elsewhere"},
    ],
)
def test_an_address_that_can_not_be_filled_in_is_refused(wrong: dict[str, str]) -> None:
    ended = run("secrets", path="/nonexistent", PRINT="1", **(ELSEWHERE | wrong))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert next(iter(wrong)) in ended.stderr


def test_print_0_prints_nothing_secret(tmp_path: Path) -> None:
    ended = run("secrets", path_of(tmp_path / "bin", {"kubectl": KUBECTL}), PRINT="0")
    assert ended.returncode == 0, ended.stderr
    assert "kind: Secret" not in ended.stdout


def test_no_new_root_is_made_for_a_database_that_has_one(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    (tmp_path / "bin" / "kubectl.claims").write_text("persistentvolumeclaim/data-mongodb-0\n")
    ended = run("secrets", path)
    assert (ended.returncode, "data-mongodb-0" in ended.stderr) == (2, True)
    assert not (tmp_path / "bin" / "kubectl.given").exists()


def test_an_overlay_of_ones_own_has_the_databases_that_its_parts_have(tmp_path: Path) -> None:
    tree = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", tree)
    for overlay, upon in (("mine", "local"), ("yours", "production")):
        (tree / "overlays" / overlay).mkdir()
        (tree / "overlays" / overlay / "kustomization.yaml").write_text(
            f"resources:\n  - ../{upon}\ncomponents: [../../components/http-route]\n"
        )
    mine = run("secrets", "/nonexistent", tree=tmp_path, PRINT="1", OVERLAY="mine")
    assert "mongodb" in in_yaml(mine.stdout)
    yours = run("secrets", "/nonexistent", tree=tmp_path, PRINT="1", OVERLAY="yours")
    assert (yours.returncode, "MONGODB_URI" in yours.stderr) == (2, True)


def test_no_secret_is_on_a_command_line_or_on_a_disk(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    (tmp_path / "tmp").mkdir()
    ended = run("secrets", path, OPENAI_API_KEY="sk-nobody-sees-this", TMPDIR=str(tmp_path / "tmp"), ROTATE="model")
    assert ended.returncode == 0, ended.stderr
    made = in_yaml((tmp_path / "bin" / "kubectl.given").read_text())
    assert made.keys() == {*KEYS, "model"}
    shown = (tmp_path / "bin" / "kubectl.asked").read_text() + ended.stdout + ended.stderr
    values = secret_values(made)
    assert "sk-nobody-sees-this" in values
    assert not [value for value in values if value in shown]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_second_run_applies_nothing_and_a_rotation_says_what_to_do_next(tmp_path: Path) -> None:
    path = path_of(tmp_path / "bin", {"kubectl": KUBECTL})
    given = tmp_path / "bin" / "kubectl.given"
    run("secrets", path)
    first = in_yaml(given.read_text())
    items = [
        {
            "metadata": {"name": name},
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
        }
        for name, values in first.items()
    ]
    (tmp_path / "bin" / "kubectl.has").write_text(json.dumps({"items": items}))
    given.unlink()
    again = run("secrets", path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("kept") == len(KEYS)
    assert not given.exists()
    rotation = run("secrets", path, ROTATE="engine")
    assert in_yaml(given.read_text()).keys() == {"engine", "rabbitmq", "mongodb"}
    steps = rotation.stdout.partition("Now, in this order:")[2].splitlines()[1:]
    assert [
        next(word for word in ("import_definitions", "mongodb", "deployment/engine") if word in step) for step in steps
    ] == [
        "import_definitions",
        "mongodb",
        "deployment/engine",
    ]


# --- a real RabbitMQ --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    require(rabbitmq_missing())
    with RabbitNode(tmp_path_factory.mktemp("rabbit"), management=True) as node:
        yield node


def import_users(node: RabbitNode, users: str) -> None:
    """As the step after a rotation does: from standard input, into the node that runs."""
    program = [f"{rabbitmq_home()}/sbin/rabbitmqctl", "--quiet", "import_definitions"]
    subprocess.run(program, env=node.environment, input=users, text=True, check=True, capture_output=True)


def log_in(node: RabbitNode, name: str, password: str) -> None:
    """Raises ProbableAuthenticationError for a wrong password."""
    credentials = pika.PlainCredentials(name, password)
    pika.BlockingConnection(pika.ConnectionParameters(LOOPBACK, node.amqp_port, "sluice", credentials)).close()


def test_each_user_logs_in_with_its_password_and_after_a_rotation_only_with_the_new_one(node: RabbitNode) -> None:
    first = complete({}, Addresses(), own_databases=True)
    import_users(node, first["rabbitmq"]["users.json"])
    import_users(node, (ROOT / "k8s/components/rabbitmq/definitions.json").read_text())
    second = complete(rotated(first, "engine"), Addresses(), own_databases=True)
    old = urlsplit(first["engine"]["RABBITMQ_URL"]).password or ""

    for secrets in (first, second):
        import_users(node, secrets["rabbitmq"]["users.json"])
        for name, password in passwords(secrets).items():
            log_in(node, name, password)
    with pytest.raises(ProbableAuthenticationError):
        log_in(node, "engine", old)
    seen = {name: queue_is_shown(node, name, secret) for name, secret in passwords(second).items()}
    assert seen == {**dict.fromkeys(WITH_QUEUE, False), "keda": True, "operator": True}


def passwords(secrets: Secrets) -> dict[str, str]:
    """Of RabbitMQ's users."""
    of_components = {name: urlsplit(secrets[name]["RABBITMQ_URL"]).password or "" for name in WITH_QUEUE}
    return {**of_components, "keda": secrets["keda"]["password"], "operator": secrets["rabbitmq"]["operator"]}


def queue_is_shown(node: RabbitNode, name: str, password: str) -> bool:
    """Whether the management API tells this user how long the queue is, which it does not tell without a tag."""
    request = urllib.request.Request(f"http://{LOOPBACK}:{node.management_port}/api/queues/sluice/tasks")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        return False
