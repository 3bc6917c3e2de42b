"""`python -m tests.images --tag TAG`: starts the images that buildah has built (`make images`) as containers, lets them
do a task together, stops them, and prints what each took. Exit status 1 when something was not as it should be.

It runs in a network of its own, with nothing in it but a loopback interface: the images need no other.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.images.container import tools_missing
from tests.images.trial import Trial, table
from tests.servers.nginx import nginx_missing
from tests.servers.process import ServerStartError
from tests.servers.rabbit import rabbitmq_missing

#: Set once this process is in its own network.
INSIDE = "SLUICE_IMAGES_NETWORK"

#: netdevice(7)
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.images", description="Try the images as containers.")
    parser.add_argument(
        "--tag", default=commit(), help="of the images; the default is this commit, as `make images` has it"
    )
    options = parser.parse_args()
    if missing := tools_missing() or rabbitmq_missing() or nginx_missing():
        print(f"tests.images: {missing}", file=sys.stderr)
        return 2
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "own"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "tests.images", *sys.argv[1:]])
    raise_loopback()
    trial = Trial(Path(tempfile.mkdtemp(prefix="sluice-images-")), options.tag)
    try:
        trial.run()
    except (AssertionError, ServerStartError, subprocess.CalledProcessError) as error:
        print(f"tests.images: {error}\nThe logs are in {trial.directory}", file=sys.stderr)
        return 1
    table(trial.figures, print)
    shutil.rmtree(trial.directory)
    return 0


def commit() -> str:
    """The tag that `make images` gives by default."""
    name = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    changed = subprocess.check_output(["git", "status", "--porcelain"], text=True)
    return f"{name}-dirty" if changed else name


def raise_loopback() -> None:
    """A new network has a loopback interface, and it is down."""
    with socket.socket() as any_socket:
        name = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, name))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    sys.exit(main())
