"""The cluster as kubectl shows it: what the commands that are written in Python share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import NoReturn

NAMESPACE = "sluice"

#: Seconds in which the API server has to answer one call.
ANSWER_SECONDS = 30

#: The context of the cluster that `make cluster-up` makes (k8s/commands/kind.sh).
LAPTOP = "kind-sluice"

HOW_TO_GET_KUBECTL = "https://kubernetes.io/docs/tasks/tools (1.27 or newer)"


class ClusterError(Exception):
    """kubectl's own words about why it could not."""


def give_up(message: str) -> NoReturn:
    """End the command with status 2, before or without having done anything."""
    print(message, file=sys.stderr)
    sys.exit(2)


def needs_kubectl() -> None:
    if shutil.which("kubectl") is None:
        give_up(f"These tools are missing:\n  kubectl: {HOW_TO_GET_KUBECTL}")


def kubectl(*arguments: str, given: str | None = None) -> str:
    """What kubectl prints, asked about the cluster of CONTEXT, or of its current context. What it must not show to
    everybody who lists processes is `given` to its standard input. Raises ClusterError."""
    context = os.environ.get("CONTEXT")
    command = ["kubectl", *(["--context", context] if context else []), f"--request-timeout={ANSWER_SECONDS}s"]
    done = subprocess.run([*command, *arguments], input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(done.stderr.strip() or f"kubectl ended with status {done.returncode}")
    return done.stdout


def context_name() -> str:
    """The cluster that is talked to, for people. Without any the command ends. Raises ClusterError."""
    if given := os.environ.get("CONTEXT"):
        return given
    contexts = kubectl("config", "view", "-o", "jsonpath={.current-context}").strip()
    return contexts or give_up("kubectl knows no cluster. 'make cluster-up' makes one on this machine.")


def usual_overlay() -> str:
    """The overlay where none is named: in the laptop's cluster there is no doubt, elsewhere a wrong guess would turn a
    running installation into another one. Raises ClusterError."""
    if context_name() != LAPTOP:
        give_up(f"Which overlay is for the cluster {context_name()}? Say OVERLAY=production, or OVERLAY=local.")
    return "local"
