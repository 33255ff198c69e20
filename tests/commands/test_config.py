"""`senthy config`: show, check, init, schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentiment_hybrid import paths
from sentiment_hybrid.commands import config
from sentiment_hybrid.config import describe
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import ConfigError, OutputError


def test_what_show_prints_loads_to_the_same_config(tmp_path: Path) -> None:
    shown = load_config("quickstart", ["lstm.train.epochs=3"])
    file = tmp_path / "shown.yaml"
    file.write_text(config.show(shown), encoding="utf-8")
    assert load_config(file) == shown


def test_check_says_ok_or_raises_with_every_problem(tmp_path: Path) -> None:
    assert config.check(None) == "defaults: valid"
    assert config.check("predecessor").endswith("predecessor.yaml: valid")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: 1\nb: 2\n")
    with pytest.raises(ConfigError) as caught:
        config.check(str(bad))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("name", paths.shipped_configs())
def test_init_writes_the_comments_too(tmp_path: Path, name: str) -> None:
    written = config.init(tmp_path / "deep" / "my.yaml", name=name)
    assert written.read_bytes() == paths.shipped_configs()[name].read_bytes()
    assert load_config(written) == load_config(name)


def test_init_into_a_folder_writes_senthy_yaml(tmp_path: Path) -> None:
    assert config.init(tmp_path) == tmp_path / "senthy.yaml"
    assert load_config(tmp_path / "senthy.yaml") == Config()


def test_init_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "senthy.yaml"
    file.write_text("mine\n")
    with pytest.raises(OutputError, match="already exists") as caught:
        config.init(file)
    assert "--force" in caught.value.hint
    assert file.read_text() == "mine\n"
    config.init(file, force=True)
    assert load_config(file) == Config()


def test_init_knows_only_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mine'"):
        config.init(tmp_path / "x.yaml", name="mine")


def test_init_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        config.init(tmp_path / "file" / "senthy.yaml")


def test_schema_lists_every_setting_of_the_default_yaml() -> None:
    listed = {setting.key: setting for setting in describe.listed()}
    assert listed["train.learning_rate"].default == "0.001"
    assert "lstm.train.learning_rate" not in listed
    assert listed["lstm.hpo.search_space"].default.endswith("attention_heads")
    assert listed["data.label_map"].default == "null"
    assert listed["encoder.trainable_layers"].allowed == "a whole number from 0 to 1,000, or all"
    assert set(describe.json_schema()["properties"]) == {key.split(".")[0] for key in listed}


def test_the_documentation_of_the_settings_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == describe.markdown(), "run: senthy config schema --markdown"
