"""Where a study is kept, what it is called, and what is reported when it cannot be."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import OutputError, StudyError
from sentiment_hybrid.tuning import study as studies

FACTS = {"data": "d1", "train_rows": 100, "valid_rows": 20, "encoder": "e1", "tokenizer": "t1"}


def opened(path: Path, url: str | None = None) -> Any:
    return studies.open_storage(url, default=path)


def make_config(**hpo: Any) -> Config:
    return Config.model_validate({"lstm": {"hpo": hpo}})


def identity(config: Config, **facts: Any) -> studies.StudyIdentity:
    return studies.identity(config, "lstm", {**FACTS, **facts})


# --- storage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "'not a url' is not a valid URL"),
        ("oracle//scott:tiger@host/db", "the storage is not a valid URL"),
        ("sqlite://results/study.db", "names a host, results"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("pigeon://loft/db", "unknown kind of storage: pigeon"),
        ("oracle://scott:tiger@host/db", "driver of oracle is not installed"),
    ],
)
def test_a_storage_that_cannot_be_is_reported_with_examples(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=words) as caught, opened(tmp_path / "x.db", url):
        pass
    assert caught.value.hint
    assert "tiger" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_server_that_cannot_be_reached_is_reported_without_the_password(scheme: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = f"{scheme}://anna:geheim@127.0.0.1:1/studies"
    with pytest.raises(StudyError) as caught, opened(tmp_path / "x.db", url):
        pass
    assert "127.0.0.1" in caught.value.message
    assert "geheim" not in caught.value.message + caught.value.hint
    assert "run the same command again" in caught.value.hint


def test_without_the_driver_the_message_has_the_command_to_install_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(StudyError, match="not installed") as caught, opened(tmp_path / "x.db", "postgresql://h/db"):
        pass
    assert 'pip install ".[postgres]"' in caught.value.hint


def test_a_second_process_on_an_sqlite_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with opened(path), pytest.raises(StudyError, match="another process") as caught, opened(path, f"sqlite:///{path}"):
        pass
    assert "--workers" in caught.value.hint
    assert "postgresql+psycopg://" in caught.value.hint
    with opened(path):  # free again
        pass


@pytest.mark.parametrize("content", [b"no database at all, but longer than a header of one", b""])
def test_a_file_that_is_no_database_is_reported_and_an_empty_one_is_used(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(content)
    if content:
        with pytest.raises(StudyError, match="is not an Optuna storage"), opened(path):
            pass
        assert path.read_bytes() == content
    else:
        with opened(path):
            pass


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tweets.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE examples (id INTEGER)")
    with pytest.raises(StudyError, match="other tables"), opened(path):
        pass
    with sqlite3.connect(path) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["examples"]


def test_a_storage_of_another_version_of_optuna_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(StudyError, match="a version of Optuna other than") as caught, opened(path):
        pass
    assert "optuna storage upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_params SET distribution_json = '{'",
        'UPDATE trial_params SET distribution_json = \'{"name": "FloatDistribution"}\'',
        "UPDATE trial_params SET distribution_json = '[]'",
        "UPDATE trials SET state = 'COMPLETF'",
        "UPDATE trials SET datetime_start = '2026-11-2x'",
        "DELETE FROM trial_values",
        "UPDATE trial_params SET distribution_json = CAST(x'7bff' AS TEXT)",
    ],
)
def test_damaged_values_of_a_storage_are_one_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with opened(path) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="x")
        study.optimize(lambda trial: trial.suggest_float("lr", 0.0, 1.0), n_trials=2)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    with pytest.raises(StudyError) as caught, opened(path):
        pass
    assert caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "trial_values SET value = value + 0.25",
        "trial_intermediate_values SET intermediate_value = 0.125 WHERE step = 1",
        "trial_params SET param_value = param_value / 2 WHERE param_name = 'lr'",
        "trial_params SET param_value = 1 - param_value WHERE param_name = 'cell'",
    ],
)
def test_changed_numbers_of_a_storage_are_noticed(damage: str | None, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with opened(path) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="x")
        trial = study.ask()
        trial.suggest_float("lr", 1e-6, 1.0, log=True)
        trial.suggest_int("hidden", 8, 64)
        trial.suggest_categorical("cell", ["lstm", "gru"])
        for epoch, score in enumerate([0.1, 0.7, 0.3], 1):
            trial.report(score, epoch)
        trial.set_user_attr(studies.CHECKSUM, studies.checksum(trial.params, [0.1, 0.7, 0.3]))
        study.tell(trial, 0.7)
    if damage is None:
        with opened(path) as storage:
            assert studies.best_of(studies.ended_trials(optuna.load_study(study_name="x", storage=storage.optuna)))
        return
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {damage}")
    with pytest.raises(StudyError, match="the checksum of trial 0 is wrong"), opened(path):
        pass


def test_a_folder_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot use the storage"), opened(tmp_path / "file" / "study.db"):
        pass


def test_a_storage_that_fails_midway_is_reported_and_names_what_to_do(tmp_path: Path) -> None:
    config = make_config()
    with pytest.raises(StudyError, match="cannot be used") as caught, opened(tmp_path / "study.db") as storage:
        study, _ = studies.open_study(storage, identity(config), config)
        with storage.optuna.engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE trials")
            connection.commit()
        study.ask()
    assert "Nothing is lost" in caught.value.hint


# --- study -----------------------------------------------------------------------------------------------------------


def test_the_same_search_is_the_same_study_however_many_trials_and_workers(tmp_path: Path) -> None:
    with opened(tmp_path / "study.db") as storage:
        names = set()
        for hpo in ({}, {"n_trials": 7}, {"timeout": 5}, {"workers": 3}, {"pruner": "none"}, {"sampler": "random"}):
            config = make_config(**hpo)
            names.add(studies.open_study(storage, identity(config), config)[0].study_name)
        assert len(names) == 1
        assert names.pop().startswith("senthy-lstm-")


@pytest.mark.parametrize(
    ("hpo", "more", "facts", "words"),
    [
        ({}, {}, {"data": "d2"}, "the data changed"),
        ({"search_space": {"layers": {"type": "int", "low": 1, "high": 2}}}, {}, {}, "the search space changed"),
        ({"epochs": 3}, {}, {}, "the epochs of a trial changed"),
        ({}, {"project": {"seed": 7}}, {}, "the seed changed"),
        ({}, {}, {"encoder": "e2"}, "the encoder changed"),
        ({}, {}, {"train_rows": 50}, "the number of training texts changed"),
        ({}, {"encoder": {"max_length": 64}}, {}, "fixed settings changed"),
    ],
)
def test_another_search_is_another_study_and_says_why(
    hpo: Any, more: Any, facts: Any, words: str, tmp_path: Path
) -> None:
    with opened(tmp_path / "study.db") as storage:
        before = make_config()
        old, told = studies.open_study(storage, identity(before), before)
        assert told == ""
        config = Config.model_validate({"lstm": {"hpo": hpo}, **more})
        new, told = studies.open_study(storage, identity(config, **facts), config)
        assert new.study_name != old.study_name
        assert words in told
        assert old.study_name in told
        again, told = studies.open_study(storage, identity(config, **facts), config)
        assert (again.study_name, told) == (new.study_name, "")


def test_a_named_study_goes_on_with_its_own_search_alone(tmp_path: Path) -> None:
    config = make_config(study_name="mine")
    with opened(tmp_path / "study.db") as storage:
        studies.open_study(storage, identity(config), config)
        assert studies.open_study(storage, identity(config), config)[0].study_name == "mine"
        with pytest.raises(StudyError, match="belongs to another search: the data changed") as caught:
            studies.open_study(storage, identity(config, data="d2"), config)
    assert "--study-name" in caught.value.hint


def test_a_named_study_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    config = make_config(study_name="theirs")
    with opened(tmp_path / "study.db") as storage:
        optuna.create_study(storage=storage.optuna, study_name="theirs").add_trial(optuna.create_trial(value=1.0))
        with pytest.raises(StudyError, match="not made by senthy"):
            studies.open_study(storage, identity(config), config)


def test_a_study_that_goes_on_with_other_draws_says_so_once(tmp_path: Path, monkeypatch: Any) -> None:
    def note(**hpo: Any) -> str:
        config = make_config(study_name="mine", **hpo)
        study, told = studies.open_study(storage, identity(config), config)
        studies.ask(study, {})
        return told

    with opened(tmp_path / "study.db") as storage:
        assert note() == note() == ""
        told = note(sampler="random")
        assert "tpe (n_startup_trials 10," in told
        assert f"further ones by random of Optuna {studies.optuna.__version__}" in told
        assert note(sampler="random") == ""
        monkeypatch.setattr(studies.optuna, "__version__", "6.0.0")
        assert "random of Optuna 6.0.0" in note(sampler="random")


def test_a_study_that_a_kill_left_without_its_facts_gets_them(tmp_path: Path) -> None:
    config = make_config()
    with opened(tmp_path / "study.db") as storage:
        name = studies.open_study(storage, identity(config), config)[0].study_name
        optuna.delete_study(study_name=name, storage=storage.optuna)
        optuna.create_study(storage=storage.optuna, study_name=name, direction="maximize")
        study, _ = studies.open_study(storage, identity(config), config)
        assert study.user_attrs["fingerprint"] == identity(config).fingerprint


def test_importances_sum_to_one_and_there_are_none_of_too_few_trials(tmp_path: Path) -> None:
    config = make_config()
    space = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in ("x", "y")}
    space["fixed"] = optuna.distributions.CategoricalDistribution(("one",))
    with opened(tmp_path / "study.db") as storage:
        study, _ = studies.open_study(storage, identity(config), config)
        study.add_trial(
            optuna.create_trial(params={"x": 0.1, "y": 0.5, "fixed": "one"}, distributions=space, value=0.1)
        )
        assert studies.importances(study) is None
        for step in range(12):
            params = {"x": step / 12, "y": (7 * step % 12) / 12, "fixed": "one"}
            study.add_trial(optuna.create_trial(params=params, distributions=space, value=params["x"]))
        found = studies.importances(study)
    assert found is not None
    assert set(found) == {"x", "y"}
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["x"] > found["y"]
