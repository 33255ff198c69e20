"""`senthy info`: versions, machine, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sentiment_hybrid
from sentiment_hybrid import paths
from sentiment_hybrid.commands import info
from sentiment_hybrid.config.load import load_config


def test_it_tells_versions_device_and_places() -> None:
    facts = info.run(load_config(), config_file="my.yaml", device="cpu")
    assert facts["versions"]["senthy"] == sentiment_hybrid.__version__
    assert facts["versions"]["torch"][0].isdigit()
    assert facts["machine"]["device"].startswith("cpu")
    assert facts["machine"]["precision"] in ("fp32", "bf16")
    assert facts["machine"]["cores"] >= 1
    assert facts["files"]["config"] == "my.yaml"
    assert facts["files"]["database"].endswith("(does not exist yet)")
    json.dumps(facts)


def test_it_tells_what_is_published_and_how_much_the_cache_holds() -> None:
    config = load_config()
    paths.published_model(config.paths.models_dir, "han").mkdir(parents=True)
    states = paths.states_dir(paths.cache_dir(None)) / "x" / "part.bin"
    states.parent.mkdir(parents=True)
    states.write_bytes(b"0" * 2048)
    files = info.run(config, device="cpu")["files"]
    assert "(han)" in files["models"]
    assert files["token states"].endswith("(2.0 KiB)")


def test_a_device_that_is_not_there_is_reported_and_the_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    facts = info.run(load_config(), device="cuda")
    assert "no CUDA device" in facts["machine"]["device"]
    assert facts["files"]["shipped configs"]


def test_an_empty_folder_is_there(tmp_path: Path) -> None:
    assert info._place(tmp_path).endswith("(0 B)")
