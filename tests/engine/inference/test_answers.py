"""Answers among some of a model's labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine.inference.answers import among, places_of
from sentiment_hybrid.errors import LabelError

LABELS = ("negative", "neutral", "positive")


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.tuples(*[st.floats(-200, 200)] * 3), min_size=1, max_size=5),
    places=st.sampled_from([(0, 1), (0, 2), (1, 2), (0, 1, 2)]),
)
def test_they_are_those_of_a_softmax_over_these_labels_alone(
    logits: list[tuple[float, ...]], places: tuple[int, ...]
) -> None:
    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    given_logits = np.array(logits)
    found = among(softmax(given_logits), places)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found, softmax(given_logits[:, list(places)]), atol=1e-6)


def test_where_all_of_them_are_0_none_is_preferred_and_no_answer_stays_none() -> None:
    given_rows = np.array([[0.0, 1.0, 0.0], [np.nan] * 3], dtype=np.float32)
    found = among(given_rows, (0, 2))
    assert found.dtype == np.float32
    assert found[0].tolist() == [0.5, 0.5]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (["positive", "negative"], (0, 2)),
        ([" Neutral", "POSITIVE", "positive"], (1, 2)),
        (["positive", "neutral", "negative"], (0, 1, 2)),
    ],
)
def test_labels_are_named_in_any_order_and_case_and_answered_in_the_model_s(
    wanted: list[str], places: tuple[int, ...]
) -> None:
    assert places_of(LABELS, wanted) == places


@pytest.mark.parametrize(
    "wanted", [["positive", "mixed"], [], ["positive"], ["positive", "Positive"], ["positive", ""]]
)
def test_an_unknown_label_or_fewer_than_two_are_refused_with_the_model_s_list(wanted: list[str]) -> None:
    with pytest.raises(LabelError) as caught:
        places_of(LABELS, wanted)
    assert "negative, neutral, positive" in f"{caught.value.message} {caught.value.hint}"
