"""The command line: what it may say, and what a wrong one is answered."""

from __future__ import annotations

import pytest

from tests.load.options import broker_address, parse

#: A password as it is, not as a URL would have it.
IN_ENVIRONMENT = "p%40ss"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tasks", "0"), "argument --tasks: 0 is less than 1"),
        (("--users", "many"), "argument --users: 'many' is no number"),
        (("--rate", "-1"), "argument --rate: -1 is not 0 or more"),
        (("--rate", "nan"), "argument --rate: nan is not 0 or more"),
        (("--timeout", "0"), "argument --timeout: must be more than 0"),
        (("--input", "text"), "argument --input: 'text' is not FIELD=VALUE"),
        (("--url", "localhost:8080"), "argument --url: 'localhost:8080' is no http:// or https:// address"),
        (("--url", "http://[x"), "argument --url: 'http://[x' is no http:// or https:// address"),
        (("--url", "http://me:secret@localhost"), "argument --url: must be without a user and a password"),
        (("--kubeconfig", "/nowhere"), "argument --kubeconfig: there is no file /nowhere"),
        (("--broker", "http://localhost:15672"), "argument --broker: needs a user: http://USER@HOST"),
        (("--broker", "http://guest@localhost:15672"), "argument --broker: needs a password, in BROKER_PASSWORD"),
        (("--tasks", "50000", "--users", "4"), "50000 need --users 5 or more"),
        (("--task", "5"), "unrecognized arguments: --task 5"),
    ],
)
def test_wrong_arguments_are_refused_in_words(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKER_PASSWORD", raising=False)
    assert words in refusal(capsys, *arguments)


def test_each_run_has_users_keys_and_a_folder_of_its_own() -> None:
    first, second = parse([]), parse([])
    assert first.run != second.run
    assert first.out != second.out


@pytest.mark.parametrize(
    ("text", "base", "user", "password", "vhost"),
    [
        ("http://guest:guest@localhost:15672", "http://localhost:15672", "guest", "guest", "/"),
        ("http://guest:guest@localhost:15672/", "http://localhost:15672", "guest", "guest", "/"),
        ("http://guest:guest@localhost:15672/%2F", "http://localhost:15672", "guest", "guest", "/"),
        ("https://keda:p%40ss@broker/tasks", "https://broker", "keda", "p@ss", "tasks"),
        (
            "http://operator@localhost:15672/sluice",
            "http://localhost:15672",
            "operator",
            IN_ENVIRONMENT,
            "sluice",
        ),
    ],
)
def test_the_broker_is_given_as_one_address_whose_password_may_be_in_the_environment(
    text: str, base: str, user: str, password: str, vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", IN_ENVIRONMENT)
    address = broker_address(text)
    assert (address.base, address.user, address.password, address.vhost) == (base, user, password, vhost)
    assert "password" not in repr(address)
