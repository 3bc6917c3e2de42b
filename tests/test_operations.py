"""What docs/operations.md tells people to type and to look at is there. Its commands for RabbitMQ do what it says, and
the alerts come when they should and not otherwise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.broker import Topology
from sluice.kinds import kinds
from sluice.metrics import FAMILIES
from sluice.settings import Settings
from sluice.task import new_task
from tests.e2e.embedded import ROOT
from tests.servers import require
from tests.servers.rabbit import RabbitNode, rabbitmq_missing
from tests.waiting import eventually

PAGE = (ROOT / "docs/operations.md").read_text()
COMMANDS = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.M | re.S))
MONITORING = ROOT / "k8s/monitoring"
ALERTS = (MONITORING / "alerts.yaml").read_text()
RULES = [rule for group in yaml.safe_load(ALERTS)["groups"] for rule in group["rules"]]


def _objects() -> set[tuple[str, str]]:
    """Kind, in small letters, and name of everything in the manifests."""
    found = set()
    for path in [*(ROOT / "k8s").rglob("*.yaml"), *(ROOT / "keda").glob("*.yaml")]:
        for each in yaml.safe_load_all(path.read_text()):
            if isinstance(each, dict) and "metadata" in each:
                found.add((each["kind"].lower(), each["metadata"]["name"]))
                if each["kind"] == "ScaledObject" and "advanced" in each["spec"]:
                    found.add(("hpa", each["spec"]["advanced"]["horizontalPodAutoscalerConfig"].get("name")))
    return found


def test_every_verb_of_make_that_it_names_exists() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`|&& |\s{4})make ([a-z-]+)", PAGE, re.M))
    assert len(named) > 5
    assert named <= verbs


def test_every_command_is_one_for_a_shell_and_every_file_that_it_names_exists() -> None:
    done = subprocess.run(["bash", "-n"], input=COMMANDS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    files = set(re.findall(r"(?<![\w/])(?:k8s|keda)/[\w./-]*\w", PAGE))
    assert len(files) > 8
    assert [path for path in sorted(files) if not (ROOT / path).exists()] == []


def test_every_object_that_it_names_exists() -> None:
    kind = r"\b(deployment|statefulset|cronjob|scaledobject|hpa)[/ ]"
    named = set(re.findall(rf"{kind}([a-z][a-z-]+)\b", "\n".join([COMMANDS, *re.findall(r"`(.*?)`", PAGE)])))
    assert len(named) > 6
    assert named - {("deployment", "keda-operator")} <= _objects()
    policies = set(re.findall(r"polic\w+ `([a-z-]+)`", PAGE))
    assert policies
    assert {("networkpolicy", name) for name in policies} <= _objects()


def test_every_secret_that_it_names_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "k8s/commands")
    import passwords  # type: ignore[import-not-found]  # a script's neighbour, in no package

    for name, key in re.findall(r"get secret (\w+) -o jsonpath='\{\.data\.([^}]+)\}'", PAGE):
        assert key.replace("\\", "") in passwords.KEYS[name]
    (table,) = re.findall(r"^\| `ROTATE=` .*?\n(?=\n)", PAGE, re.M | re.S)
    rotated = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert rotated == set(passwords.ROTATABLE)


def test_every_queue_setting_and_metric_that_it_names_exists() -> None:
    # tasks.aggregate, tasks.find and tasks.deleteMany are MongoDB's.
    queues = set(re.findall(r"(?<!db\.)\btasks\.[a-z.]+(?:\d+)?\b", PAGE)) - {"tasks.md"}
    assert {"tasks.dead", "tasks.unreadable"} <= queues <= {queue.name for queue in Topology().queues}
    scripts = "".join(path.read_text() for path in (ROOT / "k8s/commands").iterdir() if path.is_file())
    for name in set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE)) - {"ACCESS_REFUSED"}:
        assert name.lower() in Settings.model_fields or name in scripts, name
    known = {family.name for family in FAMILIES}
    named = set(re.findall(r"\b(sluice_\w+?)(?:_bucket)?\b", PAGE + ALERTS))
    assert len(named) > 5
    assert named <= known


def test_the_knobs_stand_as_the_page_says() -> None:
    spec = yaml.safe_load((ROOT / "keda/scaled-object.yaml").read_text())["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = (
        f"{policy['value']} in {policy['periodSeconds']}"
        for policy in (behavior["scaleUp"]["policies"][0], behavior["scaleDown"]["policies"][0])
    )
    (value,) = {each["metadata"]["value"] for each in spec["triggers"] if each["metadata"]["queueName"] == "tasks"}
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    knobs = ("pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount")
    expected = {name: str(spec[name]) for name in knobs} | {
        "value": value,
        "scaleUp": up,
        "scaleDown": f"{behavior['scaleDown']['stabilizationWindowSeconds']}, {down}",
        "ENGINE_CONCURRENCY": str(settings["engine_concurrency"]),
        "WORKERS": f"{settings['workers']}, {settings['threads']}",
    }
    table = PAGE.partition("| knob |")[2].partition("\n\n")[0]
    assert dict(re.findall(r"^\| `(\w+)`.*? \| (.*?) \|", table, re.M)) == expected


def test_every_part_of_the_page_that_something_leads_to_exists() -> None:
    headings = re.findall(r"^##+ (.*)", PAGE, re.M)
    there = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= there
    assert {rule["annotations"]["runbook"].split("#")[1] for rule in RULES} <= there


def test_the_page_and_the_rules_have_the_same_alerts() -> None:
    rows = dict(re.findall(r"^\| `([A-Z]\w+)` \| `(\w+)` \|", PAGE, re.M))
    assert set(rows) == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert rows[rule["alert"]] in rule["expr"]


# --- the rules, as Prometheus reads them -----------------------------------------------------------------------------


@pytest.fixture
def promtool() -> str:
    path = shutil.which("promtool")
    require(None if path else "no promtool here: apt-get install --no-install-recommends prometheus")
    assert path is not None
    return path


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_configuration_and_its_rules(promtool: str, tmp_path: Path) -> None:
    configuration = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    configuration["rule_files"] = [str(MONITORING / name) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)  # Debian's Prometheus is built without it
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    _run(promtool, "check", "config", tmp_path / "prometheus.yml")


READY = 'rabbitmq_detailed_queue_messages_ready{vhost="sluice", queue="tasks"}'
DEAD = 'rabbitmq_detailed_queue_messages{vhost="sluice", queue="tasks.dead"}'
UP = 'up{job="sluice", app="engine", pod="engine-1"}'
FINISHED = 'sluice_tasks_finished_total{kind="code", reason="%s"}'
SWEPT = 'kube_cronjob_status_last_successful_time{namespace="sluice", cronjob="sweep"}'
LATE = 'sluice_task_queued_seconds_bucket{le="%s"}'

#: What happens (a series, one value a minute), and the alerts that there are after a quarter of an hour.
HAPPENINGS = {
    "tasks wait, an engine runs": ({READY: "40x20", UP: "1x20"}, set()),
    "tasks wait, no engine": ({READY: "40x20"}, {"TasksWaitWithoutEngine"}),
    "nothing waits, no engine": ({READY: "0x20"}, set()),
    "an engine that is silent": ({READY: "0x20", UP: "0x20"}, {"SluicePodSilent"}),
    "tasks start in time": ({LATE % "60": "0+9x20", LATE % "+Inf": "0+9x20"}, set()),
    "tasks start late": ({LATE % "60": "0+5x20", LATE % "120": "0+9x20", LATE % "+Inf": "0+9x20"}, {"TasksStartLate"}),
    "tasks are completed": ({FINISHED % "completed": "0+100x20"}, set()),
    "the first task expires": ({FINISHED % "expired": "_x9 1x10"}, {"TasksExpire"}),
    "one more expires": ({FINISHED % "expired": "7x9 8x10"}, {"TasksExpire"}),
    "one expired long ago": ({FINISHED % "expired": "1x20"}, set()),
    "the key is refused": ({FINISHED % "model_access": "_x9 1x10"}, {"ModelRefusesUs"}),
    "a task crashes its engine": ({FINISHED % "crashed": "_x9 1x10"}, {"TasksCrashEngines"}),
    "a store is away": (
        {
            'sluice_requests_total{function="get_tasks", method="GET", status="503"}': "0+3x20",
            'sluice_tasks_accepted_total{kind="code", kept_by="queue"}': "0+3x20",
        },
        {"FunctionAnswersErrors", "AcceptedByOneStore"},
    ),
    "both stores are there": (
        {
            'sluice_requests_total{function="get_tasks", method="GET", status="404"}': "0+3x20",
            'sluice_tasks_accepted_total{kind="code", kept_by="both"}': "0+3x20",
        },
        set(),
    ),
    "messages are lost": ({'sluice_tasks_mended_total{fault="lost"}': "_x9 1x10"}, {"SweepMends"}),
    "the queue was away": ({'sluice_tasks_mended_total{fault="unqueued"}': "0+9x20"}, set()),
    "a scale-in": ({"sluice_messages_redelivered_total": "0x10 9x10"}, set()),
    "engines die": ({"sluice_messages_redelivered_total": "0+10x20"}, {"MessagesComeAgain"}),
    "dead letters come and go": ({DEAD: "5 0x3 5 0x15"}, set()),
    "dead letters stay": ({DEAD: "1x20"}, {"DeadLettersStay"}),
    "garbage": (
        {'rabbitmq_detailed_queue_messages{vhost="sluice", queue="tasks.unreadable"}': "0x10 1x9"},
        {"UnreadableMessages"},
    ),
    "the disk is full": (
        {"rabbitmq_alarms_free_disk_space_watermark": "1x20", "rabbitmq_disk_space_available_bytes": "9e8x20"},
        {"RabbitMQTakesNothing", "RabbitMQDiskFillsUp"},
    ),
    "the disk is not full": (
        {"rabbitmq_alarms_free_disk_space_watermark": "0x20", "rabbitmq_disk_space_available_bytes": "7e9x20"},
        set(),
    ),
    "a volume fills up": (
        {
            'kubelet_volume_stats_available_bytes{namespace="sluice", persistentvolumeclaim="data"}': "1e9x20",
            'kubelet_volume_stats_capacity_bytes{namespace="sluice", persistentvolumeclaim="data"}': "8e9x20",
        },
        {"VolumeFillsUp"},
    ),
    "all engines that there may be": (
        {
            f"kube_horizontalpodautoscaler_{count}_replicas"
            '{namespace="sluice", horizontalpodautoscaler="engine"}': "10x20"
            for count in ("status_current", "spec_max")
        },
        {"EnginesAtMaximum"},
    ),
    "the sweep does its rounds": ({SWEPT: "0+60x20"}, set()),
    "the sweep has stopped": ({SWEPT: "0x20"}, {"SweepDoesNotRun"}),
}


def test_each_alert_comes_when_it_should_and_not_otherwise(promtool: str, tmp_path: Path) -> None:
    names = [rule["alert"] for rule in RULES]
    tests = []
    for name, (series, expected) in HAPPENINGS.items():
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": one, "values": values} for one, values in series.items()],
                # Whether there is one, not its words.
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertstate="firing", alertname="{alert}"}})',
                        "eval_time": "16m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if alert in expected else [],
                    }
                    for alert in names
                ],
            }
        )
    assert {alert for _, expected in HAPPENINGS.values() for alert in expected} == set(names)
    given = {"rule_files": [str(MONITORING / "alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    _run(promtool, "test", "rules", tmp_path / "tests.yaml")


# --- the commands, as they are typed ---------------------------------------------------------------------------------

KUBECTL = """\
#!/bin/sh
# In place of kubectl: commands for the pod of RabbitMQ go to this test's node.
case "$*" in
    *"get secret rabbitmq -o jsonpath={.data.operator}") printf %s "$OPERATOR" ;;
    *"get secret rabbitmq -o jsonpath={.data.users\\.json}") printf %s "$USERS" ;;
    *"exec -i rabbitmq-0 -c rabbitmq -- rabbitmqctl "*) shift 9; exec "$RABBITMQCTL" "$@" ;;
    *) echo "unforeseen: $*" >&2; exit 64 ;;
esac
"""


class Shell:
    """Runs commands of the page against a private node with the queues, users and rights of the cluster."""

    def __init__(self, node: RabbitNode, directory: Path, users: str, operator: str) -> None:
        self._directory = directory
        (directory / "kubectl").write_text(KUBECTL)
        (directory / "kubectl").chmod(0o755)
        self.environment = node.environment | {
            "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}",
            "RABBITMQCTL": str(node.directory / "server/sbin/rabbitmqctl"),
            "OPERATOR": b64encode(operator.encode()).decode(),
            "USERS": b64encode(users.encode()).decode(),
        }
        self._port = node.management_port
        self._first = _fence("k() {")

    def run(self, command: str) -> str:
        script = f"set -euo pipefail\n{self._first}\n{command}".replace("localhost:15672", f"127.0.0.1:{self._port}")
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def waiting(self) -> dict[str, int]:
        """The queues that are not empty."""
        listed = json.loads(self.run("rabbit --formatter=json list_queues --vhost=sluice name messages"))
        return {queue["name"]: queue["messages"] for queue in listed if queue["messages"]}


def _fence(beginning: str) -> str:
    """The commands of the page that begin so."""
    (found,) = re.findall(rf"^```sh\n({re.escape(beginning)}.*?)^```", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    require(rabbitmq_missing())
    require(next((f"no {tool} here" for tool in ("curl", "jq") if shutil.which(tool) is None), None))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(ROOT / "k8s/commands")
        import passwords

        secrets = passwords.complete({}, passwords.Addresses(), True)["rabbitmq"]
    directory = tmp_path_factory.mktemp("shell")
    with RabbitNode(directory / "rabbit", management=True) as node:
        shell = Shell(node, directory, secrets["users.json"], secrets["operator"])
        shell.run(_fence("k get secret rabbitmq -o jsonpath='{.data.users"))
        node.ctl("import_definitions", str(ROOT / "k8s/components/rabbitmq/definitions.json"))
        yield shell


@pytest.mark.timeout(120)
def test_unreadable_messages_are_looked_at_sent_again_and_cleared_as_the_page_says(shell: Shell) -> None:
    now = datetime.now(UTC)
    kind = kinds()["message"]
    task = new_task(
        task_id="ab" * 16,
        user_id="ada",
        kind="message",
        inputs={"text": 'it\'s "quoted"\nand $more'},
        outputs=kind.blank_outputs(),
        now=now,
        ttl=timedelta(minutes=5),
    )
    for body in (task.to_message(), b"\xff\x00 no task"):
        _publish(shell, body)
    eventually(lambda: shell.waiting() == {"tasks.unreadable": 2}, 20)

    look = _fence("k port-forward").splitlines()[1]
    bodies = [message["payload"] for message in json.loads(shell.run(look))]
    assert json.loads(bodies[0])["_id"] == task.id

    shell.run(_fence("api queues/sluice/tasks.unreadable/get"))
    eventually(lambda: shell.waiting() == {"tasks": 2}, 20)
    sent: list[dict[str, Any]] = json.loads(
        shell.run('api queues/sluice/tasks/get \'{"count":9,"ackmode":"ack_requeue_false","encoding":"base64"}\'')
    )
    assert [message["payload"] for message in sent] == [
        b64encode(body).decode() for body in (task.to_message(), b"\xff\x00 no task")
    ]

    _publish(shell, b"more")
    eventually(lambda: shell.waiting() == {"tasks.unreadable": 1}, 20)
    shell.run(_fence("rabbit purge_queue"))
    eventually(lambda: shell.waiting() == {}, 20)


@pytest.mark.timeout(120)
def test_a_disk_alarm_is_seen_and_lifted_as_the_page_says(shell: Shell) -> None:
    look, _, lift = _fence("rabbit status").splitlines()
    shell.run("rabbit set_disk_free_limit 1000000GB")
    eventually(lambda: "disk" in shell.run("rabbit eval 'rabbit_alarm:get_alarms().'"), 20)
    assert "Free disk space alarm on node" in shell.run(look)
    shell.run(lift)
    eventually(lambda: "disk" not in shell.run("rabbit eval 'rabbit_alarm:get_alarms().'"), 20)


def _publish(shell: Shell, body: bytes) -> None:
    message = {
        "properties": {"delivery_mode": 2},
        "routing_key": "tasks.unreadable",
        "payload": b64encode(body).decode(),
        "payload_encoding": "base64",
    }
    assert json.loads(shell.run(f"api exchanges/sluice/amq.default/publish '{json.dumps(message)}'"))["routed"]
