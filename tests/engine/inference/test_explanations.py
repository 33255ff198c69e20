"""Explanations: words with weights that add up to what the text changes, for any head and any text."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.inference import attribution
from sentiment_hybrid.engine.inference.explanations import Explanation, words_of
from sentiment_hybrid.engine.inference.model_directory import save_model
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import DataError, LabelError, ModelError
from sentiment_hybrid.models import build_head, head_config
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder

from ...conftest import model_info

HEADS = {"lstm": {"hidden": 8, "attention_heads": 2}, "han": {"hidden": 8}, "linear": {}}
TEXTS = ["a very good film", "what a bad day this was!!!", "good bad " * 12, "not bad :)"]


def write_model(directory: Path, encoder_dir: Path, head: str) -> Path:
    """A model with random weights whose logits differ from text to text."""
    encoder = load_encoder_dir(encoder_dir)
    torch.manual_seed(3)
    shared = Encoder(encoder.model, 0)
    module = build_head(head, head_config(head, HEADS[head]), input_size=shared.hidden_size, num_classes=2)
    with torch.no_grad():
        for weights in module.parameters():
            weights.mul_(3.0)
    info = model_info(encoder, head, head_config=HEADS[head], temperature=0.7)
    save_model(directory, classifier=Classifier(shared, module), encoder=encoder, info=info, bundle=True)
    return directory


@pytest.fixture(scope="module")
def models(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Predictor]:
    folder = tmp_path_factory.mktemp("explained")
    return {head: Predictor(write_model(folder / head, tiny_encoder_dir, head), precision="fp32") for head in HEADS}


@pytest.fixture(scope="module")
def explained(models: dict[str, Predictor]) -> dict[str, list[Explanation]]:
    return {head: predictor.explain(TEXTS) for head, predictor in models.items()}


@pytest.mark.parametrize("head", HEADS)
def test_weights_sum_to_the_difference_from_the_baseline(explained: dict[str, list[Explanation]], head: str) -> None:
    for one in explained[head]:
        change = one.logit - one.baseline
        assert abs(sum(word.weight for word in one.words) - change) <= max(0.01, 0.01 * abs(change)) + 1e-6
        assert one.error == pytest.approx(sum(word.weight for word in one.words) - change, abs=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_explained_are_the_prediction_and_its_probability(
    models: dict[str, Predictor], explained: dict[str, list[Explanation]], head: str
) -> None:
    for one, prediction in zip(explained[head], models[head].predict(TEXTS), strict=True):
        assert (one.label, one.prediction) == (prediction.label, prediction.label)
        assert one.score == pytest.approx(prediction.score, abs=1e-4)


def test_baseline_is_the_text_with_every_token_masked(models: dict[str, Predictor]) -> None:
    predictor = models["han"]
    one = predictor.explain("good film")
    tokenized = predictor.prepare(["good film"]).tokenized
    ids = torch.from_numpy(tokenized.ids.astype(np.int64))[None]
    ids[0, 1:-1] = predictor._tokenizer.mask_token_id
    with torch.no_grad():
        mask = torch.ones_like(ids, dtype=torch.bool)
        logits = predictor._classifier(
            input_ids=ids, attention_mask=mask, text_index=torch.zeros(1, dtype=torch.int64), num_texts=1
        ).logits[0]
    assert one.baseline == pytest.approx(float(logits[predictor.labels.index(one.label or "")]), abs=1e-5)


def test_each_weight_is_near_that_of_an_average_over_many_points(models: dict[str, Predictor]) -> None:
    predictor = models["lstm"]
    tokenized = predictor.prepare(["what a bad day"]).tokenized
    way = attribution._Way(
        predictor._classifier, tokenized, predictor._compute, torch.tensor([0, 2]), predictor._tokenizer.mask_token_id
    )
    steps = (np.arange(400) + 0.5) / 400
    points = way.points(np.zeros(400, dtype=int), steps, np.ones(400, dtype=int))
    expected = np.mean([gradients for gradients, _ in points], axis=0)
    (found,) = attribution.attribute(
        predictor._classifier,
        tokenized,
        lambda logits: np.ones(1, dtype=int),
        compute=predictor._compute,
        special=np.array([0, 2]),
        baseline_id=predictor._tokenizer.mask_token_id,
    )
    np.testing.assert_allclose(found.weights, expected, atol=0.01 * abs(expected.sum()))


def test_points_are_added_no_further_than_a_long_text_can_afford(
    models: dict[str, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "_NEAR", -1.0)
    monkeypatch.setattr(attribution, "_NEAR_SHARE", -1.0)
    monkeypatch.setattr(attribution, "_MOST_TOKENS", 1000)
    computed: dict[int, int] = {}
    points = attribution._Way.points

    def counted(way: attribution._Way, rows: np.ndarray, places: np.ndarray, targets: np.ndarray) -> object:
        for row in rows.tolist():
            computed[row] = computed.get(row, 0) + 1
        return points(way, rows, places, targets)

    monkeypatch.setattr(attribution._Way, "points", counted)
    predictor = models["lstm"]
    texts = ["good day", "good " * 20, "good " * 500]
    lengths = predictor.prepare(texts).tokenized.lengths.tolist()
    found = predictor.explain(texts)
    for row, length in enumerate(lengths):
        assert computed[row] == 9 or computed[row] * length <= 1000
    assert computed[0] > computed[1] > computed[2] == 9
    for one in found:
        total = sum(word.weight for word in one.words) - (one.logit - one.baseline)
        assert one.error == pytest.approx(total, abs=1e-4)


def averaged(slope: Callable[[float], float], level: Callable[[float], float]) -> tuple[attribution._Average, int]:
    """The average over a way whose logit is ``level``, with the derivative ``slope``, and its number of points."""
    average = attribution._Average()
    points = 0
    further = True
    while further:
        places = average.missing()
        points += len(places)
        average.add(places, [(np.array([slope(place), 0.0]), level(place)) for place in places])
        further = average.refine(1)
    return average, points


@given(st.floats(0.02, 0.98), st.floats(3.0, 300.0), st.floats(-5.0, 5.0))
@settings(deadline=None)
def test_a_step_anywhere_on_the_way_is_found_with_few_points(place: float, steep: float, height: float) -> None:
    average, points = averaged(
        lambda at: height * steep / 2.0 / np.cosh(steep * (at - place)) ** 2,
        lambda at: height / 2.0 * float(np.tanh(steep * (at - place))),
    )
    change = height / 2.0 * (np.tanh(steep * (1.0 - place)) + np.tanh(steep * place))
    assert average.weights.sum() - change == pytest.approx(average.error, abs=1e-9)
    assert abs(average.error) <= max(0.01, 0.01 * abs(change))
    assert points <= 65


def test_a_jump_on_the_way_ends_with_its_error() -> None:
    average, points = averaged(lambda at: 0.0, lambda at: float(at > 0.3))
    assert average.error == pytest.approx(-1.0)
    assert points < 100


def test_errors_of_parts_that_cancel_each_other_are_not_taken_for_exact() -> None:
    average, points = averaged(lambda at: 40.0 * np.cos(40.0 * at), lambda at: float(np.sin(40.0 * at)))
    assert points > 30
    assert sum(abs(average._error(*part)) for part in average._parts) <= 0.03


def test_a_label_can_be_chosen_for_all_texts_or_for_each(models: dict[str, Predictor]) -> None:
    predictor = models["han"]
    both = [predictor.explain(TEXTS[0], label=label) for label in predictor.labels]
    assert [one.label for one in both] == ["negative", "positive"]
    assert sum(one.score or 0 for one in both) == pytest.approx(1.0)
    each = predictor.explain(TEXTS[:2], label=["positive", None])
    assert [word.weight for word in each[0].words] == pytest.approx([word.weight for word in both[1].words], abs=1e-5)
    assert each[1].label == predictor.predict(TEXTS[1]).label


def test_attention_sums_to_less_than_one_and_is_the_weight_of_its_method(models: dict[str, Predictor]) -> None:
    for one in models["han"].explain(TEXTS, method="attention"):
        assert 0.0 < sum(word.attention for word in one.words) < 1.0
        assert [word.weight for word in one.words] == [word.attention for word in one.words]


def test_texts_with_nothing_in_them_have_no_words(models: dict[str, Predictor]) -> None:
    empty, null, full = models["linear"].explain(["  ", None, "good"])
    assert empty == null
    assert (empty.label, empty.score, empty.words) == (None, None, ())
    assert full.words


def test_what_lies_beyond_the_windows_is_counted_and_has_no_words(models: dict[str, Predictor]) -> None:
    text = "good day " * 11_000
    one = models["han"].explain(text)
    assert 98_000 < one.unread < len(text)
    assert one.words[-1].end <= len(one.text) - one.unread + len("good")
    assert models["han"].explain("good day").unread == 0


def test_a_label_that_the_model_has_not_is_refused_with_those_that_it_has(models: dict[str, Predictor]) -> None:
    with pytest.raises(LabelError, match="'neutral'") as caught:
        models["han"].explain("good", label="neutral")
    assert "negative, positive" in caught.value.hint


def test_labels_are_as_many_as_texts_and_a_method_is_known(models: dict[str, Predictor]) -> None:
    with pytest.raises(LabelError, match="1 label for 2 texts"):
        models["han"].explain(TEXTS[:2], label=["good"])
    with pytest.raises(DataError, match="no method 'saliency'"):
        models["han"].explain(TEXTS[0], method="saliency")  # type: ignore[call-overload]


@pytest.mark.processor(needs="bf16")
def test_an_explanation_is_in_float32_after_predictions_in_bf16(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    predictor = Predictor(write_model(tmp_path / "han", tiny_encoder_dir, "han"), precision="bf16")
    before = predictor.explain(TEXTS)
    predictor.predict(TEXTS)
    assert predictor.explain(TEXTS) == before


def test_an_onnx_export_says_what_to_use_instead(models: dict[str, Predictor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models["linear"], "_onnx", object())
    with pytest.raises(ModelError, match="ONNX") as caught:
        models["linear"].explain("good")
    assert "exported from" in caught.value.hint


def test_neighbours_do_not_change_an_explanation(
    models: dict[str, Predictor], explained: dict[str, list[Explanation]]
) -> None:
    alone, beside = models["lstm"].explain(TEXTS[0]), explained["lstm"][0]
    np.testing.assert_allclose([word.weight for word in alone.words], [word.weight for word in beside.words], atol=1e-3)


@given(st.text(max_size=40))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_lie_in_order_in_any_text_and_no_token_is_lost(text: str) -> None:
    at = 0
    offsets = []
    for length in (1, 2, 3, 1, 5, 1, 2) * 6:
        if at < len(text):
            offsets.append((at, min(len(text), at + length)))
            at += length
    words = words_of(text, offsets, np.ones(len(offsets)), np.zeros(len(offsets)))
    assert sum(word.weight for word in words) == len(offsets) or not text
    assert all(word.text == text[word.start : word.end] for word in words)
    assert all(first.end <= second.start for first, second in itertools.pairwise(words))


def test_words_are_not_pieces_of_tokens() -> None:
    text = "@user don't like #well-made stuff!!! 😂😂 :)"
    pieces = [(0, 5), (5, 7), (7, 9), (9, 11), (11, 16), (16, 18), (18, 27), (27, 33), (33, 36), (36, 38), (38, 39)]
    words = words_of(text, [*pieces, (39, 42)], np.ones(12), np.zeros(12))
    assert [word.text for word in words] == ["@user", "don't", "like", "#well-made", "stuff", "!!!", "😂😂", ":)"]


def test_the_first_word_has_its_token_though_tokenizers_place_it_one_character_too_late() -> None:
    words = words_of("I am", [(1, 1), (2, 4)], np.array([2.0, 1.0]), np.zeros(2))
    assert [(word.text, word.weight) for word in words] == [("I", 2.0), ("am", 1.0)]


def test_words_that_share_a_token_are_one() -> None:
    words = words_of("not good at all", [(0, 8), (8, 11), (11, 15)], np.array([2.0, 1.0, 1.0]), np.zeros(3))
    assert [(word.text, word.weight) for word in words] == [("not good", 2.0), ("at", 1.0), ("all", 1.0)]
