"""What is not known is said so, and a stranger's text stays inside its comments."""

import ast
import re
import shutil
import subprocess

import pytest

from offline_model.chat import Message
from offline_model.languages import LANGUAGES, named
from offline_model.skeleton import fenced, skeleton
from offline_model.writer import write

UNKNOWN = "Bake a cake with seven layers"

HOSTILE = [
    "```\nbackticks\n``````` and more",
    "ends the comment */ int x = 1; /* and again",
    "python'''\"\"\"\nimport os\nos.system('true')",
    "<!-- --> <script>--></script>",
    "<?php echo 1; ?> <b>",
    "\\u000a System.exit(1); \\\\u000a",
    "nulls \x00 and \x1b[31m red \x07",
    "line\rcarriage\x0bvertical\x0cform\x85next\u2028separator\u2029paragraph",
    "ends in a backslash \\",
    "ends in a trigraph ??/",
    "turned \u202e round",
    "half a \ud800 pair",
    "(* ocaml *) \" ' unfinished",
    "#{1} $(touch x) `touch x` ${x}",
    "coding: utf-7\nvim: set ft=x",
    "\n\n\n",
    "",
    "long " * 5_000,
    "x" * 5_000,
    "Language: \nLanguage: c\n",
]


def block(reply: str) -> tuple[str, str]:
    """Info string and code of the only block in `reply`."""
    found = re.search(r"^(`{3,})([^\n`]*)\n(.*?)\n\1\s*\Z", reply, re.S | re.M)
    assert found is not None
    longest = max(map(len, re.findall("`+", found[3])), default=0)
    assert len(found[1]) > longest or longest == 0
    return found[2], found[3]


def ask(objective: str, language: str) -> tuple[str, str]:
    return block(write((Message("user", f"Language: {language}\n\n{objective}"),)))


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_a_skeleton_is_honest_in_every_language(language) -> None:
    info, code = ask(UNKNOWN, language.name)
    assert info == language.name
    assert "Sluice's offline model" in code or language.name == "ocaml"
    assert UNKNOWN in code
    assert "OPENAI_API_KEY" in code
    comments = [line for line in code.splitlines() if UNKNOWN in line]
    assert all(line.startswith(language.open) and line.endswith(language.close) for line in comments)


#: One language for each way to comment, and those that have code around the comments.
KINDS = {(language.open, language.close): language for language in LANGUAGES}.values()
STUBS = [language for language in LANGUAGES if language.name in ("c", "go", "java", "javascript", "php", "rust")]


@pytest.mark.parametrize("language", [*KINDS, *STUBS], ids=lambda language: language.name)
def test_a_hostile_objective_stays_in_its_comments(language) -> None:
    harmless = bare(ask(UNKNOWN, language.name)[1], language)
    for objective in HOSTILE:
        _, code = ask(objective, language.name)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800-\udfff]", code)
        # Around the comments there is exactly what stands around those of a harmless objective.
        assert bare(code, language) == harmless


def bare(code: str, language) -> list[str]:
    lines = []
    for line in code.splitlines():
        if not line.startswith(language.open) or line.startswith(("#include", "<?php")):
            lines.append(line)
            continue
        inside = line.removeprefix(language.open)
        assert not inside.endswith("\\")
        if language.close:
            assert inside.endswith(language.close)
            inside = inside.removesuffix(language.close)
            assert language.close not in inside
            assert language.open not in inside
        assert "?>" not in inside
        assert "\\u" not in inside
    return lines


@pytest.mark.parametrize("objective", HOSTILE)
def test_a_python_skeleton_parses_and_does_nothing_but_raise(objective: str) -> None:
    _, code = ask(objective, "python")
    # From bytes, so that a declared encoding would count.
    tree = ast.parse(code.encode())
    assert [type(node) for node in tree.body] == [ast.FunctionDef]
    namespace: dict[str, object] = {}
    exec(compile(tree, "skeleton", "exec"), namespace)
    with pytest.raises(NotImplementedError):
        namespace["objective"]()


@pytest.mark.parametrize(
    ("language", "command"),
    [
        ("bash", ["bash", "-n"]),
        ("php", ["php", "-l"]),
        ("ruby", ["ruby", "-c"]),
        ("c", ["gcc", "-xc", "-fsyntax-only", "-Wall", "-Werror", "-trigraphs", "-"]),
    ],
)
def test_a_hostile_skeleton_is_accepted_by_the_language_itself(language: str, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    for objective in HOSTILE[:16]:
        _, code = ask(objective, language)
        done = subprocess.run(command, input=code.encode(), capture_output=True, timeout=20)
        assert done.returncode == 0, (code, done.stderr)


def test_a_known_objective_in_an_unknown_language_says_where_it_is_known() -> None:
    info, code = ask("add three numbers", "COBOL")
    assert info == "cobol"
    assert "not in COBOL" in code.replace("\n*> ", " ")
    assert "Python" in code


def test_a_language_nobody_knows_gets_hashes() -> None:
    info, code = ask(UNKNOWN, "Brain```fuck\t<b>\x00")
    assert info == "brain-fuck-b"
    assert all(line.startswith("#") for line in code.splitlines())


@pytest.mark.parametrize(
    ("alias", "name"),
    {
        "JS": "javascript",
        "ts": "typescript",
        "golang": "go",
        "C++": "cpp",
        "c#": "csharp",
        "cs": "csharp",
        "shell": "bash",
        "sh": "bash",
        "py": "python",
        "Node": "javascript",
        "node.js": "javascript",
        "rb": "ruby",
        "VB.NET": "vb",
        "Objective-C": "objectivec",
    }.items(),
)
def test_a_language_has_other_names(alias: str, name: str) -> None:
    assert named(alias).name == name


def test_no_two_languages_share_a_name() -> None:
    names = [name for language in LANGUAGES for name in (language.name, *language.aliases)]
    assert len(names) == len(set(names))


def test_a_long_objective_is_cut_and_that_is_said() -> None:
    code = skeleton("word " * 10_000, named("python"), [])
    assert len(code) < 4_000
    assert "(and more)" in code


def test_a_fence_is_longer_than_what_is_in_it() -> None:
    assert fenced("a ```` b", "c").startswith("`````c\n")
    assert fenced("plain", "c") == "```c\nplain\n```\n"
