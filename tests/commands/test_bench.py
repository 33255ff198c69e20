"""``senthy bench``: rates, limits and estimates of a config, of the user's texts or of the bundled ones."""

from __future__ import annotations

import json

import pytest

from sentiment_hybrid.commands import bench
from sentiment_hybrid.errors import EncoderError
from sentiment_hybrid.models.processor import computes_int8
from sentiment_hybrid.runtime import Runtime


def senthy(*arguments):
    from sentiment_hybrid.cli import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code or 0


def test_it_measures_every_work_and_estimates_train_and_optimize(project):
    before = sorted(project.folder.rglob("*"))
    result = bench.run(project.config(), "linear", seconds=0.02)
    precisions = {rate.precision for rate in result.rates if rate.work == "train"}
    assert "fp32" in precisions
    assert {(rate.work, rate.precision) for rate in result.rates} >= {
        (work, precision) for work in ("encode", "validate", "predict", "train") for precision in precisions
    }
    assert all(rate.tokens > rate.texts > 0 for rate in result.rates)
    with_int8 = {rate.precision for rate in result.rates if rate.work == "predict"}
    assert ("int8" in with_int8) == computes_int8()
    assert not result.missing
    assert [one.verb for one in result.estimates] == ["train", "optimize"]
    assert all(one.total_seconds > 0 for one in result.estimates)
    assert sorted(project.folder.rglob("*")) == before, "nothing is kept"


def test_without_a_database_it_takes_the_bundled_sample(make_project, tmp_path):
    project = make_project(prepare=False)
    result = bench.run(project.config(), "linear", seconds=0.02)
    assert result.texts == "sample"
    assert "bundled sample" in result.notes[0]
    assert not (project.folder / "data").exists()
    assert not (tmp_path / "home").exists()


def test_a_measurement_that_fails_is_reported_and_the_others_are_there(project, monkeypatch):
    from sentiment_hybrid.engine.training.probe import Probe

    def no_memory(self, precision):
        raise RuntimeError("can't allocate memory\nat all")

    monkeypatch.setattr(Probe, "prediction", no_memory)
    result = bench.run(project.config(), "linear", seconds=0.02)
    assert result.missing["prediction in fp32"] == "can't allocate memory"
    assert {rate.work for rate in result.rates} == {"encode", "validate", "train"}


def test_the_command_prints_a_table_and_with_json_one_document(project, capsys):
    common = ["bench", "--model", "linear", "--config", str(project.file), "--seconds", "0.05"]
    assert senthy(*common) == 0
    shown = capsys.readouterr().out
    for word in ("tokens/s", "predict", "optimize --model linear", "time of encoding"):
        assert word in shown
    assert senthy(*common, "--json", "-q") == 0
    document = json.loads(capsys.readouterr().out)
    assert {"rates", "estimates", "versions"} <= document.keys()
    assert document["estimates"][0]["seconds"]["encoding"] > 0
    assert document["estimates"][0]["counts"]["training: rows"] > 0


def test_an_encoder_that_is_not_there_is_reported(project):
    with pytest.raises(EncoderError):
        bench.run(project.config("encoder.name=nowhere/at-all"), "linear", runtime=Runtime(offline=True))
