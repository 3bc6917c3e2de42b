"""Settings: typed, complete, and loud when they are wrong; secrets stay secret."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from sluice.errors import InvalidSettings
from sluice.settings import Settings, reveal

PASSWORD = "open-sesame"
SECRETS = {
    "MONGODB_URI": f"mongodb://sluice:{PASSWORD}@db.example/",
    "RABBITMQ_URL": f"amqp://sluice:{PASSWORD}@queue.example/",
    "OPENAI_API_KEY": f"sk-{PASSWORD}",
}


def refused(environment: Mapping[str, str], *required: str) -> str:
    """Why these settings are refused."""
    with pytest.raises(InvalidSettings) as caught:
        Settings.load(environment=environment, required=required)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_without_an_environment_everything_has_its_default() -> None:
    loaded = Settings.load(environment={})
    assert (loaded.task_queue, loaded.task_ttl_seconds, loaded.engine_concurrency) == ("tasks", 300, 10)
    assert (loaded.mongodb_uri, loaded.rabbitmq_url, loaded.openai_api_key) == (None, None, None)


def test_settings_are_read_from_variables_in_capitals_and_typed() -> None:
    loaded = Settings.load(
        environment={"TASK_TTL_SECONDS": "60", "PUBLISH_TIMEOUT_SECONDS": "0.5", "TASK_QUEUE": "other", "PORT": "0"}
    )
    assert (loaded.task_ttl_seconds, loaded.publish_timeout_seconds, loaded.task_queue, loaded.port) == (
        60,
        0.5,
        "other",
        0,
    )


def test_the_environment_of_the_process_is_read_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_DATABASE", "from-the-environment")
    assert Settings.load().mongodb_database == "from-the-environment"


def test_names_that_are_no_settings_are_nobodys_business() -> None:
    assert Settings.load(environment={"HOME": "/root", "task_ttl_seconds": "7"}).task_ttl_seconds == 300


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_counts_as_not_set(blank: str) -> None:
    loaded = Settings.load(environment={"TASK_TTL_SECONDS": blank, "OPENAI_API_KEY": blank, "LOG_FORMAT": blank})
    assert (loaded.task_ttl_seconds, loaded.openai_api_key, loaded.log_format) == (300, None, None)


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    assert Settings.load(environment={"TASK_QUEUE": " other\n"}).task_queue == "other"


def test_all_that_is_missing_or_wrong_is_named_at_once() -> None:
    reason = refused(
        {"TASK_TTL_SECONDS": "soon", "PORT": "99999", "LOG_LEVEL": "LOUD", "RABBITMQ_URL": "  "},
        "mongodb_uri",
        "rabbitmq_url",
    )
    for name in ("MONGODB_URI", "RABBITMQ_URL", "TASK_TTL_SECONDS", "PORT", "LOG_LEVEL"):
        assert reason.count(name) == 1
    assert "MONGODB_URI is not set" in reason


def test_what_is_required_and_given_is_not_named() -> None:
    assert "MONGODB_URI" not in refused(SECRETS | {"PORT": "no"}, "mongodb_uri", "rabbitmq_url")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TASK_TTL_SECONDS", "0"),
        ("TASK_TTL_SECONDS", "1.5"),
        ("TASK_TTL_SECONDS", "five minutes"),
        ("PUBLISH_TIMEOUT_SECONDS", "-1"),
        ("PUBLISH_TIMEOUT_SECONDS", "nan"),
        ("STORE_TIMEOUT_SECONDS", "0"),
        ("STORE_TIMEOUT_SECONDS", "inf"),
        ("STORE_TIMEOUT_SECONDS", "1e400"),
        ("ENGINE_CONCURRENCY", "0"),
        ("ENGINE_CONCURRENCY", "1001"),
        ("CRASH_LIMIT", "0"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("TASK_QUEUE", "Tasks"),
        ("TASK_QUEUE", "two words"),
        ("LOG_LEVEL", "info"),
        ("LOG_LEVEL", "INFO\nDEBUG"),
        ("LOG_FORMAT", "xml"),
        ("WORKERS", "many"),
        ("THREADS", "0"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_bounds_is_refused_by_name(name: str, value: str) -> None:
    assert name in refused({name: value})


def test_secrets_are_in_no_text_of_the_settings() -> None:
    loaded = Settings.load(environment=SECRETS)
    for text in (repr(loaded), str(loaded), f"{loaded}", loaded.model_dump_json(), str(loaded.model_dump())):
        assert PASSWORD not in text


def test_secrets_are_in_no_error() -> None:
    assert "PORT" in refused(SECRETS | {"PORT": "no", "LOG_LEVEL": "no"}, "mongodb_uri")


def test_a_wrong_value_is_not_repeated_in_the_error() -> None:
    """Somebody who mixes up two variables must not find the password in the log."""
    assert "PORT" in refused({"PORT": SECRETS["MONGODB_URI"], "LOG_FORMAT": PASSWORD})


def test_a_secret_is_revealed_where_it_is_asked_for() -> None:
    assert reveal(Settings.load(environment=SECRETS).mongodb_uri) == SECRETS["MONGODB_URI"]


def test_a_secret_that_is_not_set_can_not_be_revealed() -> None:
    with pytest.raises(InvalidSettings):
        reveal(None)


@pytest.mark.parametrize(
    ("environment", "has_model"),
    [({}, False), ({"OPENAI_API_KEY": "k"}, True), ({"OPENAI_BASE_URL": "http://localhost:1/v1"}, True)],
)
def test_a_model_is_configured_by_its_key_or_its_address(environment: dict[str, str], has_model: bool) -> None:
    assert Settings.load(environment=environment).has_model is has_model


def test_settings_do_not_change() -> None:
    loaded = Settings.load(environment={})
    with pytest.raises(ValidationError):
        loaded.port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
