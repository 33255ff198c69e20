"""`senthy fetch`: brings what is needed, or says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid.commands import fetch
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.errors import DataError, SourceError, UsageError


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A hub, a Kaggle and an nltk without a network; tells what was asked of them."""
    import huggingface_hub

    asked: dict[str, Any] = {}
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").touch()

    def snapshot(name: str, **options: Any) -> str:
        asked["encoder"] = (name, options)
        return str(folder)

    def open_source(spec: str, data: Any, *, offline: bool) -> Any:
        asked.setdefault("data", []).append((spec, offline))
        if spec.startswith("kaggle") and offline:
            raise SourceError("offline", hint="fetch")
        return type("Found", (), {"name": spec})()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(fetch, "open_source", open_source)
    monkeypatch.setattr(normalizers, "prepare_nltk", lambda cache, offline: asked.update(nltk=(cache, offline)))
    return asked


def test_it_brings_all_that_the_config_needs(network: dict[str, Any]) -> None:
    config = load_config(None, ["data.normalizer=classic", "encoder.revision=abc"])
    result = fetch.run(config)
    assert [part.what for part in result.parts] == ["encoder", "data", "nltk"]
    assert result.missing == ()
    name, options = network["encoder"]
    assert (name, options["revision"], options["local_files_only"]) == ("roberta-base", "abc", False)
    assert network["data"] == [("kaggle:zphudzz/tweets-clean-posneg-v1", False)]
    assert network["nltk"][1] is False


def test_it_never_brings_a_pickle(network: dict[str, Any], tmp_path: Path) -> None:
    fetch.run(load_config(), what=["encoder"])
    patterns = network["encoder"][1]["allow_patterns"]
    for pickle in ("pytorch_model.bin", "model.pkl", "model.pt", "tf_model.h5", "flax_model.msgpack", "model.ckpt"):
        assert not any(Path(pickle).match(pattern) for pattern in patterns)
    (tmp_path / "snapshot" / "model.safetensors").unlink()
    missing = fetch.run(load_config(), what=["encoder"]).missing
    assert "no safetensors" in missing[0].problem


def test_what_is_not_needed_is_not_asked_for(network: dict[str, Any]) -> None:
    result = fetch.run(load_config("quickstart"))
    assert [(part.what, part.state) for part in result.parts] == [
        ("encoder", "available"),
        ("data", "available"),
        ("nltk", "not needed"),
    ]
    assert "encoder" not in network
    assert "nltk" not in network


def test_nltk_comes_when_asked_for_by_name(network: dict[str, Any]) -> None:
    fetch.run(load_config(), what=["nltk"])
    assert list(network) == ["nltk"]


def test_offline_only_looks_and_one_failure_does_not_hide_the_others(
    network: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_nltk(cache: Path, offline: bool) -> None:
        raise DataError("no nltk", hint="get it")

    monkeypatch.setattr(normalizers, "prepare_nltk", no_nltk)
    result = fetch.run(load_config(None, ["data.normalizer=classic"]), offline=True)
    assert network["encoder"][1]["local_files_only"] is True
    assert [(part.what, part.state) for part in result.parts] == [
        ("encoder", "available"),
        ("data", "missing"),
        ("nltk", "missing"),
    ]
    assert result.missing[1].problem == "no nltk. get it"


def test_an_encoder_that_is_not_in_the_cache_is_missing_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = load_config(None, ["encoder.name=someone/some-encoder"])
    (part,) = fetch.run(config, what=["encoder"], offline=True).parts
    assert part.state == "missing"
    assert "someone/some-encoder" in part.problem
    assert "encoder.name" in part.problem


def test_a_local_encoder_and_a_name_that_is_none(tmp_path: Path) -> None:
    here = load_config(None, [], flags={"encoder.name": str(tmp_path)})
    assert fetch.run(here, what=["encoder"], offline=True).parts[0].state == "available"
    nowhere = load_config(None, [], flags={"encoder.name": "a/b/c"})
    missing = fetch.run(nowhere, what=["encoder"], offline=True).missing
    assert "neither a directory nor a valid hub name" in missing[0].problem


def test_official_splits_are_all_brought(network: dict[str, Any]) -> None:
    flags = {"data.train_source": "a.csv", "data.test_source": "kaggle:x/y"}
    fetch.run(load_config(None, flags=flags), what=["data"])
    assert network["data"] == [("a.csv", False), ("kaggle:x/y", False)]


def test_an_unknown_thing_to_fetch_is_reported() -> None:
    with pytest.raises(UsageError, match="encodr"):
        fetch.run(load_config(), what=["encodr"])
