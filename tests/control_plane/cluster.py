"""A Kubernetes control plane as processes of this machine, on free ports of its loopback address."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.control_plane.certificates import Authority
from tests.control_plane.programs import KUBERNETES
from tests.servers.ports import LOOPBACK, accepts_connections, free_port
from tests.servers.process import ServerProcess

#: Seconds for a start, generous because the machine may be busy.
START_SECONDS = 120.0

COMMANDS = Path(__file__).resolve().parents[2] / "k8s" / "commands"

ADMIN = "/O=system:masters/CN=admin"


class ControlPlane:
    """etcd and the API server, with RBAC and the admission plugins that are on by default; `start_controllers` adds
    what makes objects live. As a context manager it starts on entry and stops on exit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs = KUBERNETES.build()
        self.authority = Authority(directory / "certificates")
        self.port = free_port()
        self.url = f"https://{LOOPBACK}:{self.port}"
        self._signer = self.authority.issue("service-accounts", "/CN=service-accounts")
        self._processes: list[ServerProcess] = []
        self.admin = self.kubeconfig("admin", ADMIN)
        self.api = self._client("admin")

    def __enter__(self) -> ControlPlane:
        try:
            self._start_etcd_and_api_server()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()  # nobody reads the data any more
        self.api.close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        secure_port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a program of the control plane, and wait until `/healthz` of its secure port answers."""
        process = ServerProcess(
            name,
            command,
            self.directory,
            {"PATH": os.environ["PATH"], "HOME": str(self.directory), **(environment or {})},
            ready=None if secure_port is None else lambda: self.answers(f"https://localhost:{secure_port}/healthz"),
            start_seconds=START_SECONDS,
        )
        self._processes.append(process)
        process.start()

    def start_controllers(self) -> None:
        """Start the controllers and the scheduler, with their defaults."""
        certificate, key = self.authority.issue("controllers", "/CN=controllers")
        options_of: dict[str, list[str]] = {
            "kube-controller-manager": [
                "--use-service-account-credentials",
                f"--service-account-private-key-file={self._signer[1]}",
                f"--root-ca-file={self.authority.certificate}",
            ],
            "kube-scheduler": [],
        }
        for name, options in options_of.items():
            port = free_port()
            kubeconfig = self.kubeconfig(name, f"/CN=system:{name}")
            command: list[str | Path] = [
                self.programs / name,
                f"--kubeconfig={kubeconfig}",
                f"--bind-address={LOOPBACK}",
                f"--secure-port={port}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                "--leader-elect=false",
                *options,
            ]
            self.run(name, command, port)

    def _start_etcd_and_api_server(self) -> None:
        clients, peers = free_port(), free_port()
        etcd = ServerProcess(
            "etcd",
            [
                self.programs / "server",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls=http://{LOOPBACK}:{clients}",
                f"--advertise-client-urls=http://{LOOPBACK}:{clients}",
                f"--listen-peer-urls=http://{LOOPBACK}:{peers}",
                f"--initial-advertise-peer-urls=http://{LOOPBACK}:{peers}",
                f"--initial-cluster=default=http://{LOOPBACK}:{peers}",
                "--unsafe-no-fsync",  # its data need not outlive the machine
            ],
            self.directory,
            ready=lambda: accepts_connections(clients),
            start_seconds=START_SECONDS,
        )
        self._processes.append(etcd)
        etcd.start()
        certificate, key = self.authority.issue("api-server", "/CN=api-server")
        proxy = self.authority.issue("front-proxy", "/CN=front-proxy")
        self.run(
            "kube-apiserver",
            [
                self.programs / "kube-apiserver",
                f"--etcd-servers=http://{LOOPBACK}:{clients}",
                f"--bind-address={LOOPBACK}",
                f"--secure-port={self.port}",
                # Endpoints must not be of the loopback network; nobody here goes through this one.
                "--advertise-address=192.0.2.1",
                "--service-cluster-ip-range=10.96.0.0/16",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--client-ca-file={self.authority.certificate}",
                "--authorization-mode=RBAC",
                # So that it is the namespace that refuses a privileged pod, as in a real cluster.
                "--allow-privileged",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self._signer[0]}",
                f"--service-account-signing-key-file={self._signer[1]}",
                # KEDA's metrics are asked for through the API server, which says in headers for whom.
                f"--requestheader-client-ca-file={self.authority.certificate}",
                "--requestheader-allowed-names=front-proxy",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                f"--proxy-client-cert-file={proxy[0]}",
                f"--proxy-client-key-file={proxy[1]}",
            ],
            self.port,
        )

    # --- its clients -------------------------------------------------------------------------------------------------

    def kubeconfig(self, name: str, subject: str) -> Path:
        """The file with which a client is the user (CN) and in the groups (O) of the subject."""
        certificate, key = self.authority.issue(name, subject)
        path = self.directory / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority.certificate)}
        user = {"client-certificate": str(certificate), "client-key": str(key)}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}],
                    "current-context": "here",
                }
            )
        )
        return path

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        """What kubectl of the cluster's version says, as the administrator. `given` is its input. Raises AssertionError
        with its words when it fails."""
        answer = self.try_kubectl(*arguments, given=given)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def try_kubectl(self, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """The same, with its exit status and warnings. It does not raise."""
        return subprocess.run(
            [self.programs / "kubectl", f"--kubeconfig={self.admin}", *arguments],
            input=given,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """A command of `k8s/commands` as `make` runs it, with no other cluster in reach. It does not raise."""
        return subprocess.run(
            [COMMANDS / name], env=self._command_environment(settings), capture_output=True, text=True, check=False
        )

    def start_command(self, name: str, **settings: str) -> ServerProcess:
        """The same, without waiting for its end."""
        process = ServerProcess(name, [COMMANDS / name], self.directory, self._command_environment(settings))
        self._processes.append(process)
        process.start()
        return process

    def _command_environment(self, settings: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "KUBECONFIG": str(self.admin),
            "READY_SECONDS": "120",
            **settings,
        }

    def get(self, path: str) -> Any:
        """The object, or the list of them under `items`, at a path of the API. Raises httpx2.HTTPStatusError."""
        return self.api.get(path).raise_for_status().json()

    def watch(self, path: str) -> Iterator[Any]:
        """Each state of an object from now on, until the API server ends. Raises httpx2.HTTPStatusError."""
        folder, _, name = path.rpartition("/")
        query = f"{folder}?watch=true&fieldSelector=metadata.name={name}"
        with suppress(httpx2.TransportError), self.api.stream("GET", query, timeout=None) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                yield json.loads(line)["object"]

    def patch(self, path: str, change: object) -> None:
        """Merge a change into an object, lists by their keys. Raises httpx2.HTTPStatusError."""
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        self.api.patch(path, json=change, headers=headers).raise_for_status()

    def answers(self, url: str) -> bool:
        """Whether a server with a certificate of our authority answers 200. Raises OSError when it answers otherwise or
        not at all."""
        with urllib.request.urlopen(url, timeout=5, context=self._trust()) as answer:
            return bool(answer.status == 200)

    def _client(self, name: str) -> httpx2.Client:
        trust = self._trust()
        trust.load_cert_chain(self.authority.folder / f"{name}.crt", self.authority.folder / f"{name}.key")
        return httpx2.Client(base_url=self.url, verify=trust, timeout=30)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.certificate)
