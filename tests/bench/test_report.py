"""What the bench writes into the page and draws."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes

from bench import report
from bench.__main__ import CASES
from bench.figures import Plot, Result, Table, Verdict

TABLE = Table(
    "submit",
    "Submit",
    ["server", "requests/s", "p99 ms"],
    [
        ["Sluice", "9,000", "5"],
        ["a peer | its default -", "10", "60"],
        ["a liar", "WRONG: 3 messages are missing, of 4"],
    ],
    ["A note."],
)
PAGE = """# Speed

<!-- bench:machine -->
<!-- /bench -->

Words before.
<!-- bench:submit-run -->
<!-- /bench -->
<!-- bench:other-run -->
of last week
<!-- /bench -->
<!-- bench:submit -->
what an older run found
<!-- /bench -->
<!-- bench:other -->
what another case found
<!-- /bench -->
<!-- bench:submit-verdicts -->
<!-- /bench -->
"""


def _draw(axes: Axes) -> None:
    report.bars(axes, ["1", "32"], {"Sluice": [1.0, 20.0], "a peer": [0.5, None]}, "requests/s")


RESULT = Result(
    [TABLE], [Plot("submit", _draw, "Bars")], [Verdict("faster", "≥ 3", "2", False), Verdict("x", "y", "z", True)]
)


def test_a_run_fills_its_own_places_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)

    assert report.write("submit", RESULT, "Today.", "On a machine.", page, tmp_path / "pictures") == []

    text = page.read_text()
    assert "what an older run found" not in text
    assert "<!-- bench:other -->\nwhat another case found\n<!-- /bench -->" in text
    assert "<!-- bench:machine -->\nOn a machine.\n<!-- /bench -->\n\nWords before.\n" in text
    assert "<!-- bench:submit-run -->\nToday.\n<!-- /bench -->\n" in text
    assert "<!-- bench:other-run -->\nof last week\n<!-- /bench -->\n" in text
    assert "| Sluice | 9,000 | 5 |" in text
    assert "| a peer \\| its default - | 10 | 60 |" in text
    assert "| a liar | WRONG: 3 messages are missing, of 4 |  |" in text
    assert "| faster | ≥ 3 | 2 | **fails** |\n| x | y | z | holds |" in text
    assert "![Bars](pictures/bench-submit.svg)" in text
    assert (tmp_path / "pictures/bench-submit.svg").exists()

    again = page.read_text()
    report.write("submit", RESULT, "Today.", "On a machine.", page, tmp_path / "pictures")
    assert page.read_text() == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.md", "pictures"]


def test_what_the_page_has_no_place_for_is_named_and_the_rest_is_written(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    extra = Table("new", "New", ["a"], [])
    assert report.write("submit", Result([TABLE, extra]), "Today.", "On a machine.", page, tmp_path) == ["new"]
    assert "| Sluice | 9,000 | 5 |" in page.read_text()


def test_a_picture_is_small_has_real_text_on_white_and_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        report.draw(Plot("same", _draw, ""), tmp_path / name)
    picture = (tmp_path / "one.svg").read_bytes()
    assert picture == (tmp_path / "two.svg").read_bytes()
    assert len(picture) < 60_000
    texts = {element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {"Sluice", "a peer", "requests/s", "20.0"} <= texts
    background = re.search(rb'<g id="patch_1">\s*<path [^>]*style="([^"]*)"', picture)
    assert background is not None
    assert b"fill: #ffffff" in background[1]


def test_on_the_terminal_columns_stand_in_line_and_verdicts_below() -> None:
    lines = report.text_of(RESULT).splitlines()
    assert lines[0] == "Submit"
    header, ours, peer, wrong = lines[1:5]
    assert len(header) == len(ours) == len(peer)
    assert ours.index("9,000") + 5 == header.index("requests/s") + 10
    assert wrong.endswith("WRONG: 3 messages are missing, of 4")
    assert "FAILS  faster: 2 (wanted: ≥ 3)" in report.text_of(RESULT)
    assert "holds  x: z (wanted: y)" in report.text_of(RESULT)


def test_every_place_of_the_page_is_there_once() -> None:
    page = report.PAGE.read_text()
    places = [place["slug"] for place in report.PLACE.finditer(page)]
    assert {"machine", *(f"{name}-run" for name in CASES)} <= set(places)
    assert len(places) == len(set(places))
    assert page.count("<!-- bench:") == page.count("<!-- /bench -->") == len(places)


@pytest.mark.parametrize(("changed", "said"), [("", "3db1056"), (" M sluice/store.py\n", "3db1056 + changes")])
def test_a_commit_with_changes_is_said_to_have_them(monkeypatch: pytest.MonkeyPatch, changed: str, said: str) -> None:
    def git(command: list[str], **_: object) -> str:
        return changed if "status" in command else "3db1056\n"

    monkeypatch.setattr(report.subprocess, "check_output", git)
    assert report.commit() == said


def test_what_the_figures_depend_on_is_there() -> None:
    assert [name for name in report.MEASURED if not (report.ROOT / name).exists()] == []
