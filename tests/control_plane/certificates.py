"""Certificates of an authority of one's own, by openssl."""

import subprocess
from pathlib import Path

#: Longer than any test, with room for a clock that is a day off.
DAYS = "2"

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


class Authority:
    """`ca.crt` in a folder, and what it signs: `NAME.crt` and `NAME.key`. Raises subprocess.CalledProcessError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._make(
            "ca", "/CN=sluice control plane", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"
        )

    def issue(self, name: str, subject: str) -> tuple[Path, Path]:
        """A certificate and its key: for a server on this machine, and for a client whose user is the subject's CN and
        whose groups are its O."""
        self._make(
            name,
            subject,
            "basicConstraints=critical,CA:FALSE",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "extendedKeyUsage=serverAuth,clientAuth",
            signed_by=("-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key")),
        )
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _make(self, name: str, subject: str, *extensions: str, signed_by: tuple[str, ...] = ()) -> None:
        files = ("-out", str(self.folder / f"{name}.crt"), "-keyout", str(self.folder / f"{name}.key"))
        options = [option for extension in extensions for option in ("-addext", extension)]
        # The machine's own settings would make an authority of each certificate.
        command = ["openssl", "req", "-x509", "-config", "/dev/null", *NEW_KEY, "-days", DAYS, "-subj", subject]
        subprocess.run([*command, *files, *signed_by, *options], check=True, stderr=subprocess.DEVNULL)
