"""`make vendor`: copies what the page takes from others into page/vendor, which is committed.

The versions are those of package-lock.json; npm brings them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
PACKAGE = Path("node_modules/@highlightjs/cdn-assets")

#: The names of highlight.js: HTML is in xml, TOML in ini.
LANGUAGES = """
    bash c cpp csharp css dart diff dockerfile elixir go haskell ini java javascript json kotlin lua makefile markdown
    perl php powershell python r ruby rust scala sql swift typescript xml yaml
"""


def vendored(web: Path = WEB) -> dict[str, bytes]:
    """Every file that belongs into page/vendor, by its path there, as npm has brought it to `web`/node_modules."""
    package = web / PACKAGE
    version = json.loads((package / "package.json").read_text())["version"]
    files = {"highlight/VERSION": f"highlight.js {version}, its build as ES modules; see web/vendor.py\n".encode()}
    for name in ("LICENSE", "es/core.min.js", *(f"es/languages/{language}.min.js" for language in LANGUAGES.split())):
        files[f"highlight/{name.removeprefix('es/')}"] = (package / name).read_bytes()
    return files


def main() -> int:
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=WEB, check=True)  # noqa: S607 - whichever is first
    target = WEB / "page" / "vendor"
    shutil.rmtree(target, ignore_errors=True)
    for name, content in vendored().items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
