"""The schema: frozen, documented, bounded, and the same models everywhere."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sentiment_hybrid.config.describe import json_schema, section_of
from sentiment_hybrid.config.describe import settings as all_settings
from sentiment_hybrid.config.schema import MODEL_NAMES, Config, ConfigFile
from sentiment_hybrid.heads import HEADS


def fields(section: type[BaseModel] = ConfigFile, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from fields(inner, f"{prefix}{name}.")


def test_defaults_are_valid_and_equal_those_that_are_read_back() -> None:
    assert ConfigFile.model_validate(ConfigFile().model_dump()) == ConfigFile()
    assert Config.model_validate(Config().model_dump(mode="json")) == Config()


def test_every_setting_says_what_it_means() -> None:
    for setting in all_settings():
        assert setting.meaning.endswith((".", "}")) or setting.meaning, setting.key
        assert setting.allowed
        assert "<class" not in setting.allowed
        assert "[" not in setting.allowed


def test_every_number_is_bounded() -> None:
    for key, field in fields():
        if field.annotation not in (int, float):
            continue
        kinds = {type(item) for item in field.metadata}
        assert kinds & {Ge, Gt}, key
        assert kinds & {Le, Lt}, key


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().project.seed = 3  # type: ignore[misc]


def test_every_registered_head_has_a_section_and_a_name() -> None:
    assert set(MODEL_NAMES) == set(HEADS) == set(HEADS)
    for name in MODEL_NAMES:
        section = Config().model(name)
        assert set(type(section).model_fields) == {"head", "train", "hpo"}
        assert set(section.hpo.search_space) <= section.hpo.tunable().keys()
        assert set(type(section.head).model_fields) <= section.hpo.tunable().keys()
    with pytest.raises(KeyError):
        Config().model("svm")


def test_a_tilde_in_a_path_is_the_home_directory() -> None:
    names = ("data_db", "models_dir", "results_dir", "cache_dir")
    section = Config.model_validate({"paths": dict.fromkeys(names, "~/somewhere")}).paths
    assert {getattr(section, name) for name in names} == {Path.home() / "somewhere"}


def test_the_json_schema_is_json_and_knows_every_section() -> None:
    document = json.loads(json.dumps(json_schema()))
    assert set(document["properties"]) == set(ConfigFile.model_fields)
    assert document["additionalProperties"] is False


def test_fine_tuning_must_leave_rows_to_train_on() -> None:
    with pytest.raises(ValidationError, match="must leave at least 5 %"):
        Config.model_validate({"finetune": {"valid_size": 0.5, "test_size": 0.5}})


def test_a_config_reaches_other_processes_as_it_is():
    config = Config.model_validate({"lstm": {"head": {"hidden": 8}}, "han": {"hpo": {"n_trials": 3}}})
    assert pickle.loads(pickle.dumps(config)) == config
