"""`senthy models`: every trained model keeps its own folder, and publishing loses none."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sentiment_hybrid import cli, files, paths
from sentiment_hybrid.commands import models
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.inference.kept_models import NEEDED, own_folder, publishing
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, read_info
from sentiment_hybrid.errors import OutputError, UsageError

from ..conftest import model_info

ENCODER: Any = SimpleNamespace(name="e", revision=None, fingerprint="f", model=SimpleNamespace(config=None))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Models and results in ``tmp_path``."""
    return load_config(None, [f"paths.models_dir={tmp_path / 'models'}", f"paths.results_dir={tmp_path / 'results'}"])


def write(folder: Path, info: ModelInfo) -> Path:
    """A model directory as far as it is looked at here."""
    folder.mkdir(parents=True)
    files.write_json(folder / paths.MODEL_JSON, asdict(info))
    (folder / paths.MODEL_WEIGHTS).write_text(info.run_id, encoding="utf-8")
    return folder


def trained(config: Config, number: int, macro_f1: float | None = None, **changes: Any) -> str:
    """Save a han in its own folder and publish it, as a training does; its ID."""
    facts = {"run_id": f"han-{number:02d}", "created": f"2026-01-{number:02d}", **changes}
    info = model_info(ENCODER, "han", valid={} if macro_f1 is None else {"macro_f1": macro_f1}, **facts)
    with publishing(config) as put:
        put(write(own_folder(config, info), info), public(config))
    return own_folder(config, info).name


def public(config: Config) -> Path:
    return paths.published_model(config.paths.models_dir, "han")


def listed(config: Config) -> dict[str, bool]:
    """ID -> whether it is published."""
    return {entry.model.id: entry.model.published is not None for entry in models.run(config)}


def test_a_later_model_replaces_the_published_one_and_the_earlier_one_can_be_published_again(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    better, worse = trained(config, 1, 0.8), trained(config, 2, 0.6)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "was han-01 (valid macro-F1 80.00 %) and is now han-02 (valid macro-F1 60.00 %)" in said
    assert f"senthy models publish {better}" in said
    assert listed(config) == {better: False, worse: True}
    models.publish(config, better)
    assert listed(config) == {better: True, worse: False}
    assert read_info(public(config)).run_id == better
    assert public(config).is_dir()
    assert not public(config).is_symlink()


def test_the_oldest_go_but_not_the_best_the_named_the_published_or_those_still_needed(config: Config) -> None:
    config = config.model_copy(update={"models": config.models.model_copy(update={"keep": 2})})
    best = trained(config, 1, 0.9)
    other_data = trained(config, 2, 0.5, split_fingerprint="other")
    named = trained(config, 3, 0.1, name="mine", run_id="mine-3")
    meta = paths.runs_dir(config.paths.results_dir) / "han-04" / paths.RUN_META
    meta.parent.mkdir(parents=True)
    files.write_json(meta, {"finished": "today", NEEDED: True})
    needed = trained(config, 4, 0.1)
    kept = [trained(config, number, 0.2) for number in range(5, 10)][2:]
    assert list(listed(config)) == [best, other_data, named, needed, *kept]


def test_without_a_limit_all_stay(config: Config) -> None:
    config = config.model_copy(update={"models": config.models.model_copy(update={"keep": None})})
    made = [trained(config, number) for number in range(1, 8)]
    assert list(listed(config)) == made


def test_a_model_that_an_earlier_version_published_keeps_a_folder_too(config: Config) -> None:
    write(public(config), model_info(ENCODER, "han", run_id="han-old", created="2025"))
    assert listed(config) == {"han-old": True}
    new = trained(config, 1)
    assert listed(config) == {"han-old": False, new: True}


def test_heads_that_were_trained_together_are_told_apart(config: Config) -> None:
    found = [own_folder(config, model_info(ENCODER, head, run_id="joint-1")).name for head in ("lstm", "han")]
    assert found == ["joint-1-lstm", "joint-1-han"]
    hostile = own_folder(config, model_info(ENCODER, "han", run_id="../../x"))
    assert hostile.parent == paths.kept_models(config.paths.models_dir)


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
@pytest.mark.parametrize("moment", range(1, 4))
def test_killed_at_any_rename_of_publishing_nothing_is_lost(
    config: Config, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    write(public(config), model_info(ENCODER, "han", run_id="han-old", created="2025"))
    if (pid := os.fork()) == 0:
        real, left = Path.rename, [moment]

        def stop(self: Path, target: Path) -> Path:
            left[0] -= 1
            if not left[0]:
                os._exit(9)
            return real(self, target)

        monkeypatch.setattr(Path, "rename", stop)
        trained(config, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert "han-old" in listed(config)
    assert read_info(public(config)).run_id == "han-old"
    assert models.publish(config, "han-01").id == "han-01"
    assert listed(config) == {"han-old": False, "han-01": True}


def test_trainings_that_end_together_all_keep_their_models(config: Config) -> None:
    threads = [threading.Thread(target=trained, args=(config, number)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(listed(config).values()) == [False, False, False, True]


def test_removing_takes_a_whole_id_and_spares_the_published_model(config: Config) -> None:
    first, second = trained(config, 1), trained(config, 2)
    with pytest.raises(UsageError, match="is published"):
        models.remove(config, second)
    named = trained(config, 3, run_id="mine-3", name="mine")
    models.publish(config, second)
    with pytest.raises(UsageError, match="mine is not a complete ID"):
        models.remove(config, "mine")
    with pytest.raises(UsageError, match="2 models match han-0"):
        models.remove(config, "han-0")
    models.remove(config, first)
    assert listed(config) == {second: True, named: False}
    with pytest.raises(UsageError, match="no models match nothing"):
        models.publish(config, "nothing")


def test_a_disk_that_is_full_keeps_what_is_published(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(config, 1)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sentiment_hybrid.engine.inference.model_directory.link_or_copy", full)
    with pytest.raises(OutputError, match="the disk is full"):
        trained(config, 2)
    assert listed(config) == {first: True, "han-02": False}


def test_the_list_fits_80_columns_and_says_what_there_is(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = [f"--set=paths.{name}={getattr(config.paths, name)}" for name in ("models_dir", "results_dir")]

    def senthy(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, *options])
        assert stop.value.code == 0
        return capsys.readouterr().out

    assert "no trained models" in senthy("models", "list")
    trained(config, 1, 0.8125, run_id="han-20261129-061020-a1b2c3", data="reviews.csv")
    shown = senthy("models", "list")
    assert "han-20261129-061020-a1b2c3" in shown
    assert "81.25" in shown
    assert "2026-01-01" in shown
    assert max(map(len, shown.splitlines())) <= 80
    long = trained(config, 2, 0.8125, run_id="han-finetune-20261129-061020-a1b2c3", data="reviews-of-a-long-year.csv")
    shown = senthy("models", "list")
    assert f"{long} *" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "published han-20261129-061020-a1b2c3" in senthy("models", "publish", "han-20261129")
