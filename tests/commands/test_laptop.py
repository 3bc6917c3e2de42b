"""`make cluster-up` and what goes with it, with stand-ins for docker, kind and kubectl: in which order, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.commands.running import ROOT, path_of, run

RECORD = 'echo "$(basename "$0") $*" >> "$(dirname "$0")/asked"\n'

STAND_INS = {
    "docker": RECORD + 'case "$*" in info) [ ! -e "$0.dead" ] ;; port*) echo 127.0.0.1:8080 ;; esac',
    "kind": RECORD
    + '[ ! -e "$0.dead" ] || exit 1\n'
    + 'case "$*" in "get clusters") cat "$0.clusters" 2> /dev/null || true ;; create*) cat > "$0.config" ;; esac',
    "make": RECORD,
    "kubectl": RECORD
    + """
case "$*" in
    "version --client") echo "Kustomize Version: v5.0.1" ;;
    *current-context*) echo somewhere-else ;;
    *"kustomize "*) echo "  image: sluice/web:local" ;;
    *"get namespace"*) echo namespace/sluice ;;
    *"-f -"*) cat > /dev/null ;;
    *"get -k "*) echo Deployment/web ;;
    *"get pods"*) cat "$0.pods" 2> /dev/null || true ;;
    *"exec"*"-- sh -c :"*) [ ! -e "$0.without-shell" ] || { echo "executable file not found" >&2; exit 1; } ;;
    *"get pod "*) echo engine ;;
esac
""",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The folder with the stand-ins; `asked` in it is what they were asked, one line for each."""
    path_of(tmp_path / "bin", STAND_INS)
    for name in ("basename", "dirname"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    return tmp_path / "bin"


def asked(tools: Path, program: str) -> list[str]:
    lines = (tools / "asked").read_text().splitlines()
    return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]


def first(tools: Path, words: str) -> int:
    """The number of the first question with these words."""
    return next(number for number, line in enumerate((tools / "asked").read_text().splitlines()) if words in line)


def test_cluster_up_makes_everything_in_order_and_says_what_is_next(tools: Path) -> None:
    ended = run("cluster-up", str(tools), HTTP_PORT="8080")
    assert ended.returncode == 0, ended.stderr
    steps = [
        "kind create cluster --image kindest/node:v1.35.8@sha256:",
        "apply --server-side --force-conflicts -f k8s/kind/traefik.yaml",
        "apply --server-side --force-conflicts -f https://github.com/kedacore/keda/releases/download/v2.20.2/keda-2.20.2.yaml",
        "make --no-print-directory images",
        "kind load docker-image --name sluice sluice/web:",
        "-n keda wait --for=condition=Available deployment --all",
        "apply --server-side --force-conflicts --field-manager=sluice -k",
        "rollout status Deployment/web",
    ]
    assert sorted(steps, key=lambda step: first(tools, step)) == steps
    (made,) = asked(tools, "make")
    tag = made.removeprefix("--no-print-directory images TAG=")
    assert f"load docker-image --name sluice sluice/web:{tag}" in asked(tools, "kind")
    assert "http://localhost:8080\n" in ended.stdout
    for verb in ("make status", "make logs", "make update", "make cluster-down"):
        assert verb in ended.stdout


def test_cluster_up_takes_the_ports_it_is_given(tools: Path) -> None:
    run("cluster-up", str(tools), HTTP_PORT="8080", HTTPS_PORT="8443")
    made = yaml.safe_load((tools / "kind.config").read_text())
    expected = yaml.safe_load((ROOT / "k8s/kind/cluster.yaml").read_text())
    for mapping, port in zip(expected["nodes"][0]["extraPortMappings"], (8080, 8443), strict=True):
        mapping["hostPort"] = port
    assert made == expected


def test_the_ports_of_the_node_are_those_of_traefik() -> None:
    mappings = yaml.safe_load((ROOT / "k8s/kind/cluster.yaml").read_text())["nodes"][0]["extraPortMappings"]
    objects = list(yaml.safe_load_all((ROOT / "k8s/kind/traefik.yaml").read_text()))
    service = next(each for each in objects if each["kind"] == "Service")
    assert {(port["nodePort"], port["port"]) for port in service["spec"]["ports"]} == {
        (mapping["containerPort"], mapping["hostPort"]) for mapping in mappings
    }
    assert {mapping["listenAddress"] for mapping in mappings} == {"127.0.0.1"}


def test_cluster_up_never_speaks_to_another_cluster(tools: Path) -> None:
    run("cluster-up", str(tools))
    questions = [line for line in asked(tools, "kubectl") if line not in ("version --client", "config view")]
    assert len(questions) > 10
    assert all(line.startswith("--context kind-sluice ") for line in questions)


def test_cluster_up_again_goes_on_with_the_cluster_that_there_is(tools: Path) -> None:
    (tools / "kind.clusters").write_text("other\nsluice\n")
    ended = run("cluster-up", str(tools))
    assert ended.returncode == 0, ended.stderr
    assert not [line for line in asked(tools, "kind") if line.startswith("create")]
    assert first(tools, "docker start sluice-control-plane") < first(tools, "kind export kubeconfig --name sluice")
    assert first(tools, "kind export") < first(tools, "k8s/kind/traefik.yaml")


def test_cluster_up_without_dockers_daemon_does_nothing(tools: Path) -> None:
    (tools / "docker.dead").touch()
    ended = run("cluster-up", str(tools))
    assert ended.returncode == 2
    assert "daemon" in ended.stderr
    assert asked(tools, "kind") == []


def test_cluster_down_deletes_its_own_cluster_and_no_other(tools: Path) -> None:
    (tools / "kind.clusters").write_text("other\nsluice\n")
    assert run("cluster-down", str(tools)).returncode == 0
    (tools / "kind.clusters").write_text("other\nsluice-2\n")
    without = run("cluster-down", str(tools))
    assert without.returncode == 0
    assert "delete namespace sluice" in without.stderr
    assert [line for line in asked(tools, "kind") if line != "get clusters"] == ["delete cluster --name sluice"]


def test_cluster_down_does_not_take_a_kind_that_fails_for_one_without_clusters(tools: Path) -> None:
    (tools / "kind.dead").touch()
    ended = run("cluster-down", str(tools))
    assert (ended.returncode, ended.stderr) == (2, "")
    assert asked(tools, "kind") == ["get clusters"]


@pytest.mark.parametrize(
    ("settings", "selected"),
    [({}, "-l app.kubernetes.io/name "), ({"OF": "engine"}, "-l app.kubernetes.io/name=engine ")],
)
def test_logs_follow_all_pods_or_those_of_one_part(tools: Path, settings: dict[str, str], selected: str) -> None:
    (tools / "kubectl.pods").write_text("pod/engine-1\n")
    assert run("logs", str(tools), **settings).returncode == 0
    followed = asked(tools, "kubectl")[-1]
    assert selected in followed
    assert "--follow" in followed
    assert "--prefix" in followed


@pytest.mark.parametrize("command", ["logs", "shell"])
def test_a_part_without_a_pod_is_said_to_have_none(tools: Path, command: str) -> None:
    ended = run(command, str(tools), OF="engine")
    assert ended.returncode == 1
    assert "No pod of engine runs now." in ended.stderr


def test_a_shell_is_the_pods_own_or_one_beside_it(tools: Path) -> None:
    (tools / "kubectl.pods").write_text("engine-1 engine-2")
    assert run("shell", str(tools), OF="engine").returncode == 0
    assert asked(tools, "kubectl")[-1] == "-n sluice exec -it engine-1 -- sh"
    (tools / "kubectl.without-shell").touch()
    assert run("shell", str(tools), OF="engine").returncode == 0
    beside = asked(tools, "kubectl")[-1]
    assert beside.startswith("-n sluice debug -it engine-1 --image=")
    assert "--target=engine --profile=restricted" in beside
