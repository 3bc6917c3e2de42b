"""RabbitMQ as in the cluster: the configuration, queues and rights of `k8s/components/rabbitmq`, with the users and
passwords of `make secrets`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote

import yaml

from tests.servers.ports import LOOPBACK
from tests.servers.rabbit import CONFIGURATION, RabbitNode

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "k8s" / "components" / "rabbitmq"

#: What of rabbitmq.conf is about the pod (its memory, its volumes, its logs), and not so on this machine.
OF_THE_POD = ("vm_memory_high_watermark", "disk_free_limit", "raft.wal_", "log.", "load_definitions")

#: For the node's own probe (RabbitNode). With definitions RabbitMQ makes neither this user nor this vhost.
PROBE = {
    "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}


class ClusterRabbit(RabbitNode):
    """A node with management, a vhost `sluice`, its queues, and a user with least rights for each component."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, management=True)
        self._secrets = make_secrets()

    def url_of(self, component: str) -> str:
        """AMQP, as the user of a component (`engine`, `add-task`)."""
        return self._secrets[component]["RABBITMQ_URL"].replace("@rabbitmq:5672", f"@{LOOPBACK}:{self.amqp_port}")

    def keda_urls(self) -> dict[str, str]:
        """What KEDA makes of its Secret, for each protocol of a trigger."""
        secret = self._secrets["keda"]
        places = {"amqp": f"{LOOPBACK}:{self.amqp_port}", "http": f"{LOOPBACK}:{self.management_port}"}
        user = f"{quote(secret['username'])}:{quote(secret['password'])}"
        return {
            scheme: f"{scheme}://{user}@{place}/{secret[scheme].rpartition('/')[2]}" for scheme, place in places.items()
        }

    @property
    def operator_url(self) -> str:
        """The management API, as the user who may look at everything; without the password."""
        return f"http://operator@{LOOPBACK}:{self.management_port}/sluice"

    @property
    def operator_password(self) -> str:
        return self._secrets["rabbitmq"]["operator"]

    def _write_configuration(self) -> None:
        super()._write_configuration()
        folder = self.directory / "definitions"
        folder.mkdir(exist_ok=True)
        (folder / "10-users.json").write_text(self._secrets["rabbitmq"]["users.json"])
        (folder / "20-topology.json").write_text((COMPONENT / "definitions.json").read_text())
        (folder / "30-probe.json").write_text(json.dumps(PROBE))
        ours = (COMPONENT / "rabbitmq.conf").read_text().splitlines()
        lines = [line for line in ours if not line.startswith(OF_THE_POD)]
        lines.append(f"load_definitions = {folder.resolve()}")
        machine = CONFIGURATION.format(host=LOOPBACK, amqp_port=self.amqp_port)
        management = f"management.tcp.ip = {LOOPBACK}\nmanagement.tcp.port = {self.management_port}\n"
        (self.directory / "rabbitmq.conf").write_text(machine + management + "\n".join(lines) + "\n")
        (self.directory / "advanced.config").write_text((COMPONENT / "advanced.config").read_text())


def make_secrets() -> dict[str, dict[str, str]]:
    """What `make secrets` would put into the cluster: the values by Secret and key."""
    command = [sys.executable, ROOT / "k8s" / "commands" / "secrets"]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PRINT": "1"}
    printed = subprocess.check_output(command, env=environment, stdin=subprocess.DEVNULL, text=True)
    return {
        item["metadata"]["name"]: {key: b64decode(value).decode() for key, value in item["data"].items()}
        for item in yaml.safe_load_all(printed)
    }
