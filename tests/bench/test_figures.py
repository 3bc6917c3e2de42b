"""Rounds, medians and percentiles of the bench."""

from __future__ import annotations

import pytest

from bench import figures
from bench.figures import Median, Sample, Variant, Wrong, interleave, number, percentile, wrong_rows


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ALL_WRONG", {})
    monkeypatch.setattr(figures.Noise, "look", lambda self: self.seconds.append(1.0))


def test_variants_take_turns_and_each_figure_is_the_median_of_the_rounds() -> None:
    order: list[str] = []

    def measured(name: str, *values: float) -> Variant:
        left = list(values)

        def measure() -> Sample:
            order.append(name)
            return {"rate": left.pop(0), "always": 1.0}

        return Variant(name, measure)

    found = interleave([measured("a", 5, 1, 3), measured("b", 10, 30, 20)], 3)

    assert order == ["a", "b"] * 3
    assert found["a"]["rate"] == Median(3, 1, 5)
    assert found["b"] == {"rate": Median(20, 10, 30), "always": Median(1, 1, 1)}
    assert [sample["rate"] for sample in found.samples["b"]] == [10, 30, 20]
    assert wrong_rows(found) == []


def test_a_variant_that_was_wrong_in_any_round_has_no_figures_and_is_named() -> None:
    answers: list[Sample | Wrong] = [{"rate": 9.0}, Wrong("2 messages are lost"), {"rate": 9.0}]

    def measure() -> Sample:
        answer = answers.pop(0)
        if isinstance(answer, Wrong):
            raise answer
        return answer

    found = interleave([Variant("loses", measure), Variant("keeps", lambda: {"rate": 1.0})], 3)

    assert list(found) == ["keeps"]
    assert wrong_rows(found) == [["loses", "WRONG: 2 messages are lost"]]
    assert figures.ALL_WRONG == {"loses": "2 messages are lost"}
    assert len(answers) == 1, "it is not measured again"


def test_a_variant_that_breaks_is_wrong_and_the_others_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> Sample:
        raise OSError("no server" + "!" * 200)

    found = interleave([Variant("broken", measure), Variant("whole", lambda: {"rate": 1.0})], 2)

    assert list(found) == ["whole"]
    assert found.wrong["broken"].startswith("OSError: no server!")
    assert len(found.wrong["broken"]) == figures.REASON_CHARACTERS
    assert found.wrong == figures.ALL_WRONG
    assert capsys.readouterr().err.count("Traceback") == 1


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.001, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_a_percentile_of_one_value_is_that_value_and_of_none_an_error() -> None:
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_median_of_two_rounds_lies_between_them() -> None:
    assert Median.of([4.0, 2.0]) == Median(3.0, 2.0, 4.0)


def test_the_noise_is_told_in_terms_of_the_median() -> None:
    noise = figures.Noise()
    noise.seconds = [0.1, 0.2, 0.5]
    assert (noise.median, noise.best, noise.worst) == (0.2, 0.5, 2.5)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0, "0.00")]
)
def test_figures_are_written_in_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text
