"""Code out of answers, whatever shape their fences have."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from functions.engine.fences import code_in

CODE = "def add(a, b, c):\n    return a + b + c"


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{CODE}\n```",
        f"```\n{CODE}\n```",
        f"~~~python\n{CODE}\n~~~",
        f"Here it is:\n\n```python\n{CODE}\n```\n\nCall it with three numbers.",
        f"Here it is:\n```python\n{CODE}\n```\nCall it with three numbers.",
        f"``` python\n{CODE}\n```",
        f"```Python\n{CODE}\n```",
        f'```python title="add.py" linenos\n{CODE}\n```',
        f"```python {{.numberLines startFrom=1}}\n{CODE}\n```",
        f"````python\n{CODE}\n````",
        f"``````python\n{CODE}\n````````",
        f"```python\n{CODE}\n\n\n```",
        f"```python\n\n{CODE}   \n```",
        f"```python\n{CODE}",
        f"```python\n{CODE}\n",
        CODE,
        f"\n\n{CODE}\n\n",
    ],
)
def test_the_code_is_found_in_every_fence_shape_and_without_one(answer: str) -> None:
    assert code_in(answer, "python") == f"{CODE}\n"


@pytest.mark.parametrize("indent", [" ", "  ", "   "])
def test_an_indented_fence_takes_its_own_indentation_off_the_code(indent: str) -> None:
    lines = ["```python", *CODE.split("\n"), "```"]
    assert code_in("\n".join(indent + line for line in lines), "python") == f"{CODE}\n"


@pytest.mark.parametrize(
    ("prefix", "later"), [("- ", "  "), ("1. ", "   "), ("> ", "> "), ("> - ", ">   "), ("* - ", "    ")]
)
def test_the_code_is_found_in_lists_and_quotes(prefix: str, later: str) -> None:
    lines = ["```python", *CODE.split("\n"), "```"]
    answer = "Steps:\n\n" + prefix + f"\n{later}".join(lines) + "\n\nDone."
    assert code_in(answer, "python") == f"{CODE}\n"


def test_the_code_is_found_in_an_item_below_its_text() -> None:
    indented = "\n".join(f"   {line}" for line in ["```python", *CODE.split("\n"), "```"])
    assert code_in(f"1. Write this:\n\n{indented}\n\n2. Run it.\n", "python") == f"{CODE}\n"


def test_windows_line_ends_become_plain_ones() -> None:
    answer = f"Here:\n\n```python\n{CODE}\n```\n\nBye.\n".replace("\n", "\r\n")
    assert code_in(answer, "python") == f"{CODE}\n"


def test_a_longer_fence_keeps_the_fences_inside_it() -> None:
    inner = "# Add\n\n```python\nadd(1, 2, 3)\n```"
    assert code_in(f"````markdown\n{inner}\n````", "markdown") == f"{inner}\n"


def test_tildes_keep_the_backticks_inside_them() -> None:
    inner = "```\nadd(1, 2, 3)\n```"
    assert code_in(f"~~~markdown\n{inner}\n~~~", "markdown") == f"{inner}\n"


@pytest.mark.parametrize(
    "answer", ["", "\n\n", "```", "```python", "```python\n", "```python\n\n```", "Here:\n\n```python\n", "~~~\n~~~\n"]
)
def test_an_empty_or_just_opened_fence_holds_no_code(answer: str) -> None:
    assert code_in(answer, "python") == ""


def test_the_blocks_in_the_wanted_language_are_put_together() -> None:
    answer = "```python\nimport math\n```\nInstall it:\n```bash\npip install something-long-enough-to-win\n```\n"
    answer += "and\n```python\nprint(math.pi)\n```\n"
    assert code_in(answer, "python") == "import math\nprint(math.pi)\n"


def test_without_the_wanted_language_the_longest_block_is_the_code() -> None:
    answer = "```\nshort\n```\n```ruby\nputs 'the longest of all'\n```\n```text\nlonger\n```\n"
    assert code_in(answer, "python") == "puts 'the longest of all'\n"


def test_the_language_that_was_asked_for_wins_over_a_longer_block_in_another() -> None:
    answer = "```text\nsome output that is quite a bit longer\n```\n```python\nprint(1)\n```\n"
    assert code_in(answer, "Python") == "print(1)\n"


def test_an_empty_block_never_wins() -> None:
    assert code_in(f"```python\n\n```\n```\n{CODE}\n```\n", "python") == f"{CODE}\n"


def test_indentation_inside_the_fence_is_kept() -> None:
    assert code_in("```python\n    indented\n\tby a tab\n```", "python") == "    indented\n\tby a tab\n"


def test_a_code_span_is_no_fence() -> None:
    assert code_in("Use `sum` or ```sum```.", "python") == "Use `sum` or ```sum```.\n"


#: Texts that a careless parser takes minutes for. An answer ends at 512 KiB.
LONG = 512 * 1024


@pytest.mark.parametrize(
    "piece",
    ["`", "` ", "~", "[", "![", "[a](", "*a **b ", "_a_", "<", "<a ", "&", ">", "```\n", "```python\nx\n```\n", "\n"],
)
def test_a_huge_hostile_answer_is_read_within_seconds(piece: str) -> None:
    answer = piece * (LONG // len(piece))
    started = time.process_time()
    code_in(answer, "python")
    assert time.process_time() - started < 3


def test_a_hundred_thousand_backticks_around_code_do_not_hide_it() -> None:
    answer = f"{'` ' * 100_000}\n\n```python\n{CODE}\n```\n\n{'x' * 300_000}"
    started = time.process_time()
    assert code_in(answer, "python") == f"{CODE}\n"
    assert time.process_time() - started < 3


markdown = st.lists(
    st.one_of(st.sampled_from(["```", "~~~", "`", "\n", "\r\n", "> ", "- ", "1. ", "    ", "\t", "python"]), st.text()),
    max_size=30,
).map("".join)


@given(markdown, st.text(max_size=10))
@example("\0```\0\n\0", "\0")
@example("```\ud800\n\udfff", "\ud800")
def test_no_answer_makes_it_raise(answer: str, language: str) -> None:
    code = code_in(answer, language)
    assert code == "" or code.endswith("\n")


lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=200)
codes = lines.map(lambda code: code.strip("\n").rstrip()).filter(bool)


@given(codes, st.sampled_from("`~"), st.sampled_from(["python", "", "text"]), st.text("abc .", max_size=20))
@example("```\nx\n```", "`", "python", "")
@example("> - ~~~", "~", "", "")
def test_code_in_a_longer_fence_comes_back_unchanged(code: str, mark: str, info: str, sentence: str) -> None:
    fence = mark * (3 + max(map(len, _runs(code, mark)), default=0))
    answer = f"{sentence.strip()}\n\n{fence}{info}\n{code}\n{fence}\n"
    assert code_in(answer, "python") == f"{code}\n"


def _runs(text: str, mark: str) -> list[str]:
    """The runs of this character in the text."""
    return [run for run in "".join(c if c == mark else " " for c in text).split(" ") if run]
