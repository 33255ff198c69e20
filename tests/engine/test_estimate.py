"""Estimates: sums of what there is to do, at the rates given."""

from __future__ import annotations

import numpy as np
import pytest

from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.estimate import Amount, Speeds, Todo, Training, estimate, survey

SIZES = {"hidden_size": 10, "trained_parameters": 100, "model_bytes": 400}


def test_time_is_work_divided_by_rates():
    training = Training(Amount(100, 2000.0), Amount(20, 400.0), epochs=3, rows_per_step=32, runs=2)
    todo = Todo(training, test=Amount(30, 600.0), tests=2, windows=150, distinct=140, missing=70, missing_tokens=700.0)
    made = estimate(todo, Speeds(train=1000.0, validate=4000.0, encode=100.0), **SIZES)
    assert made.seconds == {
        "encoding": pytest.approx(7.0),
        "training": pytest.approx(2 * 3 * (2.0 + 0.1)),
        "testing": pytest.approx(2 * 0.15),
    }
    assert made.total_seconds == pytest.approx(sum(made.seconds.values()))
    assert training.steps == 2 * 3 * 4
    assert made.bytes["token states"] == 700 * 10 * 2
    assert made.bytes["model"] == 400
    assert made.bytes["checkpoints, while it trains"] == 3 * 3 * 4 * 100


def test_a_search_stands_between_its_smallest_and_its_largest_head():
    trials = Training(Amount(100, 1000.0), Amount(0, 0.0), epochs=2, rows_per_step=32, runs=5)
    made = estimate(Todo(None, trials), Speeds(1.0, 1.0, trials=(1000.0, 250.0)), **SIZES)
    assert made.seconds == {"searching": pytest.approx(5 * 2 * (1.0 + 4.0) / 2)}
    assert made.bytes == {}


def tokenized(*texts):
    lengths = [len(text) for text in texts]
    return TokenizedTexts(
        np.array([token for text in texts for token in text], dtype=np.int32),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.arange(len(texts) + 1),
        pad_id=1,
        truncated=0,
    )


def test_a_survey_counts_each_distinct_window_once_and_those_stored_not_at_all(make_session):
    session = make_session()
    session.states.ensure(tokenized([0, 5, 2]), token_budget=64)
    found = survey(session.states.folder, [tokenized([0, 5, 2], [0, 6, 7, 2]), tokenized([0, 6, 7, 2], [0, 2])])
    assert (found.windows, found.distinct, found.missing, found.missing_tokens) == (4, 3, 2, 6)
    then = survey(session.states.folder, [tokenized([0, 2], [0, 8, 2])], known=found.keys)
    assert (then.missing, then.missing_tokens) == (1, 3)


def test_a_survey_leaves_a_damaged_shard_where_it_is(make_session):
    session = make_session()
    session.states.ensure(tokenized([0, 5, 2]), token_budget=64)
    (keys,) = session.states.folder.glob("shard-*/keys.npy")
    keys.write_bytes(b"no array")
    assert survey(session.states.folder, [tokenized([0, 5, 2])]).missing == 1
    assert keys.read_bytes() == b"no array"
