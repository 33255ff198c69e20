"""A filter of seen texts forgets none, takes few others for its own, and says so when its file is no good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.data.splits import hash_raw
from sentiment_hybrid.engine.evaluation import seen
from sentiment_hybrid.engine.evaluation.seen import SeenTexts
from sentiment_hybrid.errors import DataError


def texts_of(count: int, *, start: int = 0) -> list[str]:
    return [f"tweet number {number}" for number in range(start, start + count)]


def filter_of(texts: list[str], *, split_seed: int = 7, version: int = 2) -> SeenTexts:
    keys = hash_raw(texts, split_seed, version=version)[1]
    return SeenTexts.of(keys, split_seed=split_seed, split_key_version=version)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=60), split_seed=st.integers(0, 2**62))
@example(texts=[], split_seed=0)
def test_it_never_forgets_a_text(texts: list[str], split_seed: int) -> None:
    known = filter_of(texts, split_seed=split_seed)
    assert known.contains(texts).all()
    assert known.count == len(set(hash_raw(texts, split_seed, version=2)[1].tolist()))


def test_a_text_is_known_as_splits_know_it() -> None:
    known = filter_of(["Loved it, @anna! http://t.co/x"])
    assert known.contains(["loved it @bob https://t.co/y", "loved it"]).tolist() == [True, False]


@pytest.mark.parametrize("count", [600, 5_000])
def test_of_unseen_texts_about_as_many_look_seen_as_chance_says(count: int) -> None:
    known = filter_of(texts_of(count))
    found = known.contains(texts_of(20_000, start=count)).mean()
    assert 0.0002 < known.chance < 0.001
    assert found == pytest.approx(known.chance, abs=4 * (known.chance / 20_000) ** 0.5 + 0.1 * known.chance)


def test_it_takes_sixteen_bits_a_text() -> None:
    assert len(filter_of(texts_of(8_000)).bits) == 16_000


def test_an_empty_filter_knows_nothing() -> None:
    assert not filter_of([]).contains(texts_of(100)).any()
    assert filter_of([]).chance == 0.0


def test_another_split_seed_makes_another_filter() -> None:
    one, other = filter_of(texts_of(50), split_seed=1), filter_of(texts_of(50), split_seed=2)
    assert not np.array_equal(one.bits, other.bits)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    known = filter_of(texts_of(300))
    known.save(tmp_path / "seen.npz")
    loaded = SeenTexts.load(tmp_path / "seen.npz")
    assert np.array_equal(loaded.bits, known.bits)
    assert (loaded.count, loaded.split_seed) == (300, 7)
    assert loaded.contains(texts_of(300)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["seen.npz"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seen\.npz cannot be read") as caught:
        SeenTexts.load(tmp_path / "seen.npz")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("bits", "facts"),
    [
        (np.zeros(0, dtype=np.uint8), [2, 11, 0, 7]),
        (np.zeros((4, 4), dtype=np.uint8), [2, 11, 1, 7]),
        (np.zeros(1024), [2, 11, 1, 7]),
        (np.zeros(1024, dtype=np.uint8), [2, 11, -1, 7]),
        (np.zeros(1024, dtype=np.uint8), [2, 11, 10**12, 7]),
        (np.zeros(1024, dtype=np.uint8), [2, 11]),
    ],
)
def test_a_whole_file_that_is_no_filter_is_reported(tmp_path: Path, bits: np.ndarray, facts: list[int]) -> None:
    np.savez(tmp_path / "seen.npz", bits=bits, facts=np.array(facts))
    with pytest.raises(DataError, match=r"seen\.npz cannot be read"):
        SeenTexts.load(tmp_path / "seen.npz")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "seen.npz", bits=np.zeros(2_000_000, np.uint8), facts=np.array([2, 11, 1, 7]))
    with pytest.raises(DataError, match="unpacks to 2,000"):
        SeenTexts.load(tmp_path / "seen.npz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0.0, 1.0, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_reported_or_does_no_harm(tmp_path: Path, place: float, change: int, cut: bool) -> None:
    path = tmp_path / "seen.npz"
    filter_of(texts_of(100)).save(path)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= change
    path.write_bytes(bytes(content))
    try:
        loaded = SeenTexts.load(path)
    except DataError as error:
        assert "seen.npz" in error.message
    else:
        assert loaded.contains(texts_of(100)).all()


@pytest.mark.parametrize("version", [1, 2])
def test_a_filter_keeps_the_version_of_the_split_key_that_it_was_made_with(tmp_path: Path, version: int) -> None:
    filter_of(["@小明今天很开心"], version=version).save(tmp_path / "seen.npz")
    loaded = SeenTexts.load(tmp_path / "seen.npz")
    assert loaded.split_key_version == version
    assert loaded.contains(["@小明今天很开心", "@小明太糟糕了"]).tolist() == [True, version == 1]


@pytest.mark.parametrize(("hashes", "version"), [(7, 2), (11, 99)])
def test_a_file_made_by_another_rule_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: int, version: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(seen, "_HASHES", hashes)
        replace(filter_of(texts_of(3)), split_key_version=version).save(tmp_path / "seen.npz")
    with pytest.raises(DataError, match="made by another version"):
        SeenTexts.load(tmp_path / "seen.npz")
