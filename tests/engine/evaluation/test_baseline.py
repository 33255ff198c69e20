"""The baseline learns, is kept by fingerprint without pickle, and survives whatever happened to its files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.evaluation import baseline
from sentiment_hybrid.engine.evaluation.baseline import Baseline, fit, fit_and_keep, load

GOOD = ["what a lovely day", "i love this so much", "great fun, thanks !", "best film ever :)", "so happy today"]
BAD = ["what an awful day", "i hate this so much", "no fun, never again", "worst film ever :(", "so sad today"]
TEXTS = (GOOD + BAD) * 4
LABELS = np.array(([1] * 5 + [0] * 5) * 4)


def keep(folder: Path, *, fingerprint: str = "f", labels: np.ndarray = LABELS, num_classes: int = 2) -> Baseline:
    kept = load(folder, fingerprint, num_classes=num_classes)
    return kept or fit_and_keep(TEXTS, labels, num_classes=num_classes, folder=folder, fingerprint=fingerprint)


def no_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(baseline, "_logistic_regression", refuse)


def stored(folder: Path) -> Path:
    (directory,) = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return directory


def test_it_learns_what_words_emoticons_and_negation_say() -> None:
    fitted = fit(TEXTS, LABELS, num_classes=2)
    probabilities = fitted.predict_proba(["lovely :)", "awful :(", "LOVE", "never"])
    assert probabilities.argmax(axis=1).tolist() == [1, 0, 1, 0]
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4))


def test_contractions_emoticons_emoji_and_exclamations_stay_tokens() -> None:
    import re

    found = re.findall(baseline.TOKEN_PATTERN, "can't don’t :-) <3 wow!!! ok... 😀 #yes @user")
    assert found == ["can't", "don’t", ":-)", "<3", "wow", "!!!", "ok", "...", "😀", "#", "yes", "@", "user"]


def test_probabilities_are_those_of_the_pipeline_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    for classes in (2, 3):
        labels = np.arange(len(TEXTS)) % 10 % classes
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=baseline.TOKEN_PATTERN)
        pipeline = make_pipeline(vectorizer, LogisticRegression(C=baseline.INVERSE_REGULARISATION, max_iter=300))
        expected = pipeline.fit(TEXTS, labels).predict_proba(GOOD)
        assert fit(TEXTS, labels, num_classes=classes).predict_proba(GOOD) == pytest.approx(expected, abs=1e-9)


def test_fitting_twice_gives_the_same_bits_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fit(TEXTS, LABELS, num_classes=2).predict_proba(TEXTS)
    monkeypatch.setattr(baseline, "_CHUNK", 7)
    two = fit(TEXTS, LABELS, num_classes=2).predict_proba(TEXTS)
    assert np.array_equal(one, two)


def test_a_known_fingerprint_is_loaded_not_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keep(tmp_path)
    no_fitting(monkeypatch)
    assert np.array_equal(keep(tmp_path).predict_proba(TEXTS), first.predict_proba(TEXTS))
    loaded = load(tmp_path, "f", num_classes=2)
    assert loaded is not None and loaded.num_classes == 2


def test_another_fingerprint_is_another_baseline(tmp_path: Path) -> None:
    keep(tmp_path)
    other = keep(tmp_path, fingerprint="../../evil: name", labels=1 - LABELS)
    assert other.predict_proba(["lovely"]).argmax() == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert load(tmp_path, "unknown", num_classes=2) is None


def test_the_files_are_json_and_arrays_without_pickle(tmp_path: Path) -> None:
    keep(tmp_path)
    directory = stored(tmp_path)
    assert sorted(path.name for path in directory.iterdir()) == ["baseline.json", "vocabulary.json", "weights.npz"]
    assert "lovely" in json.loads((directory / "vocabulary.json").read_text())
    with np.load(directory / "weights.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


@pytest.mark.parametrize("name", ["baseline.json", "vocabulary.json", "weights.npz"])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "empty", "folder"])
def test_a_damaged_file_is_fitted_anew(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = keep(tmp_path)
    path = stored(tmp_path) / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        half = len(content) // 2
        changed = {"cut": content[:half], "empty": b"", "flipped": content[:half] + b"\xff" + content[half + 1 :]}
        path.write_bytes(changed[damage])
    with caplog.at_level(logging.WARNING):
        again = keep(tmp_path)
    assert np.array_equal(again.predict_proba(TEXTS), first.predict_proba(TEXTS))
    assert "cannot be used" in caplog.text
    assert load(tmp_path, "f", num_classes=2) is not None
    assert len(list(tmp_path.iterdir())) == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["baseline.json", "vocabulary.json", "weights.npz"]), place=st.integers(0), byte=st.binary()
)
def test_any_changed_bytes_are_noticed_or_do_no_harm(tmp_path: Path, name: str, place: int, byte: bytes) -> None:
    if not (tmp_path / "kept").exists():
        keep(tmp_path / "kept")
    path = stored(tmp_path / "kept") / name
    content = path.read_bytes()
    place %= len(content)
    path.write_bytes(content[:place] + byte + content[place + 1 :])
    found = load(tmp_path / "kept", "f", num_classes=2)
    path.write_bytes(content)
    if found is not None:
        assert np.array_equal(found.predict_proba(TEXTS), fit(TEXTS, LABELS, num_classes=2).predict_proba(TEXTS))


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 0},
        {"fingerprint": "g"},
        {"sha256": {}},
        {"sha256": "x"},
        {"num_classes": "x"},
        {"num_classes": 10**12},
        {"num_classes": float("inf")},
    ],
)
def test_another_format_is_fitted_anew(tmp_path: Path, change: dict[str, object]) -> None:
    keep(tmp_path)
    path = stored(tmp_path) / "baseline.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert load(tmp_path, "f", num_classes=2) is None
    keep(tmp_path)
    assert load(tmp_path, "f", num_classes=2) is not None


def test_a_cache_that_cannot_be_written_costs_only_the_next_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        fitted = keep(tmp_path / "cache")
    assert fitted.predict_proba(["lovely"]).argmax() == 1
    assert "fitted again next time" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    keep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_training_rows_has_probability_zero(tmp_path: Path) -> None:
    for _ in range(2):
        fitted = keep(tmp_path, labels=LABELS * 2, num_classes=3)
        probabilities = fitted.predict_proba(["lovely", "awful"])
        assert probabilities.shape == (2, 3)
        assert (probabilities[:, 1] == 0).all()
        assert probabilities.argmax(axis=1).tolist() == [2, 0]


def test_one_class_only_and_texts_without_words_leave_the_class_shares(tmp_path: Path) -> None:
    one = fit(TEXTS, np.ones(len(TEXTS), dtype=int), num_classes=2)
    assert one.predict_proba(["x"]).tolist() == [[0.0, 1.0]]
    for classes, labels in ((2, [0, 0, 0, 1]), (3, [0, 0, 1, 2])):
        texts, name = ["", " ", "\t", ""], str(classes)
        blank = fit_and_keep(texts, labels, num_classes=classes, folder=tmp_path, fingerprint=name)
        expected = np.bincount(labels) / 4
        for one in (blank, load(tmp_path, name, num_classes=classes)):
            assert one is not None
            assert one.predict_proba(["", "good"]) == pytest.approx(np.stack([expected, expected]))


def test_no_texts_give_no_rows() -> None:
    assert fit(TEXTS, LABELS, num_classes=2).predict_proba([]).shape == (0, 2)


def test_real_tweets_give_the_accuracy_that_is_known_for_them(shared: Path) -> None:
    import pandas as pd

    (path,) = (shared / "data" / "tweets-clean-posneg").glob("*.csv.gz")
    frame = pd.read_csv(path, usecols=["target", "text"], nrows=250_000).dropna().sample(24_000, random_state=0)
    texts, labels = list(frame["text"]), (frame["target"] > 2).astype(int).to_numpy()
    fitted = fit(texts[:20_000], labels[:20_000], num_classes=2)
    accuracy = (fitted.predict_proba(texts[20_000:]).argmax(axis=1) == labels[20_000:]).mean()
    assert accuracy > 0.75
