"""A private RabbitMQ node, run as an ordinary child process from the installed package."""

import os
import re
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

#: Where Debian's package and the makers' put the server. Debian's script on the PATH is a wrapper that, run as root,
#: changes to the user rabbitmq and loses the environment: the server's own script is run instead.
HOMES = "usr/lib/rabbitmq/lib/rabbitmq_server-*"

#: The applications that an application needs, in its `.app` file.
APPLICATIONS = re.compile(r"\{applications,\s*\[([^\]]*)\]")

#: Seconds for a start, generous because several nodes may share two cores.
START_SECONDS = 60.0

CONFIGURATION = """\
listeners.tcp.default = {host}:{amqp_port}
num_acceptors.tcp = 2
log.console = true
log.console.level = warning
log.file = false
# The alarms are about the machine, not about the node: both must stay silent on a small and busy one.
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 2GB
# Small write-ahead files: a test's folder need not hold hundreds of megabytes.
raft.wal_max_size_bytes = 33554432
"""

#: Every value the management API shows is at most about two seconds old.
MANAGEMENT_CONFIGURATION = """\
management.tcp.ip = {host}
management.tcp.port = {management_port}
collect_statistics_interval = 1000
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.10 = 1
"""

ADVANCED_CONFIGURATION = "[{rabbit, [{quorum_tick_interval, 1000}]}].\n"


def rabbitmq_home() -> Path | None:
    """The folder of the installed server (the newest, of several), or None."""
    return max(Path("/").glob(HOMES), default=None)


def rabbitmq_missing() -> str | None:
    """None if a node can be run here, else the reason and what to do about it."""
    needed = {"rabbitmq-server": rabbitmq_home(), "erl": shutil.which("erl"), "epmd": shutil.which("epmd")}
    missing = [name for name, path in needed.items() if path is None]
    if missing:
        return f"no {', '.join(missing)} here: apt-get install --no-install-recommends rabbitmq-server"
    return None


def _applications(folder: Path) -> dict[str, Path]:
    """The applications in a folder, if it is one, by their names; each is in a folder with its version in the name."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {application.name.rpartition("-")[0]: application for application in found}


class RabbitNode:
    """One RabbitMQ node with its own name server, ports, cookie and data, under `directory`.

    Queues and messages outlive `restart`, and `kill` followed by `start`; the ports stay the same.
    """

    def __init__(self, directory: Path, management: bool = False) -> None:
        self.directory = Path(directory)
        self.amqp_port = free_port()
        self.management_port = free_port() if management else None
        self.name = f"sluice-{secrets.token_hex(4)}@localhost"
        self._home = self.directory / "server"
        self._distribution_port = free_port()
        self._epmd_port = free_port()
        self.environment = self._environment()
        self._epmd = ServerProcess(
            "epmd",
            ["epmd", "-port", str(self._epmd_port), "-address", LOOPBACK],
            self.directory,
            self.environment,
            ready=lambda: accepts_connections(self._epmd_port),
        )
        self._node = ServerProcess(
            "rabbitmq",
            [self._home / "sbin" / "rabbitmq-server"],
            self.directory,
            self.environment,
            ready=self._answers,
            start_seconds=START_SECONDS,
            stop_seconds=20.0,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nobody reads the data any more, and the management plugin takes six seconds to say goodbye

    @property
    def url(self) -> str:
        """AMQP, as the guest user, in the vhost `/`."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.amqp_port}/%2F"

    @property
    def management_url(self) -> str:
        """The management API, with the guest's name and password in it. Raises ValueError without `management=True`."""
        if self.management_port is None:
            raise ValueError("this node was made without management")
        return f"http://guest:guest@{LOOPBACK}:{self.management_port}"

    @property
    def log(self) -> Path:
        return self._node.log

    @property
    def pid(self) -> int:
        """The id of the Erlang machine."""
        return self._node.pid

    @property
    def running(self) -> bool:
        return self._node.running

    def start(self) -> None:
        """Returns when clients are served. Raises ServerStartError with the log's tail."""
        self._link_server()
        self._write_configuration()
        if not self._epmd.running:
            self._epmd.start()
        try:
            self._node.start()
        except BaseException:
            self._epmd.kill()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after a deadline."""
        self._node.stop()
        self._epmd.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL, as when the machine goes: what was confirmed is there after `start`."""
        self._node.kill()
        self._epmd.kill()

    def freeze(self) -> None:
        """Stops the node where it stands: connections stay open, nothing answers, heartbeats are missed."""
        self._node.freeze()

    def thaw(self) -> None:
        self._node.thaw()

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints, asked about this node. Raises subprocess.CalledProcessError."""
        command = [str(self._home / "sbin" / "rabbitmqctl"), "--quiet", *arguments]
        return subprocess.check_output(command, env=self.environment, text=True)

    def _environment(self) -> dict[str, str]:
        """All that the node and its command line tools need to find themselves and nobody else."""
        here = self.directory.resolve()
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(here),  # the cookie lives here
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_SCRIPTS_DIR": str(here / "server" / "sbin"),
            "RABBITMQ_PLUGINS_DIR": str(here / "server" / "plugins"),
            "RABBITMQ_SERVER_CODE_PATH": str(here / "server" / "modules"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(here / "no-rabbitmq-env.conf"),  # not the machine's
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(here / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(here / "config"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_LOGS": "-",
            # Two schedulers that neither spin while idle nor cling to a core: the nodes of several tests share two.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
            # The script then becomes the Erlang machine instead of waiting beside it: its process id is ours.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _link_server(self) -> None:
        """Makes a server folder of links that holds only the applications needed.

        A node reads every application it finds: with all sixty of the package it starts in ten seconds, with these
        twenty in six. It looks each of its thousand modules up in one folder after the other: with links to all of
        them in the first one it is five.
        """
        home, erlang = rabbitmq_home(), shutil.which("erl")
        plugins, modules = self._home / "plugins", self._home / "modules"
        if home is None or erlang is None or plugins.exists():
            return
        plugins.mkdir(parents=True)
        modules.mkdir()
        for part in ("sbin", "escript"):
            (self._home / part).symlink_to(home / part)
        ours = _applications(home / "plugins")
        installed = _applications(Path(erlang).resolve().parent.parent / "lib") | ours
        needed = ["rabbit"] if self.management_port is None else ["rabbit", "rabbitmq_management"]
        for application in needed:  # grows while it is read
            folder = installed[application]
            if application in ours:
                (plugins / folder.name).symlink_to(folder)
            for module in (folder / "ebin").glob("*.beam"):
                with suppress(FileExistsError):  # the first one counts, as in a path of folders
                    (modules / module.name).symlink_to(module)
            needs = APPLICATIONS.search((folder / "ebin" / f"{application}.app").read_text())
            names = re.findall(r"\w+", needs[1]) if needs else []
            needed.extend(name for name in names if name in installed and name not in needed)

    def _write_configuration(self) -> None:
        ports = {"host": LOOPBACK, "amqp_port": self.amqp_port, "management_port": self.management_port}
        plugins, configuration = "[].", CONFIGURATION
        if self.management_port is not None:
            plugins, configuration = "[rabbitmq_management].", CONFIGURATION + MANAGEMENT_CONFIGURATION
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(configuration.format(**ports))
        (self.directory / "advanced.config").write_text(ADVANCED_CONFIGURATION)
        (self.directory / "enabled_plugins").write_text(plugins + "\n")
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)  # Erlang refuses one that others can read
            cookie.write_text(secrets.token_hex(16))

    def _answers(self) -> bool:
        """Whether a client gets through the AMQP handshake and, if asked for, the management API is up."""
        if not accepts_connections(self.amqp_port):
            return False
        try:
            pika.BlockingConnection(pika.URLParameters(f"{self.url}?socket_timeout=2&stack_timeout=5")).close()
        except (pika.exceptions.AMQPError, AMQPConnectorException):
            return False
        return self.management_port is None or self._management_answers()

    def _management_answers(self) -> bool:
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.management_port}/api/overview")
        request.add_header("Authorization", "Basic " + b64encode(b"guest:guest").decode())
        try:
            with urllib.request.urlopen(request, timeout=2):
                return True
        except urllib.error.HTTPError:
            return False
