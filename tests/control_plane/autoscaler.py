"""KEDA's operator and its metrics server, beside a control plane instead of in it, with the rights it has there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.control_plane import programs
from tests.control_plane.cluster import ControlPlane
from tests.manifests.fetch_schemas import KEDA
from tests.servers.ports import LOOPBACK, free_port

#: What of KEDA's own installation is applied: all but the pods and their certificates.
INSTALLED = (
    "crd/bases",
    "general/namespace.yaml",
    "service_account/service_account.yaml",
    "rbac/role.yaml",
    "rbac/role_binding.yaml",
    "metrics-server/role.yaml",
    "metrics-server/role_binding.yaml",
)

SERVICE_ACCOUNT = "/O=system:serviceaccounts/O=system:serviceaccounts:keda/CN=system:serviceaccount:keda:keda-operator"


def install_keda(plane: ControlPlane) -> None:
    """KEDA's kinds and rights, without its programs."""
    files = [f"--filename={programs.sources(KEDA) / 'config' / name}" for name in INSTALLED]
    plane.kubectl("apply", "--server-side", *files)
    plane.kubectl("wait", "--for=condition=Established", "--all", "crd")


def start_keda(plane: ControlPlane) -> None:
    """Install KEDA and start its programs, which end with the control plane. Returns when the API server answers with
    its metrics."""
    install_keda(plane)
    built = programs.KEDA.build()
    kubeconfig = plane.kubeconfig("keda-operator", SERVICE_ACCOUNT)
    certificates = _certificates(plane, plane.directory / "keda")
    metrics, served, probed = free_port(), free_port(), free_port()
    environment = {"POD_NAMESPACE": "keda", "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda", "WATCH_NAMESPACE": ""}
    plane.run(
        "keda-operator",
        [
            built / "operator",
            f"--kubeconfig={kubeconfig}",
            f"--cert-dir={certificates}",
            f"--metrics-service-bind-address={LOOPBACK}:{metrics}",
            f"--health-probe-bind-address={LOOPBACK}:{probed}",
            "--enable-prometheus-metrics=false",
            "--zap-encoder=console",
        ],
        environment=environment,
    )
    plane.run(
        "keda-metrics-server",
        [
            built / "adapter",
            f"--kubeconfig={kubeconfig}",
            f"--lister-kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--metrics-service-address=localhost:{metrics}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={served}",
            f"--port={free_port()}",  # its own metrics, on all addresses: it knows no option for one
            f"--cert-dir={certificates}",
            f"--client-ca-file={certificates / 'ca.crt'}",
            f"--tls-cert-file={certificates / 'tls.crt'}",
            f"--tls-private-key-file={certificates / 'tls.key'}",
        ],
        served,
        environment,
    )
    for item in _where_the_metrics_are(served):
        plane.kubectl("apply", "--server-side", "--filename=-", given=json.dumps(item))
    plane.kubectl("wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1beta1.external.metrics.k8s.io")


def _certificates(plane: ControlPlane, folder: Path) -> Path:
    """A folder with the names that KEDA looks for."""
    folder.mkdir()
    certificate, key = plane.authority.issue("keda", "/CN=localhost")
    for path, name in ((plane.authority.certificate, "ca.crt"), (certificate, "tls.crt"), (key, "tls.key")):
        shutil.copy(path, folder / name)
    return folder


def _where_the_metrics_are(port: int) -> list[dict[str, object]]:
    """The API server asks the host that the Service names, without a proxy of the cluster in between."""
    service = {"name": "keda-metrics-apiserver", "namespace": "keda"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "service": {**service, "port": port},
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
            },
        },
    ]
