"""axe-core, run inside a page."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.servers import require
from tests.servers.npm import MODULES, modules_missing


def axe(page: Page, **options: Any) -> list[str]:
    """What axe-core finds wrong with the page as it is now, a line for each element. `options` are those of axe.run."""
    require(modules_missing())
    page.evaluate((MODULES / "axe-core/axe.min.js").read_text())  # a script tag is what the page's policy forbids
    found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **options})
    return [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: {' '.join(map(str, node['target']))}\n"
        f"    {node['html']}\n    {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
