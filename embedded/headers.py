"""The security headers of the page, from the file that nginx includes."""

from __future__ import annotations

import re
from pathlib import Path

from sluice.errors import InvalidSettings

LINE = re.compile(r'add_header ([A-Za-z-]+) "([^"\\$]*)" always;')


def read_headers(path: Path) -> list[tuple[str, str]]:
    """The name and value of each header, in order. Raises InvalidSettings, with the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidSettings(f"{path} can't be read: {error.strerror}") from error
    headers = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (match := LINE.fullmatch(line.strip())):
            raise InvalidSettings(f'{path}, line {number} is no header of the form: add_header NAME "VALUE" always;')
        headers.append((match[1], match[2]))
    return headers
