"""No password is shown or stored, whatever form the connection string has."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from sentiment_hybrid import console, redaction
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.errors import StudyError
from sentiment_hybrid.redaction import redact, remember
from sentiment_hybrid.tuning import study as studies

HOST = "db.example.org"


def _dsn(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


#: Every way in which a password is written into a connection string.
FORMS: dict[str, Callable[[str], str]] = {
    "user": lambda p: URL.create("postgresql+psycopg", "anna", p, HOST, 5432, "studies").render_as_string(False),
    "no user": lambda p: f"redis://:{quote(p, safe='')}@{HOST}/0",
    "query": lambda p: f"postgresql://{HOST}/studies?user=anna&password={quote_plus(p)}&sslmode=require",
    "encoded key": lambda p: f"postgresql://{HOST}/studies?p%61ssword={quote(p, safe='')}#part",
    "client key": lambda p: f"postgresql://{HOST}/studies?sslpassword={quote(p, safe='')}",
    "signed": lambda p: f"https://{HOST}/a.csv?X-Amz-Date=1&X-Amz-Signature={quote(p, safe='')}&part=2",
    "shared access": lambda p: f"az://{HOST}/a.csv?sv=2&sig={quote(p, safe='')}",
    "url as a path": lambda p: f"https:/anna:{quote(p, safe='')}@{HOST}/a.csv",
    "keywords": lambda p: f"host={HOST} user=anna password = {_dsn(p)} dbname=studies",
    "keyword inside a query": lambda p: f"mssql://?odbc_connect={quote_plus(f'SERVER={HOST};PWD={quote(p)};UID=a')}",
    "dictionary": lambda p: str({"host": HOST, "password": p, "port": 5432}),
}
PASSWORDS = st.text(min_size=1, max_size=20).filter(lambda p: not any("\ud800" <= c <= "\udfff" for c in p))


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())


@pytest.mark.parametrize("form", FORMS)
@given(password=PASSWORDS)
def test_what_is_shown_does_not_depend_on_the_password(form: str, password: str) -> None:
    words = "the storage {} cannot be used: no route"
    shown = redact(words.format(FORMS[form](password)))
    assert shown == redact(words.format(FORMS[form]("x")))
    assert redact(shown) == shown
    assert shown.endswith("cannot be used: no route")


@given(password=PASSWORDS.filter(lambda p: not p.isspace()), form=st.sampled_from(["user", "query"]))
def test_a_password_that_is_remembered_is_hidden_by_itself(password: str, form: str) -> None:
    redaction._known.clear()
    remember(FORMS[form](password))
    for spelling in (password, quote(password, safe=""), quote_plus(password)):
        assert redact(f'invalid value "{spelling}"') == 'invalid value "***"'


@pytest.mark.parametrize("password", ["p@ss@word", "a/b?c#d", "50%", "ü:ö"])
def test_characters_that_ought_to_be_encoded_are_hidden_too(password: str) -> None:
    assert redact(f"no host: postgresql://anna:{password}@{HOST}/x") == f"no host: postgresql://anna:***@{HOST}/x"


@pytest.mark.parametrize(
    "text",
    [
        "token_budget=4096, lower it with --set train.token_budget=2048",
        "https://huggingface.co/roberta-base?revision=main",
        "postgresql+psycopg://anna@host:5432/studies",
        "sqlite:///results/optuna_lstm.db",
        "password authentication failed for user anna",
        "12:30 @anna: see http://t.co/x",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://127.0.0.1:1/studies?user=anna&password=geheim",
        "postgresql+psycopg://anna:geheim@127.0.0.1:1/studies",
        "postgresql+psycopg://anna:a@geheim@127.0.0.1:1/studies",
        "postgresql+psycopg://anna:geh%65im@127.0.0.1:1/studies",
        "host=127.0.0.1 port=1 user=anna password=geheim",
        "mysql://anna:geheim@127.0.0.1:1/studies",
        "pigeon://127.0.0.1/studies?password=geheim",
        "sqlite://anna:geheim@host/studies.db",
    ],
)
def test_a_storage_that_fails_hides_its_password_in_errors_and_tracebacks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    config = load_config(None, [f"lstm.hpo.storage={url}"])
    with pytest.raises(StudyError) as caught, studies.open_storage(config.lstm.hpo.storage, default=tmp_path / "x.db"):
        pass
    console.traceback(caught.value)
    console.error(caught.value.message, hint=caught.value.hint)
    for text in (stream.getvalue(), caught.value.message, caught.value.hint):
        assert "geheim" not in text
        assert "geh%65im" not in text


def test_the_name_of_a_storage_and_the_shown_configuration_have_no_password(tmp_path: Path) -> None:
    from sentiment_hybrid.commands import config as command

    url = f"sqlite:///{tmp_path}/studies.db?password=geheim"
    assert "geheim" not in command.show(load_config(None, [f"lstm.hpo.storage={url}"]))
    with studies.open_storage(f"sqlite:///{tmp_path}/studies.db", default=tmp_path) as storage:
        assert storage.shown == f"sqlite:///{tmp_path}/studies.db"


def test_an_invalid_setting_is_shown_without_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    from sentiment_hybrid.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        load_config(None, ["lstm.hpo.workers=postgresql://anna:geheim@host/x"])
    assert "geheim" not in str(caught.value.problems)
