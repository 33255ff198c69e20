"""The state store: one pass per distinct window ever, exact, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid import files
from sentiment_hybrid.engine.batches import collate
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.states import shards, store
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.files import size_of

from ..conftest import toy_texts

TEXTS = ["good day", "bad day", "good day", "so it was a long long day and then the night " * 3, "x"]
LABELS = np.array([1, 0, 1, 0, 1])


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_each_distinct_window_passes_the_frozen_layers_once_over_heads_and_calls(make_session, trainable_layers):
    first = make_session("lstm", trainable_layers=trainable_layers)
    tokenized = first.tokenize(TEXTS)
    keys = {
        tokenized.ids[a:b].tobytes()
        for a, b in zip(tokenized.window_offsets[:-1], tokenized.window_offsets[1:], strict=True)
    }
    first.dataset(TEXTS, LABELS)
    assert first.states.passes == len(keys) < len(tokenized.window_lengths)
    first.dataset(TEXTS, LABELS)
    assert first.states.passes == len(keys)
    second = make_session("han", trainable_layers=trainable_layers)
    second.dataset([*TEXTS, "one more text"], np.append(LABELS, 1))
    assert second.states.passes == 1


def test_each_level_of_freezing_has_a_store_of_its_own_and_an_encoder_of_trained_layers_none(make_session):
    frozen, partly = (make_session("lstm", trainable_layers=layers) for layers in (0, 1))
    assert frozen.states.folder.name.endswith("-last-fp32")
    assert partly.states.folder.name.endswith("-layer1-fp32")
    for layers in (2, "all"):
        assert make_session("lstm", trainable_layers=layers).states is None


@pytest.mark.parametrize("trainable_layers", [0, 1, 2, "all"])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.processor(needs="bf16"))])
def test_stored_states_give_what_the_live_encoder_gives(make_session, trainable_layers, precision):
    session = make_session("lstm", trainable_layers=trainable_layers, precision=precision)
    dataset = session.dataset(TEXTS, LABELS)
    assert (dataset.states is None) == (trainable_layers in (2, "all"))
    options = {"compute": session.compute, "token_budget": 200}
    live = predict_probabilities(session.classifier, dataset.tokenized, **options)
    stored = predict_probabilities(session.classifier, dataset.tokenized, states=dataset.states, **options)
    # float16 keeps 11 bits, bfloat16 8, and a batch of another shape rounds otherwise.
    np.testing.assert_allclose(stored, live, atol=2e-3 if precision == "fp32" else 1e-2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=10))
def test_gathered_states_are_those_of_each_window_and_zero_on_padding(rows):
    dataset, live = _material_and_live_states()
    batch = collate(dataset.tokenized, np.array(rows), dataset.states)
    windows, _ = dataset.tokenized.windows_of(np.array(rows))
    for place, window in enumerate(windows):
        length = int(dataset.tokenized.window_lengths[window])
        np.testing.assert_allclose(batch.states[place, :length].numpy(), live[window], atol=5e-3)
        assert (batch.states[place, length:] == 0).all()


_KEPT: dict[str, object] = {}


@pytest.fixture(autouse=True)
def kept_material(make_session, request):
    if "gathered" in request.node.name:
        session = make_session("lstm")
        dataset = session.dataset(TEXTS, LABELS)
        live = []
        for window in range(len(dataset.tokenized.window_lengths)):
            ids = dataset.tokenized.ids[
                dataset.tokenized.window_offsets[window] : dataset.tokenized.window_offsets[window + 1]
            ]
            with torch.no_grad():
                states = session.classifier.encoder(
                    torch.from_numpy(ids.astype(np.int64))[None], torch.ones(1, len(ids), dtype=torch.bool)
                )
            live.append(states[0].numpy())
        _KEPT["material"] = (dataset, live)


def _material_and_live_states():
    return _KEPT["material"]


@pytest.mark.processor(needs="bf16")
def test_another_encoder_or_precision_has_states_of_its_own(make_session):
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    other = make_session("lstm", precision="bf16")
    other.dataset(TEXTS, LABELS)
    assert other.states.passes > 0
    assert other.states.folder != session.states.folder


def flip_a_byte(shard):
    with (shard / "states.npy").open("rb+") as file:
        file.seek(300)
        byte = file.read(1)[0]
        file.seek(300)
        file.write(bytes([byte ^ 16]))


def of_another_encoder(shard):
    facts = json.loads((shard / "shard.json").read_text())
    (shard / "shard.json").write_text(json.dumps({**facts, "fingerprint": "f" * 64}))


def of_another_version(shard):
    (shard / "shard.json").write_text('{"format": 1, "tokens": 3, "windows": 1}')


DAMAGES = {
    "cut short": lambda shard: os.truncate(shard / "states.npy", (shard / "states.npy").stat().st_size // 2),
    "longer": lambda shard: (shard / "states.npy").open("ab").write(b"more"),
    "a wrong byte": flip_a_byte,
    "a file missing": lambda shard: (shard / "keys.npy").unlink(),
    "no facts": lambda shard: (shard / "shard.json").unlink(),
    "broken facts": lambda shard: (shard / "shard.json").write_text('{"format": 2, "tokens"'),
    "facts of another kind": lambda shard: (shard / "shard.json").write_text("[]"),
    "of another version": of_another_version,
    "of another encoder": of_another_encoder,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_stale_shard_is_named_and_computed_again(make_session, caplog, damage):
    session = make_session("lstm")
    expected = session.dataset(TEXTS, LABELS)
    batch = collate(expected.tokenized, np.arange(5), expected.states).states.clone()
    shard = next(session.states.folder.glob("shard-*"))
    del expected
    DAMAGES[damage](shard)
    again = make_session("lstm")
    dataset = again.dataset(TEXTS, LABELS)
    assert again.states.passes == len(np.unique(store.window_keys(dataset.tokenized)))
    assert torch.equal(collate(dataset.tokenized, np.arange(5), dataset.states).states, batch)
    assert not shard.exists()
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{shard} is not used but computed again" in told.getMessage()


def test_a_damaged_shard_that_may_not_be_removed_is_named_once_and_never_used(make_session, monkeypatch, caplog):
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    shard = next(session.states.folder.glob("shard-*"))
    flip_a_byte(shard)
    monkeypatch.setattr(shards, "remove", lambda folder: None)
    again = make_session("han")
    for _ in range(2):
        dataset = again.dataset(TEXTS, LABELS)
        assert torch.isfinite(collate(dataset.tokenized, np.arange(5), dataset.states).states).all()
    assert again.states.passes == session.states.passes
    assert [str(shard) in record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [True]


def test_only_shards_that_are_asked_for_are_read_through(make_session):
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    shard = next(session.states.folder.glob("shard-*"))
    flip_a_byte(shard)
    session.dataset(["some other text"], np.array([1]))
    assert shard.exists()


def test_filling_in_many_shards_reads_back_the_same(make_session, monkeypatch):
    texts, labels = toy_texts(40)
    whole = make_session("lstm")
    one = whole.dataset(texts, labels)
    expected = collate(one.tokenized, np.arange(40), one.states).states.clone()
    for shard in whole.states.folder.glob("shard-*"):
        for file in shard.iterdir():
            file.unlink()
    monkeypatch.setattr(store, "_SHARD_BYTES", 1)
    many = make_session("lstm")
    tokenized = many.tokenize(texts)
    states = many.states.ensure(tokenized, token_budget=64)
    assert len(list(many.states.folder.glob("shard-*"))) > 1
    torch.testing.assert_close(collate(tokenized, np.arange(40), states).states, expected, atol=2e-3, rtol=0)


def test_processes_of_a_machine_fill_their_own_parts_first_and_then_what_others_left(make_session, monkeypatch):
    texts, labels = toy_texts(60)
    session = make_session("lstm")
    session.states.process = (1, 2)
    tokenized = session.tokenize(texts)
    parts = store._part_of(store.window_keys(tokenized))
    filled = []
    real = session.states._encode

    def note(tokenized, windows):
        filled.extend(int(part) % 2 for part in parts[windows])
        return real(tokenized, windows)

    monkeypatch.setattr(session.states, "_encode", note)
    states = session.states.ensure(tokenized, token_budget=64)
    assert set(filled) == {0, 1}
    assert filled == sorted(filled, reverse=True)
    whole = make_session("lstm").dataset(texts, labels)
    rows = np.arange(60)
    torch.testing.assert_close(
        collate(tokenized, rows, states).states, collate(whole.tokenized, rows, whole.states).states
    )


def test_two_stores_that_fill_at_the_same_time_encode_each_window_once(make_session):
    texts, _ = toy_texts(60)
    sessions = [make_session("lstm"), make_session("han")]
    tokenized = sessions[0].tokenize(texts)
    for number, session in enumerate(sessions):
        session.states.process = (number, 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda session: session.states.ensure(tokenized, token_budget=64), sessions))
    distinct = len(np.unique(store.window_keys(tokenized)))
    assert sum(session.states.passes for session in sessions) == distinct


def assert_live_instead(session, caplog, why):
    """Asserts that a material comes without states, that this is said once, and that it can be computed with."""
    datasets = [session.dataset(TEXTS, LABELS), session.dataset(TEXTS[:2], LABELS[:2])]
    assert [dataset.states for dataset in datasets] == [None, None]
    assert why in session.states.refusal
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert why in told
    assert str(session.states.folder) in told
    for way_out in ("senthy cache", "cache.max_gb", "paths.cache_dir"):
        assert way_out in told
    options = {"compute": session.compute, "token_budget": 200}
    probabilities = predict_probabilities(
        session.classifier, datasets[0].tokenized, states=datasets[0].states, **options
    )
    assert probabilities.shape == (5, 2)


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_beyond_the_budget_nothing_is_stored_and_the_encoder_runs_live(make_session, caplog, trainable_layers):
    session = make_session("lstm", trainable_layers=trainable_layers, max_gb=1e-7)
    assert_live_instead(session, caplog, "of the 1e-07 GB of cache.max_gb are taken")
    assert session.states.passes == 0
    assert not list(session.states.folder.glob("shard-*"))


@pytest.mark.processor(needs="bf16")
def test_the_budget_is_of_all_stores_together_and_what_is_stored_already_is_used(make_session, caplog):
    other = make_session("lstm", precision="bf16")
    other.dataset(TEXTS, LABELS)
    taken = size_of(other.states.root)
    assert_live_instead(make_session("lstm", max_gb=taken * 1.01 / 1e9), caplog, "GB of cache.max_gb are taken")
    assert make_session("han", precision="bf16", max_gb=taken / 2e9).dataset(TEXTS, LABELS).states is not None


def test_a_budget_that_ends_while_filling_keeps_what_was_complete(make_session, monkeypatch):
    texts, labels = toy_texts(40)
    monkeypatch.setattr(store, "_SHARD_BYTES", 1)
    monkeypatch.setattr(store, "_MOST_SHARDS", 10**9)
    session = make_session("lstm", token_budget=64)
    distinct = len(np.unique(store.window_keys(session.tokenize(texts))))
    rooms = iter([True, True, True])

    def room(needed):
        if next(rooms, None) is None:
            raise store._CannotStoreError("full")

    with monkeypatch.context() as patched:
        patched.setattr(session.states, "_check_room", room)
        assert session.dataset(texts, labels).states is None
    assert len(list(session.states.folder.glob("shard-*"))) == 2
    done = session.states.passes
    assert 0 < done < distinct
    assert session.dataset(texts, labels).states is not None
    assert session.states.passes == distinct


def test_too_little_disk_is_said_before_anything_is_computed(make_session, monkeypatch, caplog):
    session = make_session("lstm")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    assert_live_instead(session, caplog, "the disk has 1e-08 GB free")
    assert session.states.passes == 0


def test_a_full_disk_while_filling_is_reported_and_leaves_nothing(make_session, monkeypatch, caplog):
    session = make_session("lstm")

    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "flush_to_disk", full)
        assert_live_instead(session, caplog, "the disk is full")
    assert all(path.name.startswith(".lock") for path in session.states.folder.iterdir())
    assert session.dataset(TEXTS, LABELS).states is not None


def test_a_batch_without_memory_is_encoded_in_smaller_ones(make_session, tmp_path):
    plenty, scarce = make_session("lstm"), make_session("lstm", cache=tmp_path / "other")
    texts, labels = toy_texts(30)
    expected = plenty.dataset(texts, labels)
    encode = scarce.encoder.model.states

    def refuse(ids, mask, **options):
        if ids.numel() > 60:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return encode(ids, mask, **options)

    scarce.encoder.model.states = refuse
    found = scarce.dataset(texts, labels)
    assert scarce.states.passes == plenty.states.passes
    rows = np.arange(len(texts))
    of_both = [collate(one.tokenized, rows, one.states).states for one in (expected, found)]
    torch.testing.assert_close(*of_both, atol=2e-3, rtol=0)


def test_a_single_window_without_memory_ends_with_what_to_lower(make_session):
    session = make_session("lstm")

    def refuse(*arguments, **options):
        raise MemoryError

    session.encoder.model.states = refuse
    with pytest.raises(TrainingError, match="out of memory: a single text") as caught:
        session.dataset(TEXTS, LABELS)
    assert "max_length" in caught.value.hint
    assert all(path.name.startswith(".lock") for path in session.states.folder.iterdir())


def test_a_place_that_is_no_folder_is_reported(make_session, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert_live_instead(make_session("lstm"), caplog, "Not a directory")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses folders")
def test_a_file_system_that_refuses_is_reported(make_session, caplog):
    assert_live_instead(make_session("lstm", cache=Path("/proc/self")), caplog, "No such file or directory")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_serves_what_it_has_and_is_reported_for_the_rest(make_session, caplog):
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    folders = [session.states.root, session.states.folder]
    for folder in folders:
        folder.chmod(0o555)
    try:
        again = make_session("lstm")
        assert again.dataset(TEXTS, LABELS).states is not None
        assert again.dataset(["something else"], LABELS[:1]).states is None
        assert "Permission denied" in again.states.refusal
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_store_that_can_only_be_read_serves_what_it_has(make_session, monkeypatch):
    make_session("lstm").dataset(TEXTS, LABELS)
    again = make_session("lstm")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("mkdir", "rename"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(shards, "FileLock", refuse)
    monkeypatch.setattr(files.os, "utime", refuse)
    assert again.dataset(TEXTS, LABELS).states is not None
    assert again.dataset(["something else"], LABELS[:1]).states is None
    assert "Permission denied" in again.states.refusal


def test_a_file_system_without_locks_is_reported(make_session, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(shards, "FileLock", refuse)
    assert_live_instead(make_session("lstm"), caplog, "does not appear to support flock")


def test_states_beyond_half_precision_are_not_stored(make_session, caplog):
    session = make_session("lstm")
    real = session.states.encoder.below
    session.states.encoder.below = lambda *inputs: real(*inputs) * 1e6
    assert_live_instead(session, caplog, "half precision")


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a folder in use cannot be deleted")
def test_a_store_deleted_while_it_is_used_serves_on_and_is_filled_again(make_session):
    session = make_session("lstm")
    dataset = session.dataset(TEXTS, LABELS)
    expected = collate(dataset.tokenized, np.arange(5), dataset.states).states.clone()
    passes = session.states.passes
    shutil.rmtree(session.states.root)
    assert torch.equal(collate(dataset.tokenized, np.arange(5), dataset.states).states, expected)
    again = session.dataset(TEXTS, LABELS)
    assert session.states.passes == 2 * passes
    assert torch.equal(collate(again.tokenized, np.arange(5), again.states).states, expected)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a folder in use cannot be deleted")
def test_a_store_deleted_while_it_is_filled_is_filled_again(make_session):
    session = make_session("lstm")
    deleted = []

    def delete(windows, total=None):
        if windows and not deleted:
            deleted.append(True)
            shutil.rmtree(session.states.root)

    assert session.dataset(TEXTS, LABELS, progress=delete).states is not None
    assert deleted


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a folder in use cannot be deleted")
def test_a_store_deleted_again_and_again_is_reported_and_the_next_time_filled(make_session, caplog):
    session = make_session("lstm")
    dataset = session.dataset(TEXTS, LABELS, progress=lambda windows, total=None: shutil.rmtree(session.states.root))
    assert dataset.states is None
    assert "the encoder runs in every epoch instead" in caplog.text
    assert session.dataset(TEXTS, LABELS).states is not None


def test_a_store_that_is_cleared_between_writing_and_reading_is_filled_again(make_session, monkeypatch):
    session = make_session("lstm")
    real = session.states._fill
    cleared = []

    def fill(*arguments):
        real(*arguments)
        if not cleared:
            cleared.extend(session.states.folder.glob("shard-*"))
            for shard in cleared:
                shards.remove(shard)

    monkeypatch.setattr(session.states, "_fill", fill)
    assert session.dataset(TEXTS, LABELS).states is not None
    assert cleared


def test_windows_in_the_order_of_their_texts_and_of_one_length_are_read_without_a_copy(make_session):
    session = make_session("lstm")
    dataset = session.dataset([f"good day {number}" for number in range(10, 40)], np.zeros(30, dtype=np.int64))
    lengths = dataset.tokenized.window_lengths
    (length,) = set(lengths.tolist())
    windows = np.arange(5, 15)
    batch = dataset.states.gather(windows, lengths[windows])
    assert batch.shape == (10, length, 16)
    stored = dataset.states._tensors[0]
    assert stored.data_ptr() <= batch.data_ptr() < stored.data_ptr() + stored.nbytes


def test_a_large_store_is_announced_before_it_is_filled(make_session, monkeypatch, caplog):
    caplog.set_level("INFO")
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    assert not caplog.records
    monkeypatch.setattr(store, "_LARGE", 1)
    session.dataset(["something new"], LABELS[:1])
    assert "storing token states of 1 windows, 0.0 GB, in" in caplog.text


def test_a_kill_while_filling_leaves_whole_shards_only(tiny_encoder_dir, tmp_path):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    script = f"""
import numpy as np, os, signal
from pathlib import Path
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.states import store
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.training.prepare import open_session
from sentiment_hybrid.models.encoder.hub import load_encoder
config = Config.model_validate({{"encoder": {{"name": {str(tiny_encoder_dir)!r}, "max_length": 16}}}})
store._SHARD_BYTES = 2000
session = open_session(config, "linear", load_encoder(config.encoder), num_classes=2,
                         compute=resolve("cpu", "fp32"), cache=Path({str(tmp_path / "cache")!r}))
seen = 0
def kill_soon(windows, total=None):
    global seen
    seen += windows
    if seen > 60:
        os.kill(os.getpid(), signal.SIGKILL)
session.states.ensure(session.tokenize([f"text number {{i}}" for i in range(200)]), token_budget=64,
                       progress=kill_soon)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = next(Path(tmp_path / "cache" / "states").iterdir())
    found = list(folder.glob("shard-*"))
    assert found
    assert all({f.name for f in s.iterdir()} == {"states.npy", "keys.npy", "starts.npy", "shard.json"} for s in found)
    assert all(shards.Shard.read(folder).checked() for folder in found)


def test_what_killed_processes_left_half_written_is_removed(make_session):
    session = make_session("lstm")
    leftover = session.states.folder / ".03-dead.partial"
    leftover.mkdir(parents=True)
    (leftover / "states.npy").write_bytes(b"half")
    session.dataset(TEXTS, LABELS)
    assert not leftover.exists()


def test_a_shard_that_cannot_be_looked_at_is_reported_and_not_deleted(make_session, monkeypatch, caplog):
    session = make_session("lstm")
    session.dataset(TEXTS, LABELS)
    shard = next(session.states.folder.glob("shard-*"))

    def refuse(*arguments, **options):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(shards.np, "load", refuse)
        assert_live_instead(session, caplog, "Too many open files")
    assert shard.exists()
