"""The programs of a control plane, built from the makers' modules in the versions that `*/go.mod` name.

`python -m tests.control_plane.programs` builds them ahead; on two cores that takes about half an hour.
"""

import json
import re
import subprocess
from pathlib import Path

from tests.servers.go import GoPrograms, go_command

MODULES = Path(__file__).parent


def _version_flags(module: str) -> str:
    """What makes the programs know their own version, which the makers' own builds set from git."""
    requirements = (MODULES / module / "go.mod").read_text()
    if module == "keda":
        version = re.findall(r"kedacore/keda/v2 (v\S+)", requirements)[0]
        return f"-X github.com/kedacore/keda/v2/version.Version={version}"
    version, major, minor = re.findall(r"k8s.io/kubernetes (v(\d+)\.(\d+)\.\S+)", requirements)[0]
    known = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in known.items())


def _programs(module: str) -> GoPrograms:
    return GoPrograms(module, MODULES / module, "tool", f"-s -w {_version_flags(module)}")


#: etcd (as `server`, the name of its package), kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
KUBERNETES = _programs("kubernetes")

#: `operator`, and `adapter`, the metrics server.
KEDA = _programs("keda")


def programs_missing() -> str | None:
    """None if there is what they are built with, else the reason."""
    return None if go_command() else "there is no Go toolchain to build Kubernetes and KEDA with"


def sources(module: str) -> Path:
    """The folder of a module (`github.com/kedacore/keda/v2@v2.20.2`), downloaded if need be: its definitions and rights
    are in `config`. Raises subprocess.CalledProcessError."""
    command = [go_command() or "go", "mod", "download", "-json", module]
    return Path(json.loads(subprocess.check_output(command, cwd=MODULES, text=True))["Dir"])


if __name__ == "__main__":
    for programs in (KUBERNETES, KEDA):
        print(programs.build())
