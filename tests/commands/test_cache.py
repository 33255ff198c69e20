"""`senthy cache`: what is kept, whether it is whole, and clearing it while others use it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from sentiment_hybrid import cli, console, paths
from sentiment_hybrid.commands import cache
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.evaluation import baseline
from sentiment_hybrid.engine.states import shards
from sentiment_hybrid.errors import UsageError
from sentiment_hybrid.files import size_of
from sentiment_hybrid.runtime import Runtime

from .conftest import Project

ENCODER = shards.StoreIdentity("e" * 64, None, "fp32", 4)
PARTLY = shards.StoreIdentity("e" * 64, 1, "bf16", 4)
DAY = 86_400


def stored(identity: shards.StoreIdentity, *, windows: int = 3, seed: int = 0) -> Path:
    """A store with one shard of real files."""
    store = paths.states_dir(paths.cache_dir(None)) / identity.folder_name
    random = np.random.default_rng(seed)
    keys = np.frombuffer(random.bytes(16 * windows), dtype="S16")
    lengths = np.arange(1, windows + 1)
    states = random.normal(size=(int(lengths.sum()), identity.hidden_size)).astype(np.float16)
    with shards.new_shard(store, identity, keys=keys, lengths=lengths, part=0) as append:
        append(states)
    shards.describe(store, identity, encoder="roberta-tiny")
    return store


def fitted() -> Path:
    """A baseline that is kept."""
    folder = paths.baselines_dir(paths.cache_dir(None))
    texts, labels = ["good day", "bad day"] * 4, [1, 0] * 4
    baseline.fit_and_keep(texts, labels, num_classes=2, folder=folder, fingerprint="f")
    return next(folder.iterdir())


def prepared(project: Project) -> Path:
    """The texts of a fine-tuning: a real database."""
    path = paths.finetune_db(paths.cache_dir(None), "0123456789abcdef")
    path.parent.mkdir(parents=True)
    path.write_bytes(project.config().paths.data_db.read_bytes())
    return path


def age(path: Path, days: float) -> None:
    past = path.stat().st_mtime - days * DAY
    os.utime(path, (past, past))


def clear(*kinds: str, **options: Any) -> cache.Cleared:
    return cache.clear(Config(), kinds, **{"confirm": lambda found: True, **options})


def test_an_empty_cache_is_reported() -> None:
    told = cache.info(Config())
    assert (told.entries, told.states_bytes, told.max_gb) == ((), 0, 50.0)
    assert clear(*cache.KINDS) == cache.Cleared((), 0, ())


def test_it_tells_what_is_kept_and_what_counts_against_the_budget(project: Project) -> None:
    stores = {stored(ENCODER), stored(PARTLY, windows=5)}
    kept_baseline, texts = fitted(), prepared(project)
    told = cache.info(load_config(None, ["cache.max_gb=3"]))
    by_path = {entry.path: entry for entry in told.entries}
    assert set(by_path) == {*stores, kept_baseline, texts}
    assert told.states_bytes == sum(by_path[store].bytes for store in stores)
    document = told.to_dict()
    assert (document["max_gb"], document["states_gb"]) == (3.0, told.states_bytes / 1e9)
    partly = next(entry for entry in document["states"] if entry["layer"] == 1)
    assert (partly["encoder"], partly["precision"], partly["windows"], partly["tokens"]) == (
        *("roberta-tiny", "bf16"),
        *(5, 15),
    )
    (of_texts,) = document["finetune"]
    assert of_texts["rows"] == 240
    assert of_texts["source"].endswith("texts.csv")
    assert document["problems"] == []


def test_what_training_stored_is_reported_with_its_encoder(project: Project) -> None:
    from sentiment_hybrid.commands import train

    for layers in (0, 1):
        config = project.config(f"encoder.trainable_layers={layers}", "linear.train.epochs=1")
        train.run(config, "linear", runtime=Runtime(device="cpu"), test=False)
    told = cache.info(project.config())
    frozen, partly = sorted((entry for entry in told.entries if entry.kind == "states"), key=lambda one: str(one.path))[
        ::-1
    ]
    assert {frozen.facts["layer"], partly.facts["layer"]} == {None, 1}
    assert frozen.facts["encoder"] == partly.facts["encoder"] == config.encoder.name
    assert frozen.facts["windows"] == partly.facts["windows"] > 100


def test_verify_finds_a_wrong_byte_and_names_its_shard(capsys: pytest.CaptureFixture[str]) -> None:
    store = stored(ENCODER)
    (shard,) = store.glob("shard-*")
    content = bytearray((shard / "states.npy").read_bytes())
    content[-20] ^= 1
    (shard / "states.npy").write_bytes(content)
    assert cache.info(Config()).problems == ()
    (problem,) = cache.info(Config(), verify=True).problems
    assert problem == f"{shard}: the checksum of states.npy is wrong"
    assert senthy("cache", "info", "--verify") == 1
    assert f"warning: {problem}" in capsys.readouterr().err


def test_verify_says_so_when_all_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    stored(ENCODER)
    assert senthy("cache", "info", "--verify") == 0
    assert "verified: all checksums are correct" in capsys.readouterr().out
    assert senthy("cache", "info") == 0
    assert "verified" not in capsys.readouterr().out
    assert cache.info(Config(), verify=True).to_dict()["verified"] is True


def test_a_store_of_another_version_is_reported_without_verify() -> None:
    store = stored(ENCODER)
    (shard,) = store.glob("shard-*")
    (shard / "shard.json").write_text('{"format": 1, "tokens": 3, "windows": 1}')
    (problem,) = cache.info(Config()).problems
    assert "it has format 1" in problem


def test_clearing_removes_the_kinds_that_are_named_and_says_what_that_freed(project: Project) -> None:
    store, kept_baseline, texts = stored(ENCODER), fitted(), prepared(project)
    size = size_of(store)
    cleared = clear("states")
    assert ([entry.path for entry in cleared.removed], cleared.bytes, cleared.kept) == ([store], size, ())
    assert [size_of(store), kept_baseline.exists(), texts.exists()] == [0, True, True]
    assert clear("baselines", "finetune").bytes > 0
    assert cache.info(Config()).entries == ()


def test_clearing_by_age_goes_by_the_last_use(project: Project) -> None:
    old, new, kept_baseline, texts = stored(ENCODER), stored(PARTLY), fitted(), prepared(project)
    for path in (old / "store.json", kept_baseline / "baseline.json", texts):
        age(path, 31)
    assert baseline.load(kept_baseline.parent, "f", num_classes=2) is not None  # a use
    cleared = clear(*cache.KINDS, older_than=30)
    assert {entry.path for entry in cleared.removed} == {old, texts}
    assert new.exists()
    assert kept_baseline.exists()


def test_using_a_store_is_a_use(project: Project) -> None:
    from sentiment_hybrid.commands import train

    config = project.config("linear.train.epochs=1")
    train.run(config, "linear", runtime=Runtime(device="cpu"), test=False)
    (store,) = paths.states_dir(paths.cache_dir(config.paths.cache_dir)).iterdir()
    age(store / "store.json", 31)
    train.run(config, "linear", runtime=Runtime(device="cpu"), test=False)
    assert cache.clear(config, ["states"], older_than=30, confirm=lambda found: True).removed == ()


def test_nothing_goes_that_was_not_confirmed() -> None:
    store = stored(ENCODER)
    shown: list[cache.Entry] = []
    assert clear("states", confirm=lambda found: bool(shown.extend(found))) == cache.Cleared((), 0, ())
    assert [entry.path for entry in shown] == [store]
    assert store.exists()


def test_a_store_that_is_being_filled_is_kept_and_reported() -> None:
    store, other = stored(ENCODER), stored(PARTLY)
    with shards.locked(store, [5]):
        cleared = in_another_thread(lambda: clear("states"))
    assert [entry.path for entry in cleared.removed] == [other]
    assert cleared.kept == ((store, "it is being written"),)
    assert shards.Shard.read(next(store.glob("shard-*"))).checked()


def in_another_thread(work: Callable[[], Any]) -> Any:
    """A lock is of the one who holds it; another process, or here thread, must wait."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join()
    return result[0]


def test_what_is_in_memory_outlives_clearing() -> None:
    store = stored(ENCODER)
    shard = shards.Shard.read(next(store.glob("shard-*")))
    states = shard.states()
    before = states.copy()
    if os.name == "posix":  # elsewhere a file in use stays, and is told
        assert clear("states").kept == ()
        assert size_of(store) == 0
    assert np.array_equal(states, before)


def test_leftovers_of_killed_runs_go_too() -> None:
    store = stored(ENCODER)
    leftover = store / ".03-dead.partial"
    leftover.mkdir()
    (leftover / "states.npy").write_bytes(b"half")
    clear("states")
    assert not leftover.exists()
    assert cache.info(Config()).entries == ()


def test_what_killed_processes_left_of_files_and_runs_is_shown_and_cleared(tmp_path: Path) -> None:
    config = load_config(None, [f"paths.{name}={tmp_path / name}" for name in ("models_dir", "results_dir")])
    run = paths.runs_dir(config.paths.results_dir) / "han-dead"
    busy, epochs = run.with_name("han-busy"), run.with_name("han-epochs")
    for folder in (run, busy, epochs):
        folder.mkdir(parents=True)
        (folder / paths.RUN_CONFIG).touch()
    (epochs / paths.RUN_METRICS).touch()
    old = config.paths.models_dir / ".final.old"
    for folder in (old, config.paths.models_dir / "final", config.paths.models_dir / ".only.old"):
        folder.mkdir(parents=True)
    with FileLock(busy / paths.RUN_LOCK):
        assert [entry.path for entry in cache.info(config).entries] == [old, run]
        cleared = cache.clear(config, ["leftovers"], confirm=lambda found: True)
    assert [entry.path for entry in cleared.removed] == [old, run]
    assert not old.exists()
    assert not run.exists()


# --- on the command line


def senthy(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_info_prints_tables_that_fit_or_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    store = stored(PARTLY)
    assert senthy("cache", "info") == 0
    out = capsys.readouterr().out
    assert "roberta-tiny" in out
    assert store.name in out
    assert "of 50 GB (cache.max_gb)" in out
    assert max(map(len, out.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(console, "_consoles", {})  # they have measured the terminal
    assert senthy("cache", "info") == 0
    out = capsys.readouterr().out
    assert store.name in out.replace("\n", "").replace(" ", "")
    assert max(len(line.rstrip()) for line in out.splitlines() if not line.startswith("cache: ")) <= 80
    assert senthy("cache", "info", "--json", "--set", "cache.max_gb=null") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["max_gb"] is None
    assert document["states"][0]["path"] == str(store)


def test_clear_asks_first_and_says_what_it_freed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(ENCODER)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    assert senthy("cache", "clear", "--states") == 2
    assert "--yes" in capsys.readouterr().err
    assert store.exists()
    assert senthy("cache", "clear", "--states", "--yes", "--older-than", "30") == 0
    assert "nothing was removed" in capsys.readouterr().out
    assert senthy("cache", "clear", "--all", "--yes") == 0
    assert f"removed {store}" in capsys.readouterr().out
    assert cache.info(Config()).entries == ()


def test_clear_without_a_kind_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="nothing to clear"):
        clear()
    assert senthy("cache", "clear", "--yes") == 2
    assert "--finetune" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "true", "lots"])
def test_a_budget_that_makes_no_sense_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert senthy("cache", "info", "--set", f"cache.max_gb={value}") == 2
    assert "cache.max_gb" in capsys.readouterr().err


def test_it_needs_no_torch() -> None:
    stored(ENCODER)
    code = (
        "import sys; from sentiment_hybrid.commands import cache; from sentiment_hybrid.config.schema import Config; "
    )
    code += "assert cache.info(Config(), verify=True).entries; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
