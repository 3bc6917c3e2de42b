"""Programming languages: what they are called, and how they write a comment."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language as far as the offline model knows it."""

    #: Info string of a fenced block.
    name: str
    label: str
    #: What begins a comment; it ends with the line, or with `close` if there is one.
    open: str = "#"
    close: str = ""
    aliases: tuple[str, ...] = ()


LANGUAGES = (
    Language("python", "Python", aliases=("py", "python3", "py3")),
    Language("javascript", "JavaScript", "//", aliases=("js", "node", "nodejs", "node.js", "ecmascript")),
    Language("typescript", "TypeScript", "//", aliases=("ts", "deno")),
    Language("java", "Java", "//"),
    Language("go", "Go", "//", aliases=("golang",)),
    Language("rust", "Rust", "//", aliases=("rs",)),
    Language("c", "C", "//", aliases=("ansi c", "c99", "c11", "c17")),
    Language("cpp", "C++", "//", aliases=("c++", "cplusplus", "cxx", "c++17", "c++20")),
    Language("csharp", "C#", "//", aliases=("c#", "cs", "c sharp", ".net", "dotnet")),
    Language("ruby", "Ruby", aliases=("rb",)),
    Language("php", "PHP", "//"),
    Language("bash", "Bash", aliases=("shell", "sh", "zsh", "shell script")),
    Language("kotlin", "Kotlin", "//", aliases=("kt",)),
    Language("swift", "Swift", "//"),
    Language("scala", "Scala", "//"),
    Language("dart", "Dart", "//"),
    Language("groovy", "Groovy", "//"),
    Language("objectivec", "Objective-C", "//", aliases=("objective-c", "objc")),
    Language("fsharp", "F#", "//", aliases=("f#", "fs")),
    Language("zig", "Zig", "//"),
    Language("d", "D", "//", aliases=("dlang",)),
    Language("v", "V", "//", aliases=("vlang",)),
    Language("solidity", "Solidity", "//"),
    Language("protobuf", "Protocol Buffers", "//", aliases=("proto",)),
    Language("verilog", "Verilog", "//", aliases=("systemverilog",)),
    Language("perl", "Perl", aliases=("pl",)),
    Language("r", "R"),
    Language("julia", "Julia"),
    Language("elixir", "Elixir", aliases=("ex", "exs")),
    Language("nim", "Nim"),
    Language("crystal", "Crystal"),
    Language("powershell", "PowerShell", aliases=("ps1", "pwsh")),
    Language("tcl", "Tcl"),
    Language("awk", "AWK"),
    Language("yaml", "YAML", aliases=("yml",)),
    Language("toml", "TOML"),
    Language("dockerfile", "Dockerfile", aliases=("docker",)),
    Language("makefile", "Makefile", aliases=("make",)),
    Language("cmake", "CMake"),
    Language("terraform", "Terraform", aliases=("hcl", "tf")),
    Language("graphql", "GraphQL"),
    Language("lua", "Lua", "--"),
    Language("haskell", "Haskell", "--", aliases=("hs",)),
    Language("sql", "SQL", "--", aliases=("postgresql", "mysql", "sqlite", "plsql")),
    Language("ada", "Ada", "--"),
    Language("elm", "Elm", "--"),
    Language("vhdl", "VHDL", "--"),
    Language("clojure", "Clojure", ";;", aliases=("clj",)),
    Language("lisp", "Lisp", ";;", aliases=("common lisp", "common-lisp", "elisp", "emacs lisp")),
    Language("scheme", "Scheme", ";;"),
    Language("racket", "Racket", ";;"),
    Language("assembly", "Assembly", ";", aliases=("asm", "nasm")),
    Language("ini", "INI", ";"),
    Language("erlang", "Erlang", "%", aliases=("erl",)),
    Language("prolog", "Prolog", "%"),
    Language("matlab", "MATLAB", "%", aliases=("octave",)),
    Language("latex", "LaTeX", "%", aliases=("tex",)),
    Language("fortran", "Fortran", "!", aliases=("f90",)),
    Language("vb", "Visual Basic", "'", aliases=("vb.net", "vba", "visual basic", "basic")),
    Language("vim", "Vim script", '"', aliases=("vimscript", "viml")),
    Language("batch", "Batch", "REM", aliases=("bat", "cmd")),
    Language("cobol", "COBOL", "*>"),
    Language("pascal", "Pascal", "//", aliases=("delphi",)),
    Language("ocaml", "OCaml", "(*", "*)", aliases=("ml",)),
    Language("css", "CSS", "/*", "*/"),
    Language("html", "HTML", "<!--", "-->"),
    Language("xml", "XML", "<!--", "-->", aliases=("svg", "xslt")),
    Language("markdown", "Markdown", "<!--", "-->", aliases=("md",)),
)

_BY_NAME = {name: language for language in LANGUAGES for name in (language.name, *language.aliases)}

#: Names that mean the language wherever they stand. The others are words too (go, c, node, swift, scheme, pascal).
_PLAIN = """python python3 py javascript js typescript ts java golang c++ cpp c++17 c++20 c# csharp rust ruby php bash
    kotlin scala haskell perl nodejs node.js powershell elixir erlang clojure ocaml f# fsharp lua matlab fortran cobol
    objective-c"""
#: Names that mean the language after "in", or before "function" and the like.
_BESIDE = """go c r shell sh zsh node cs rs rb swift dart julia groovy zig nim crystal racket scheme lisp pascal ada sql
    awk elm vb vba prolog assembly octave"""


def _either(names: str, but: str = "") -> str:
    wanted = [name for name in names.split() if name != but]
    return "|".join(re.escape(name) for name in sorted(wanted, key=len, reverse=True))


_SPOKEN = re.compile(
    rf"(?<![\w.+#-])(?:(?:in|using|with|for)\s+)?(?P<plain>{_either(_PLAIN)})(?![\w+#])"
    # "in C to F" speaks of degrees.
    rf"|(?<![\w.+#-])(?:in|using)\s+(?P<after>{_either(_BESIDE)})(?![\w+#])(?!\s+(?:to|into|degrees?|and|or)\b)"
    rf"|(?<![\w.+#-])(?P<before>{_either(_BESIDE, but='node')})"
    r"(?=\s+(?:functions?|programs?|scripts?|code|methods?|snippets?|implementation)\b)",
    re.IGNORECASE,
)


def named(name: str) -> Language:
    """The language called `name`. One nobody knows keeps its name and gets `#` for its comments."""
    key = " ".join(name.casefold().split())
    if key in _BY_NAME:
        return _BY_NAME[key]
    # It becomes the info string of a fence and part of a sentence: nothing may come in with it.
    slug = re.sub(r"[^a-z0-9+#.-]+", "-", key).strip("-")[:30]
    return Language(slug or "text", slug or "an unnamed language")


def spoken(text: str) -> tuple[Language | None, str]:
    """The first language that `text` speaks of, and `text` without the names of languages."""
    found = _SPOKEN.search(text)
    if found is None:
        return None, text
    name = found["plain"] or found["after"] or found["before"]
    return named(name), _SPOKEN.sub(" ", text)
