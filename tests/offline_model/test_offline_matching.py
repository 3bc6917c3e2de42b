"""Everyday rewordings get the answer; near misses get none, because a wrong answer is worse than none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offline_model import answers
from offline_model.answers import FOLDER, Answer, BadAnswer, Book, read_answer, shipped
from offline_model.chat import Message
from offline_model.languages import named, spoken
from offline_model.writer import write
from sluice.kinds import kinds

HITS = [
    ("Create a function that sums up three numbers", "sum-three-numbers"),
    ("add 3 numbers", "sum-three-numbers"),
    ("function which returns the sum of three numbers please", "sum-three-numbers"),
    ("Write a function to add three integers.", "sum-three-numbers"),
    ("Could you please write me a python program that adds 3 numbers?", "sum-three-numbers"),
    ("SUM OF THREE NUMBERS!!!", "sum-three-numbers"),
    ("I need code for summing up three numbers a, b and c", "sum-three-numbers"),
    ("addThreeNumbers", "sum-three-numbers"),
    ("Hello, please add three numbers, thanks", "sum-three-numbers"),
    ("sum an array", "sum-of-a-list"),
    ("Write a function that returns the sum of all the numbers in a list", "sum-of-a-list"),
    ("Reverse a string", "reverse-a-string"),
    ("a function in Rust that reverses strings", "reverse-a-string"),
    ("string reversal", "reverse-a-string"),
    ("Check if a number is prime", "prime-check"),
    ("isPrime function", "prime-check"),
    ("is this number a prime?", "prime-check"),
    ("Write a function that checks whether an integer is a prime number", "prime-check"),
    ("Tell me if a number is prime", "prime-check"),
    ("Generate prime numbers up to n", "list-primes"),
    ("fizzbuzz", "fizzbuzz"),
    ("Fizz Buzz", "fizzbuzz"),
    ("Implement the FizzBuzz program", "fizzbuzz"),
    ("compute the factorial of n", "factorial"),
    ("Create a function which calculates the factorial of a number", "factorial"),
    ("count the vowels in a string", "count-vowels"),
    ("How many vowels are in a string?", "count-vowels"),
    ("return the number of vowels in a text", "count-vowels"),
    ("Count words", "count-words"),
    ("Find the number of words in a sentence", "count-words"),
    ("find the largest number in an array", "largest-of-a-list"),
    ("return the maximum number of a list", "largest-of-a-list"),
    ("biggest number in a list", "largest-of-a-list"),
    ("Convert Celsius to Fahrenheit", "celsius-to-fahrenheit"),
    ("convert temperatures from celsius to fahrenheit", "celsius-to-fahrenheit"),
    ("celsius to fahrenheit converter", "celsius-to-fahrenheit"),
    ("find the greatest common divisor of 2 numbers", "greatest-common-divisor"),
    ("binary search", "binary-search"),
    ("bubblesort", "bubble-sort"),
    ("Sort an array using bubble sort", "bubble-sort"),
    ("remove duplicates from an array", "remove-duplicates"),
    ("delete the duplicates from a list", "remove-duplicates"),
    ("sort a list of numbers", "sort-a-list"),
    ("check if a string is a palindrome", "palindrome"),
    ("palindrome checker", "palindrome"),
    ("Check if two strings are anagrams", "anagram-check"),
    ("Determine if a year is a leap year", "leap-year"),
    ("compute the average of a list of numbers", "average-of-a-list"),
    ("mean of a list", "average-of-a-list"),
    ("print 'Hello, World!'", "hello-world"),
    ("nth fibonacci number", "fibonacci"),
    ("convert integers to roman numerals", "roman-numerals"),
]

MISSES = [
    "Create a function that sums up four numbers",
    "Create a function that sums up numbers",
    "sum up three numbers without using +",
    "sum the squares of three numbers",
    "multiply three numbers",
    "average of three numbers",
    "sort three numbers",
    "sum three strings",
    "add a number to a list",
    "add three numbers to a list",
    "sum of 3.5 numbers",
    "sum of the even numbers in a list",
    "product of a list of numbers",
    "reverse a linked list",
    "reverse a list",
    "reverse a number",
    "reverse the words in a string",
    "reverse each word of a string",
    "reverse a string without slicing",
    "reverse only the vowels of a string",
    "remove vowels from a string",
    "count consonants in a string",
    "count the unique words in a text",
    "count the characters in a string",
    "find the longest word in a text",
    "find a prime number",
    "check if a number is even",
    "check if a number is a perfect square",
    "next prime after a number",
    "sum of primes up to n",
    "convert Fahrenheit to Celsius",
    "Fahrenheit Celsius converter",
    "convert celsius to kelvin",
    "convert roman numerals to integers",
    "find the smallest number in a list",
    "find the second largest number in a list",
    "find the longest string in a list",
    "sort numbers from largest to smallest",
    "sort a list of numbers in descending order",
    "check if a list is sorted",
    "merge two sorted lists",
    "find duplicates in a list",
    "remove an item from a list",
    "least common multiple of two numbers",
    "greatest common divisor of three numbers",
    "binary search tree",
    "insertion sort",
    "convert a number to binary",
    "trailing zeros of a factorial",
    "sum of the first n fibonacci numbers",
    "check if a number is a fibonacci number",
    "check if a linked list is a palindrome",
    "longest palindrome in a string",
    "group anagrams",
    "fizzbuzz with three divisors",
    "median of a list of numbers",
    "decrypt a caesar cipher",
    "capitalize the last letter of each word",
    "print hello moon",
    "days in a leap year",
    "build a web server with login",
    "Erstelle eine Funktion, die drei Zahlen summiert",
    "三つの数を足す",
    "",
    "please create a function",
    "a",
    "3",
    "\x00",
]


#: The near misses are near to these; an answer that is added later may well know one of them.
SLUGS = sorted({slug for _, slug in HITS} | {"caesar-cipher", "capitalize-words", "roman-numerals", "word-frequency"})


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(read_answer(FOLDER / f"{slug}.md") for slug in SLUGS)


def ask(text: str, system: str = "You write code.") -> str:
    return write((Message("system", system), Message("user", text)))


@pytest.mark.parametrize(("objective", "slug"), HITS)
def test_an_everyday_rewording_finds_its_answer(objective: str, slug: str) -> None:
    found = shipped().find(spoken(objective)[1])
    assert found is not None
    assert found.slug == slug


@pytest.mark.parametrize("objective", MISSES)
def test_a_near_miss_finds_nothing(book: Book, objective: str) -> None:
    found = book.find(spoken(objective)[1])
    assert found is None, found.slug


@pytest.mark.parametrize(
    "example", kinds()["code"].schema()["inputs"]["examples"], ids=lambda example: example["language"]
)
def test_every_example_of_the_kind_code_gets_its_code(example: dict[str, str]) -> None:
    answer = ask(f"Language: {example['language']}\n\n{example['objective']}")
    assert "as Sluice's offline model knows it:" in answer
    assert f"```{example['language']}\n" in answer


def test_the_tables_are_long_enough() -> None:
    assert len(HITS) >= 30
    assert len(MISSES) >= 30


@pytest.mark.parametrize("answer", shipped().answers, ids=lambda answer: answer.slug)
def test_every_shipped_answer_is_found_by_each_of_its_sayings(answer: Answer) -> None:
    for saying in answer.sayings:
        assert shipped().find(saying) == answer, saying
        assert shipped().find(f"Please write a function: {saying}.") == answer, saying


@pytest.mark.parametrize("answer", shipped().answers, ids=lambda answer: answer.slug)
def test_every_shipped_answer_has_code_in_languages_the_model_can_name(answer: Answer) -> None:
    assert "python" in answer.code
    for name in answer.code:
        assert named(name).name == name


def test_the_answers_are_read_once_however_many_ask_at_once(monkeypatch) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(answers, "read_answer", lambda path: reads.append(path) or read_answer(path))
    answers._read_shipped.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        books = list(pool.map(lambda _: shipped(), range(8)))
    assert all(book is books[0] for book in books)
    assert len(reads) == len(set(reads)) == len(books[0].answers)


def test_a_stand_in_for_one_word_is_enough() -> None:
    sayings = ("Sum up three numbers", "add three numbers", "total of three values")
    book = Book([Answer("sum", sayings[0], sayings, {"python": "pass"})])
    assert book.find("the total of 3 numbers") is not None
    assert book.find("the sum of 3 values") is not None
    assert book.find("the sum of 3 lists") is None
    assert book.find("the sum of numbers") is None


def test_two_answers_that_fit_equally_well_are_none() -> None:
    book = Book(Answer(slug, "Do it fast", ("peel the apple",), {"python": "pass"}) for slug in ("one", "two"))
    assert book.find("peel the apple") is None


@pytest.mark.parametrize("text", ["", "no title\n\n```python\npass\n```\n", "# Title\n\n- only words\n"])
def test_a_file_that_is_no_answer_is_named(tmp_path, text: str) -> None:
    (tmp_path / "odd.md").write_text(text)
    with pytest.raises(BadAnswer, match=r"odd\.md"):
        read_answer(tmp_path / "odd.md")


def test_a_fence_longer_than_usual_keeps_the_backticks_in_it(tmp_path) -> None:
    (tmp_path / "ticks.md").write_text("# Ticks\n\n- ticks\n\n````bash\necho '```'\n````\n")
    assert read_answer(tmp_path / "ticks.md").code == {"bash": "echo '```'"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sum it up in Python", "python"),
        ("a JavaScript function", "javascript"),
        ("with js please", "javascript"),
        ("using node.js", "javascript"),
        ("TypeScript, thanks", "typescript"),
        ("in Java", "java"),
        ("in go", "go"),
        ("a Go program", "go"),
        ("golang", "go"),
        ("in C", "c"),
        ("a C function", "c"),
        ("in C++", "cpp"),
        ("C# method", "csharp"),
        ("shell script", "bash"),
        ("in bash.", "bash"),
        ("a Kotlin class", "kotlin"),
        ("in R", "r"),
        ("in SQL", "sql"),
        ("go through a list", None),
        ("convert a temperature in C to F", None),
        ("delete a node", None),
        ("shell sort", None),
        ("pascal triangle", None),
        ("a swift answer", None),
        ("trust me", None),
    ],
)
def test_a_language_is_heard_in_the_text(text: str, name: str | None) -> None:
    language = spoken(text)[0]
    assert (language and language.name) == name


def test_the_language_line_wins_over_the_text() -> None:
    assert "```rust\n" in ask("Language: rust\n\nadd three numbers in Java")
    assert "```go\n" in ask("add three numbers", system="Write code.\nLanguage: Golang")
    assert "```java\n" in ask("add three numbers in Java")
    assert "```python\n" in ask("add three numbers")


def test_the_last_user_message_is_the_objective() -> None:
    text = write((Message("user", "reverse a string"), Message("assistant", "no"), Message("user", "add 3 numbers")))
    assert text.startswith("Sum up three numbers in Python")


def test_a_known_objective_is_one_sentence_and_one_block() -> None:
    head, blank, rest = ask("Language: python\n\nCreate a function that sums up three numbers").split("\n", 2)
    assert head.endswith(":")
    assert blank == ""
    assert rest.startswith("```python\n")
    assert rest.endswith("\n```\n")
    assert rest.count("```") == 2
    compile(rest.removeprefix("```python\n").removesuffix("```\n"), "answer", "exec")
