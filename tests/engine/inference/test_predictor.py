"""A model directory labels texts: in order, apart from their neighbours, and never with a made-up label."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.normalizers import Normalizer
from sentiment_hybrid.engine import memory
from sentiment_hybrid.engine.inference import evaluate
from sentiment_hybrid.engine.inference import predictor as engine
from sentiment_hybrid.engine.inference.model_directory import save_model
from sentiment_hybrid.engine.inference.opening import exported
from sentiment_hybrid.engine.inference.predictor import Predictor, model_directory, newest, published
from sentiment_hybrid.errors import (
    ColumnError,
    DataError,
    EncoderError,
    LabelError,
    ModelError,
    SenthyError,
    TrainingError,
)
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import LoadedEncoder, directory_of, load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder

from ...conftest import model_info

LABELS = ("negative", "positive")
TOLERANCE = {"atol": 2e-6}


def write_model(
    directory: Path,
    encoder: LoadedEncoder,
    *,
    head: str = "lstm",
    labels: tuple[str, ...] = LABELS,
    bundle: bool = True,
    **changes: object,
) -> Path:
    """A model directory with random weights, large enough that texts get different labels."""
    torch.manual_seed(1)
    shared = Encoder(encoder.model, 0)
    config = Config.model_validate(
        {"lstm": {"head": {"hidden": 8, "attention_heads": 2}}, "han": {"head": {"hidden": 8}}}
    ).model(head)
    module = build_head(head, config.head, input_size=shared.hidden_size, num_classes=len(labels))
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(3.0)
    info = model_info(
        encoder,
        head,
        **{
            "head_config": config.head.model_dump(mode="json"),
            "labels": labels,
            "max_windows": 4,
            "encoder_name": encoder.name,
            "encoder_inside": bundle,
            **changes,
        },
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(shared, module)
    save_model(directory, classifier=classifier, encoder=encoder, info=info, bundle=bundle)
    return directory


@pytest.fixture(scope="module")
def tiny_encoder(tiny_encoder_dir: Path) -> LoadedEncoder:
    return load_encoder_dir(tiny_encoder_dir)


@pytest.fixture(scope="module")
def model_dir(tiny_encoder: LoadedEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model", tiny_encoder)


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return Predictor(model_dir, device="cpu", precision="fp32")


WORDS = ["good", "bad", "not", "very", "film", "food", "😀", "ça", ":(", "#fun", "@anna", "http://t.co/x", "&amp;"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_gives_one_prediction_per_text(head: str, tiny_encoder: LoadedEncoder, tmp_path: Path) -> None:
    labels = ("negative", "neutral", "positive")
    predictor = Predictor(write_model(tmp_path / head, tiny_encoder, head=head, labels=labels), device="cpu")
    predictions = predictor.predict(["what a good day", "bad", "not very good"])
    assert predictor.labels == labels
    for one in predictions:
        assert list(one.probabilities) == list(labels)
        assert sum(one.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
        assert one.score == max(one.probabilities.values()) == one.probabilities[one.label or ""]


def test_answers_among_some_labels_are_renormalised(tiny_encoder: LoadedEncoder, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", tiny_encoder, labels=("negative", "neutral", "positive"))
    texts = ["good film", "very bad food", "", "good film"]
    whole = Predictor(model, device="cpu", precision="fp32").predict_proba(texts)
    some = Predictor(model, device="cpu", precision="fp32", labels=["positive", "Negative"])
    assert some.labels == ("negative", "positive")
    assert some.added_columns == ["prediction", "score", "p_negative", "p_positive"]
    expected = whole[:, [0, 2]] / whole[:, [0, 2]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(some.predict_proba(texts), expected, atol=1e-5)
    assert [one.label for one in some.predict(texts)] == [
        None if np.isnan(row[0]) else some.labels[row.argmax()] for row in expected
    ]
    with pytest.raises(LabelError, match=r"no label 'mixed'; its labels are negative, neutral, positive"):
        Predictor(model, labels=["negative", "mixed"])


def test_a_pickle_is_the_path_and_the_arguments(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(model_dir.parent)
    predictor = Predictor(model_dir.name, device="cpu", precision="fp32", labels=["positive", "negative"])
    texts = ["good film", "", "very bad food"]
    expected = predictor.predict_proba(texts)
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    assert (again.labels, again.identity) == (predictor.labels, predictor.identity)
    assert (again.empty, predictor.empty) == (0, 1)
    np.testing.assert_array_equal(again.predict_proba(texts), expected)


def test_a_pickle_names_the_encoder_for_any_working_directory(
    tiny_encoder_dir: Path, tiny_encoder: LoadedEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model", tiny_encoder, bundle=False)
    monkeypatch.chdir(tiny_encoder_dir.parent)
    pickled = pickle.dumps(Predictor(model, device="cpu", encoder=tiny_encoder_dir.name, offline=True))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled).predict("good film").label in LABELS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_predicts_the_same(predictor: Predictor) -> None:
    texts = [f"good film {at}" for at in range(200)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = predictor.predict_proba(texts)
        child = multiprocessing.get_context("fork").Process(target=assert_predicts, args=(predictor, texts, expected))
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def assert_predicts(predictor: Predictor, texts: list[str], expected: np.ndarray) -> None:
    np.testing.assert_allclose(predictor.predict_proba(texts), expected, atol=1e-5)
    assert torch.get_num_threads() == 1


def test_one_text_gives_one_prediction_and_a_list_gives_a_list(predictor: Predictor) -> None:
    one = predictor.predict("what a good day")
    assert [one.label] == [other.label for other in predictor.predict(["what a good day"])]
    assert predictor.predict([]) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(SENTENCES, min_size=1, max_size=12), random=st.randoms())
def test_a_prediction_does_not_depend_on_order_or_neighbours(
    predictor: Predictor, texts: list[str], random: object
) -> None:
    together = predictor.predict_proba(texts)
    shuffled = list(range(len(texts)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.allclose(predictor.predict_proba([texts[at] for at in shuffled]), together[shuffled], **TOLERANCE)
    alone = np.concatenate([predictor.predict_proba([text]) for text in texts])
    assert np.allclose(alone, together, **TOLERANCE)


def test_the_token_budget_changes_no_prediction(model_dir: Path, predictor: Predictor) -> None:
    texts = [" ".join(WORDS[: 1 + at % 11] * (1 + at % 7)) for at in range(50)]
    small = Predictor(model_dir, device="cpu", precision="fp32", token_budget=64)
    assert np.allclose(small.predict_proba(texts), predictor.predict_proba(texts), **TOLERANCE)


def test_texts_are_cleaned_as_in_training(predictor: Predictor) -> None:
    raw, cleaned = predictor.predict_proba(["hey @anna  see http://t.co/x &amp; go", "hey @user see http & go"])
    assert np.array_equal(raw, cleaned)


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", " \t\n "])
def test_a_text_with_nothing_in_it_gets_no_label(model_dir: Path, nothing: str | None) -> None:
    predictor = Predictor(model_dir, device="cpu")
    first, empty, last = predictor.predict(["good", nothing, "bad"])
    assert first.label is not None
    assert last.label is not None
    assert (empty.label, empty.score, empty.probabilities) == (None, None, {})
    assert np.isnan(predictor.predict_proba([nothing])).all()
    assert predictor.empty == 2


@pytest.mark.parametrize(("wrong", "told"), [(7, "int 7"), (b"good", "bytes b'good'"), (["good"], "list ['good']")])
def test_what_is_no_text_is_named_with_its_place(predictor: Predictor, wrong: object, told: str) -> None:
    with pytest.raises(DataError) as caught:
        predictor.predict(["good", wrong])  # type: ignore[list-item]
    assert f"text 2 is {told}" in caught.value.message


def test_the_place_of_a_wrong_text_counts_over_chunks(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="text 6 is int"):
        list(predictor.stream(["good"] * 5 + [1], chunk=2))  # type: ignore[list-item]


def test_what_is_not_several_texts_is_refused_where_its_parts_would_be_the_texts(predictor: Predictor) -> None:
    several = [predictor.predict_proba, predictor.states, lambda texts: next(predictor.stream(texts))]
    for call in several:
        with pytest.raises(DataError, match="one str"):
            call("good")
    for call in [*several, predictor.predict, predictor.explain]:
        for wrong in (b"good", {"text": "good"}, pd.DataFrame({"text": ["good"]})):
            with pytest.raises(DataError, match=f"not one {type(wrong).__name__}"):
                call(wrong)


def test_mean_states_have_the_width_of_the_encoder_also_without_any_text(predictor: Predictor) -> None:
    width = predictor.states(text for text in ["good"]).shape[1]
    assert predictor.states([]).shape == (0, width)
    empty = predictor.states(["", None])
    assert empty.shape == (2, width)
    assert np.isnan(empty).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "xpu"}, "no device 'xpu'"),
        ({"backend": "tensorrt"}, "no backend 'tensorrt'"),
    ],
)
def test_an_unknown_way_to_compute_is_refused(model_dir: Path, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SenthyError, match=told) as caught:
        Predictor(model_dir, **wrong)
    assert caught.value.hint


def test_threads_that_share_a_predictor_get_the_answers_of_one(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{word} day {number}" for number in range(100) for word in ("good", "bad", "what a", "not a bad")]
    alone = Predictor(model_dir, precision="fp32")
    expected, states = alone.predict_proba([*texts, ""]), alone.states(texts)
    shared, start, inside = Predictor(model_dir, precision="fp32"), threading.Barrier(4), threading.Lock()
    compute = evaluate.predict_probabilities

    def one_at_a_time(*given: Any, **options: Any) -> np.ndarray:
        assert inside.acquire(blocking=False), "two threads use the model at once"
        try:
            return compute(*given, **options)
        finally:
            inside.release()

    def work(place: int) -> np.ndarray:
        start.wait()
        return shared.states(texts) if place % 2 else shared.predict_proba([*texts, ""])

    monkeypatch.setattr(evaluate, "predict_probabilities", one_at_a_time)
    with ThreadPoolExecutor(4) as threads:
        for place, found in enumerate(threads.map(work, range(4))):
            np.testing.assert_allclose(found, states if place % 2 else expected, **TOLERANCE)
    assert shared.empty == 2


def test_half_a_character_does_not_stop_a_prediction(predictor: Predictor) -> None:
    assert predictor.predict("good \ud83d day").label in LABELS


def test_a_text_of_a_megabyte_is_cut_and_counted_with_its_repeats(model_dir: Path) -> None:
    predictor = Predictor(model_dir, device="cpu", precision="fp32")
    long = "good film " * 100_000
    predictions = predictor.predict([long, "bad", long])
    assert predictions[0] == predictions[2]
    assert predictor.truncated == 2
    head = predictor.predict("good film " * 1000)
    assert head.probabilities == pytest.approx(predictions[0].probabilities, abs=1e-5)


@pytest.mark.parametrize("text", ["good " * 5_000, "😀" * 5_000], ids=["words", "emoji"])
def test_what_lies_beyond_the_longest_text_is_not_read_and_counted(
    model_dir: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(model_dir, max_text_bytes=100)
    cleaned: list[str] = []
    monkeypatch.setattr(predictor, "_normalizer", Normalizer("kept", 1, lambda text: cleaned.append(text) or text))
    whole = predictor.predict([text, "bad"])
    assert max(len(one.encode()) for one in cleaned) == 100
    assert predictor.truncated == 1
    assert whole[0].probabilities == pytest.approx(predictor.predict(cleaned[0]).probabilities, abs=1e-5)


def test_a_stream_reads_no_further_than_its_chunk(predictor: Predictor) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        for number in read:
            yield f"good day {number}"

    first = list(itertools.islice(predictor.stream(endless(), chunk=8), 10))
    assert len(first) == 10
    assert next(read) == 16


def test_identical_texts_are_computed_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = predictor._classifier.forward

    def counted(**inputs: object) -> object:
        seen.append(int(inputs["num_texts"]))  # type: ignore[call-overload]
        return forward(**inputs)

    monkeypatch.setattr(predictor._classifier, "forward", counted)
    predictor.predict(["good", "bad", "good", " good "] * 20)
    assert sum(seen) == 2


# --- frames ----------------------------------------------------------------------------------------------------------


def test_freed_memory_is_returned_after_many_tokens_and_not_after_every_call(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(memory, "return_freed", lambda: calls.append(None))
    monkeypatch.setattr(engine, "_RETURN_AFTER", 100)
    predictor = Predictor(model_dir, device="cpu")
    tokens = predictor.prepare(["a good day"]).tokenized.ids.size
    for _ in range(300):
        predictor.predict("a good day")
    assert len(calls) == 300 // -(-100 // tokens)


def test_a_frame_keeps_its_rows_index_and_columns(predictor: Predictor) -> None:
    frame = pd.DataFrame({"id": [5, 6, 7], "tweet": ["good", None, "bad day"], 3: [1.5, 2.5, 3.5]}, index=[9, 3, 9])
    result = predictor.predict_frame(frame)
    assert list(result.columns) == ["id", "tweet", 3, "prediction", "score", "p_negative", "p_positive"]
    assert list(result.index) == [9, 3, 9]
    assert list(frame.columns) == ["id", "tweet", 3]
    alone = predictor.predict(["good", None, "bad day"])
    assert result["prediction"].isna().tolist() == [False, True, False]
    assert result["prediction"].dropna().tolist() == [alone[0].label, alone[2].label]
    assert result["score"].isna().tolist() == [False, True, False]
    assert result["score"].iloc[2] == pytest.approx(alone[2].score)


def test_an_empty_frame_gets_the_columns(predictor: Predictor) -> None:
    result = predictor.predict_frame(pd.DataFrame({"text": []}))
    assert list(result.columns) == ["text", "prediction", "score", "p_negative", "p_positive"]
    assert len(result) == 0


@pytest.mark.parametrize("name", ["prediction", "score", "p_positive"])
def test_columns_of_the_names_that_are_added_are_kept(predictor: Predictor, name: str) -> None:
    frame = pd.DataFrame({"text": ["good"], name: [1]})
    labelled = predictor.predict_frame(frame)
    assert list(labelled) == ["text", name, *(f"senthy_{added}" for added in predictor.added_columns)]
    assert list(labelled[name]) == [1]
    with pytest.raises(ColumnError, match=name):
        predictor.predict_frame(frame, prefix="")


def test_a_missing_column_names_those_found_and_the_nearest(predictor: Predictor) -> None:
    with pytest.raises(ColumnError) as caught:
        predictor.predict_frame(pd.DataFrame({"Review": ["good"], "id": [1]}), "reviews")
    assert "'Review'" in caught.value.message
    assert "'id'" in caught.value.message
    assert "'Review'" in caught.value.hint


def test_hints_about_a_frame_name_arguments_of_python(predictor: Predictor) -> None:
    frame = pd.DataFrame({"text": ["good"]})
    for call in (
        lambda: predictor.predict_frame(pd.DataFrame({"a": ["good"], "b": ["bad"]})),
        lambda: predictor.predict_frame(predictor.predict_frame(frame, prefix="x_"), prefix="x_"),
    ):
        with pytest.raises(ColumnError) as caught:
            call()
        assert "--" not in caught.value.hint
        assert "text_column=" in caught.value.hint


def test_a_text_column_that_stands_twice_is_refused(predictor: Predictor) -> None:
    frame = pd.DataFrame([["good", "bad"]], columns=["text", "text"])
    with pytest.raises(ColumnError, match="several columns"):
        predictor.predict_frame(frame, "text")


# --- models that cannot be used --------------------------------------------------------------------------------------


def test_without_a_name_the_newest_model_is_taken_fine_tuned_or_not(tiny_encoder: LoadedEncoder) -> None:
    models = Path("models")
    assert newest(models) == []
    made = [
        (paths.published_model(models, "linear"), "linear", "2026-01-03T09:00:00+00:00"),
        (paths.finetuned_model(models, "han"), "han", "2026-01-03T10:30:00+02:00"),  # 8:30 in UTC
        (models / "my own", "lstm", "2026-01-04T00:00:00+00:00"),
    ]
    for place, head, created in made:
        write_model(place, tiny_encoder, head=head)
        document = json.loads((place / paths.MODEL_JSON).read_text(encoding="utf-8"))
        (place / paths.MODEL_JSON).write_text(
            json.dumps({**document, "created": created, "checksum": None}), encoding="utf-8"
        )
    assert [place.name for place in newest(models)] == [made[2][0].name, made[0][0].name, made[1][0].name]
    assert Predictor(device="cpu").info.head == "lstm"
    (made[2][0] / paths.MODEL_JSON).write_text("{", encoding="utf-8")
    assert Predictor(device="cpu").info.head == "linear"
    with pytest.raises(ModelError, match="lstm_roberta_model_final"):
        published(models, "lstm")


def test_a_model_whose_publishing_was_stopped_is_found(tiny_encoder: LoadedEncoder) -> None:
    place = write_model(paths.published_model(Path("models"), "lstm"), tiny_encoder)
    place.rename(place.parent / f".{place.name}.old")
    assert Predictor(device="cpu").info.head == "lstm"


def test_a_damaged_model_directory_is_reported(tiny_encoder: LoadedEncoder, tmp_path: Path) -> None:
    place = write_model(tmp_path / "model", tiny_encoder)
    weights = place / paths.MODEL_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(ModelError, match="damaged"):
        Predictor(place, device="cpu")
    (place / paths.MODEL_JSON).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="damaged"):
        Predictor(place, device="cpu")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    (place / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="never loads pickles"):
        Predictor(place, device="cpu")


def test_a_newer_format_says_upgrade(model_dir: Path, tiny_encoder: LoadedEncoder, tmp_path: Path) -> None:
    place = write_model(tmp_path / "model", tiny_encoder)
    document = json.loads((place / paths.MODEL_JSON).read_text(encoding="utf-8"))
    (place / paths.MODEL_JSON).write_text(json.dumps(document | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(ModelError, match="format 99") as caught:
        Predictor(place, device="cpu")
    assert "Upgrade senthy" in caught.value.hint


def test_an_unknown_normaliser_is_refused(tiny_encoder: LoadedEncoder, tmp_path: Path) -> None:
    place = write_model(tmp_path / "model", tiny_encoder, normalizer="tweet@99")
    with pytest.raises(ModelError, match="tweet@99"):
        Predictor(place, device="cpu")


def test_an_encoder_outside_is_found_and_checked(
    tiny_encoder: LoadedEncoder, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    place = write_model(tmp_path / "model", tiny_encoder, bundle=False, encoder_name="owner/not-here")
    assert Predictor(place, device="cpu", encoder=tiny_encoder_dir).predict("good").label in LABELS
    with pytest.raises(EncoderError, match="owner/not-here"):
        Predictor(place, device="cpu", offline=True)
    other = write_model(tmp_path / "other", tiny_encoder, bundle=False, encoder_fingerprint="0" * 64)
    with pytest.raises(EncoderError, match="not the one"):
        Predictor(other, device="cpu", encoder=tiny_encoder_dir)


@pytest.mark.processor
@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=pytest.mark.processor(needs="bf16")), "int8"])
def test_other_precisions_say_nearly_the_same(model_dir, precision):
    texts = [f"{word} day {number}" for number in range(300) for word in ("good", "bad", "what a", "not a bad")]
    exact = Predictor(model_dir, precision="fp32").predict_proba(texts)
    other = Predictor(model_dir, precision=precision).predict_proba(texts)
    assert np.abs(other - exact).max() < 0.05
    assert (other.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.99


def test_int8_where_there_is_none_says_what_else_there_is(model_dir, monkeypatch):
    monkeypatch.setattr("sentiment_hybrid.models.processor.computes_int8", lambda: False)
    monkeypatch.setattr("sentiment_hybrid.models.processor.computes_bf16", lambda: True)
    with pytest.raises(TrainingError, match="does not support int8") as caught:
        Predictor(model_dir, precision="int8")
    assert "bf16" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "inside", "look"),
    [
        ("han_roberta_model_final", "", lambda place: published(place.parent, "han")),
        ("mine", "", model_directory),
        ("packed", "han", model_directory),
        ("encoder", "", lambda place: directory_of(str(place), None)),
        ("han_roberta_model_onnx", "", lambda place: exported(place.parent, "han")),
    ],
)
def test_every_kind_of_folder_is_found_after_a_stop_between_the_two_renames(
    tmp_path: Path, name: str, inside: str, look: Callable[[Path], Path]
) -> None:
    (tmp_path / f".{name}.old" / inside).mkdir(parents=True)
    assert look(tmp_path / name / inside) == tmp_path / name / inside
    assert (tmp_path / name / inside).is_dir()


def test_the_texts_of_a_chunk_are_fewer_the_larger_the_encoder(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Predictor(model_dir, device="cpu").chunk == 1024
    monkeypatch.setattr(engine, "_CHUNK_WORK", 0)
    assert Predictor(model_dir, device="cpu").chunk == 128
