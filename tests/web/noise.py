"""What a page complains of while a test looks at it."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, WebError

#: Chromium says it on the console too; this names the directive and what was blocked.
REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", event => {
    const { effectiveDirective, blockedURI, sample, sourceFile, lineNumber } = event;
    console.error(`CSP: ${effectiveDirective} blocked ${blockedURI} ${sample} at ${sourceFile}:${lineNumber}`);
});"""

#: What the console says of an answer that did not come, or was an error.
NETWORK = "Failed to load resource"


class Noise:
    """Warnings and errors on the console, errors that nobody caught, violations of the security policy."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._allowed: list[str] = []

    def listen(self, context: BrowserContext) -> None:
        """Hears all pages of this context from now on."""
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)

    def allow(self, pattern: str = NETWORK) -> None:
        """What matches is expected in this test, before this call too. Default: answers that are errors, or missing."""
        self._allowed.append(pattern)

    def unexpected(self) -> list[str]:
        return [words for words in self._heard if not any(re.search(pattern, words) for pattern in self._allowed)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            where = message.location
            self._heard.append(f"{message.type}: {message.text} ({where.get('url')}:{where.get('lineNumber')})")

    def _on_error(self, error: WebError) -> None:
        self._heard.append(f"not caught: {error.error.stack or error.error.message}")
