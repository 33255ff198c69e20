"""The state store: one pass per distinct window ever, exact, complete or absent."""

from __future__ import annotations

import os
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

from sentiment_hybrid.engine import features
from sentiment_hybrid.engine.batches import collate
from sentiment_hybrid.engine.evaluate import predict_probabilities
from sentiment_hybrid.errors import OutputError

from .conftest import toy_texts

TEXTS = ["good day", "bad day", "good day", "so it was a long long day and then the night " * 3, "x"]
LABELS = np.array([1, 0, 1, 0, 1])


def test_each_distinct_window_passes_the_encoder_once_over_heads_and_calls(make_workshop):
    first = make_workshop("lstm")
    tokenized = first.tokenize(TEXTS)
    keys = {
        tokenized.ids[a:b].tobytes()
        for a, b in zip(tokenized.window_offsets[:-1], tokenized.window_offsets[1:], strict=True)
    }
    first.material(TEXTS, LABELS)
    assert first.states.passes == len(keys) < len(tokenized.window_lengths)
    first.material(TEXTS, LABELS)
    assert first.states.passes == len(keys)
    second = make_workshop("han")
    second.material([*TEXTS, "one more text"], np.append(LABELS, 1))
    assert second.states.passes == 1


def test_stored_states_give_the_logits_of_the_live_encoder(make_workshop):
    workshop = make_workshop("lstm")
    material = workshop.material(TEXTS, LABELS)
    options = {"compute": workshop.compute, "token_budget": 200}
    live = predict_probabilities(workshop.classifier, material.tokenized, **options)
    stored = predict_probabilities(workshop.classifier, material.tokenized, states=material.states, **options)
    np.testing.assert_allclose(stored, live, atol=2e-3)  # float16 keeps 11 bits


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=10))
def test_gathered_states_are_those_of_each_window_and_zero_on_padding(rows):
    material, live = _material_and_live_states()
    batch = collate(material.tokenized, np.array(rows), material.states)
    windows, _ = material.tokenized.windows_of(np.array(rows))
    for place, window in enumerate(windows):
        length = int(material.tokenized.window_lengths[window])
        np.testing.assert_allclose(batch.states[place, :length].numpy(), live[window], atol=5e-3)
        assert (batch.states[place, length:] == 0).all()


_KEPT: dict[str, object] = {}


@pytest.fixture(autouse=True)
def kept_material(make_workshop, request):
    if "gathered" in request.node.name:
        workshop = make_workshop("lstm")
        material = workshop.material(TEXTS, LABELS)
        live = []
        for window in range(len(material.tokenized.window_lengths)):
            ids = material.tokenized.ids[
                material.tokenized.window_offsets[window] : material.tokenized.window_offsets[window + 1]
            ]
            with torch.no_grad():
                states = workshop.classifier.encoder(
                    torch.from_numpy(ids.astype(np.int64))[None], torch.ones(1, len(ids), dtype=torch.bool)
                )
            live.append(states[0].numpy())
        _KEPT["material"] = (material, live)


def _material_and_live_states():
    return _KEPT["material"]


def test_another_encoder_or_precision_has_states_of_its_own(make_workshop):
    workshop = make_workshop("lstm")
    workshop.material(TEXTS, LABELS)
    other = make_workshop("lstm", precision="bf16")
    other.material(TEXTS, LABELS)
    assert other.states.passes > 0
    assert other.states.folder != workshop.states.folder


@pytest.mark.parametrize("damage", ["truncate", "delete", "wrong_json"])
def test_a_damaged_shard_is_never_used_but_computed_again(make_workshop, damage):
    workshop = make_workshop("lstm")
    expected = workshop.material(TEXTS, LABELS)
    batch = collate(expected.tokenized, np.arange(5), expected.states).states.clone()
    shard = next(workshop.states.folder.glob("shard-*"))
    del expected
    if damage == "truncate":
        os.truncate(shard / "states.npy", (shard / "states.npy").stat().st_size // 2)
    elif damage == "delete":
        (shard / "keys.npy").unlink()
    else:
        (shard / "shard.json").write_text('{"format": 1, "tokens": 3, "windows": 1}')
    again = make_workshop("lstm")
    material = again.material(TEXTS, LABELS)
    assert again.states.passes > 0
    assert torch.equal(collate(material.tokenized, np.arange(5), material.states).states, batch)


def test_filling_in_many_shards_reads_back_the_same(make_workshop, monkeypatch):
    texts, labels = toy_texts(40)
    whole = make_workshop("lstm")
    one = whole.material(texts, labels)
    expected = collate(one.tokenized, np.arange(40), one.states).states.clone()
    for shard in whole.states.folder.glob("shard-*"):
        for file in shard.iterdir():
            file.unlink()
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)
    many = make_workshop("lstm")
    tokenized = many.tokenize(texts)
    states = many.states.ensure(tokenized, token_budget=64)
    assert len(list(many.states.folder.glob("shard-*"))) > 1
    torch.testing.assert_close(collate(tokenized, np.arange(40), states).states, expected, atol=2e-3, rtol=0)


def test_processes_of_a_machine_fill_their_own_parts_first_and_then_what_others_left(make_workshop, monkeypatch):
    texts, labels = toy_texts(60)
    workshop = make_workshop("lstm")
    workshop.states.share = (1, 2)
    tokenized = workshop.tokenize(texts)
    parts = features._part_of(features._window_keys(tokenized))
    filled = []
    real = workshop.states._write_shard

    def note(tokenized, keys, batches, progress, **options):
        filled.append({int(part) % 2 for part in parts[np.concatenate(batches)]})
        real(tokenized, keys, batches, progress, **options)

    monkeypatch.setattr(workshop.states, "_write_shard", note)
    states = workshop.states.ensure(tokenized, token_budget=64)
    assert filled == [{1}, {0}]
    whole = make_workshop("lstm").material(texts, labels)
    rows = np.arange(60)
    torch.testing.assert_close(
        collate(tokenized, rows, states).states, collate(whole.tokenized, rows, whole.states).states
    )


def test_two_stores_that_fill_at_the_same_time_encode_each_window_once(make_workshop):
    texts, _ = toy_texts(60)
    workshops = [make_workshop("lstm"), make_workshop("han")]
    tokenized = workshops[0].tokenize(texts)
    for number, workshop in enumerate(workshops):
        workshop.states.share = (number, 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda workshop: workshop.states.ensure(tokenized, token_budget=64), workshops))
    distinct = len(np.unique(features._window_keys(tokenized)))
    assert sum(workshop.states.passes for workshop in workshops) == distinct


def test_too_little_disk_is_said_before_anything_is_computed(make_workshop, monkeypatch):
    workshop = make_workshop("lstm")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(OutputError, match=r"need .* GB and .* has 0.0 GB free") as caught:
        workshop.material(TEXTS, LABELS)
    assert "sample_size" in caught.value.hint
    assert workshop.states.passes == 0


def test_a_full_disk_while_filling_is_told_and_leaves_nothing(make_workshop, monkeypatch):
    workshop = make_workshop("lstm")

    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(features, "flush_to_disk", full)
        with pytest.raises(OutputError, match=r"cannot keep token states in .*: the disk is full") as caught:
            workshop.material(TEXTS, LABELS)
    assert "paths.cache_dir" in caught.value.hint
    assert all(path.name.startswith(".lock") for path in workshop.states.folder.iterdir())
    assert len(workshop.material(TEXTS, LABELS)) == len(TEXTS)


def test_a_kill_while_filling_leaves_whole_shards_only(tiny_encoder_dir, tmp_path):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    script = f"""
import numpy as np, os, signal
from pathlib import Path
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine import features
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.materials import open_workshop
from sentiment_hybrid.models.encoder import load_encoder
config = Config.model_validate({{"encoder": {{"name": {str(tiny_encoder_dir)!r}, "max_length": 16}}}})
features._SHARD_BYTES = 2000
workshop = open_workshop(config, "linear", load_encoder(config.encoder), num_classes=2,
                         compute=resolve("cpu", "fp32"), cache=Path({str(tmp_path / "cache")!r}))
seen = 0
def kill_soon(windows):
    global seen
    seen += windows
    if seen > 60:
        os.kill(os.getpid(), signal.SIGKILL)
workshop.states.ensure(workshop.tokenize([f"text number {{i}}" for i in range(200)]), token_budget=64,
                       progress=kill_soon)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = next(Path(tmp_path / "cache" / "states").iterdir())
    shards = list(folder.glob("shard-*"))
    assert shards
    assert all({f.name for f in s.iterdir()} == {"states.npy", "keys.npy", "starts.npy", "shard.json"} for s in shards)
    assert all(features._Shard.read(shard, 16) is not None for shard in shards)


def test_what_killed_processes_left_half_written_is_removed(make_workshop):
    workshop = make_workshop("lstm")
    leftover = workshop.states.folder / ".03-dead.partial"
    leftover.mkdir(parents=True)
    (leftover / "states.npy").write_bytes(b"half")
    workshop.material(TEXTS, LABELS)
    assert not leftover.exists()


def test_a_shard_that_cannot_be_looked_at_is_told_and_not_deleted(make_workshop, monkeypatch):
    workshop = make_workshop("lstm")
    workshop.material(TEXTS, LABELS)
    shard = next(workshop.states.folder.glob("shard-*"))

    def refuse(*arguments, **options):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(features.np, "load", refuse)
    with pytest.raises(OutputError, match="Too many open files"):
        workshop.material(TEXTS, LABELS)
    monkeypatch.undo()
    assert shard.exists()
