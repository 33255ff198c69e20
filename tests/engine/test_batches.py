"""Windows, steps and packing: every token and every row once, whatever the budget or the number of processes."""

from __future__ import annotations

import csv
import gzip
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.engine import tokenization
from sentiment_hybrid.engine.batches import TokenizedTexts, collate, make_batches, plan_epoch, steps_per_epoch
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.models.classifier import count_tokens


class CharacterTokenizer:
    """A tokenizer of one id per character, between a start (1) and an end (2), with padding 0."""

    pad_token_id = 0

    def __call__(self, texts, add_special_tokens=True, **_):
        def ids(text):
            inner = [3 + ord(char) % 90 for char in text]
            return [1, *inner, 2] if add_special_tokens else inner

        return {"input_ids": ids(texts) if isinstance(texts, str) else [ids(text) for text in texts]}


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 5), st.integers(1, 40))
def test_chunks_for_the_tokenizer_hold_every_text_once_and_few_characters(sizes, texts, characters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "_CHUNK", texts)
        patch.setattr(tokenization, "_CHUNK_CHARACTERS", characters)
        bounds = list(tokenization._chunk_bounds(["x" * size for size in sizes]))
    assert bounds == sorted(set(bounds))
    assert (bounds[:1], bounds[-1:]) == (([0], [len(sizes)]) if sizes else ([], []))
    for start, end in itertools.pairwise(bounds):
        assert end - start <= texts
        assert end - start == 1 or sum(sizes[start:end]) <= characters


lengths_strategy = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(lambda x: np.array(x, dtype=np.int64))


def build(texts: list[str], max_length: int = 10, max_windows: int = 4) -> TokenizedTexts:
    return tokenize(texts, CharacterTokenizer(), max_length=max_length, max_windows=max_windows)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=20), st.integers(4, 12), st.integers(1, 6))
def test_windows_hold_every_token_of_a_text_in_order_up_to_the_bound(texts, max_length, max_windows):
    tokenized = build(texts, max_length, max_windows)
    assert len(tokenized) == len(texts)
    assert tokenized.window_lengths.max() <= max_length
    room = max_length - 2
    for row, text in enumerate(texts):
        windows, _ = tokenized.windows_of(np.array([row]))
        inner = []
        for window in windows:
            ids = tokenized.ids[tokenized.window_offsets[window] : tokenized.window_offsets[window + 1]].tolist()
            assert ids[0] == 1
            assert ids[-1] == 2
            inner += ids[1:-1]
        assert inner == [3 + ord(char) % 90 for char in text][: room * max_windows]
    assert tokenized.truncated == sum(len(text) > room * max_windows for text in texts)


def test_windows_of_one_text_are_nearly_equal_in_length():
    tokenized = build(["x" * 9], max_length=10)  # 8 fit beside the special tokens: one more makes two windows
    assert tokenized.window_lengths.tolist() == [7, 6]


@given(lengths_strategy, st.integers(1, 40), st.integers(16, 400), st.integers(0, 5), st.integers(1, 4))
@settings(deadline=None)
def test_an_epoch_has_every_row_once_in_steps_of_the_same_size(lengths, rows_per_step, budget, seed, epoch):
    steps = list(plan_epoch(lengths, rows_per_step=rows_per_step, token_budget=budget, seed=seed, epoch=epoch))
    assert len(steps) == steps_per_epoch(len(lengths), rows_per_step)
    assert sorted(np.concatenate([rows for rows, _ in steps]).tolist()) == list(range(len(lengths)))
    sizes = sorted((len(rows) for rows, _ in steps), reverse=True)
    assert all(size == rows_per_step for size in sizes[:-1])
    for rows, micro_batches in steps:
        assert sorted(np.concatenate(micro_batches).tolist()) == sorted(rows.tolist())


@given(lengths_strategy, st.integers(1, 40), st.integers(1, 5))
@settings(deadline=None)
def test_budget_and_processes_only_subdivide_the_same_steps(lengths, rows_per_step, world):
    whole = list(plan_epoch(lengths, rows_per_step=rows_per_step, token_budget=10**9, seed=1, epoch=1))
    shards = [
        list(plan_epoch(lengths, rows_per_step=rows_per_step, token_budget=50, seed=1, epoch=1, rank=r, world=world))
        for r in range(world)
    ]
    for number, (rows, _) in enumerate(whole):
        mine = [np.concatenate(shard[number][1]) for shard in shards if shard[number][1]]
        assert all(np.array_equal(shard[number][0], rows) for shard in shards)
        assert sorted(np.concatenate(mine).tolist()) == sorted(rows.tolist())


def test_epochs_are_shuffled_anew_and_the_same_epoch_is_reproducible():
    lengths = np.arange(1, 200)

    def order(seed, epoch):
        plan = plan_epoch(lengths, rows_per_step=8, token_budget=500, seed=seed, epoch=epoch)
        return np.concatenate([rows for rows, _ in plan]).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


@given(lengths_strategy, st.integers(10, 500))
def test_packed_batches_stay_under_the_budget_unless_one_row_alone_exceeds_it(lengths, budget):
    batches = make_batches(lengths, np.arange(len(lengths)), budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(st.lists(st.text(max_size=40), min_size=1, max_size=12), st.randoms())
def test_a_batch_holds_the_windows_of_its_texts_and_padding_elsewhere(texts, random):
    tokenized = build(texts)
    rows = list(range(len(texts)))
    random.shuffle(rows)
    batch = collate(tokenized, np.array(rows))
    assert batch.input_ids is not None
    assert batch.num_texts == len(texts)
    assert (batch.input_ids[~batch.attention_mask] == 0).all()
    windows, text_index = tokenized.windows_of(np.array(rows))
    assert batch.text_index.tolist() == text_index.tolist() == sorted(text_index.tolist())
    for place, window in enumerate(windows):
        expected = tokenized.ids[tokenized.window_offsets[window] : tokenized.window_offsets[window + 1]].tolist()
        assert batch.input_ids[place][batch.attention_mask[place]].tolist() == expected


def test_real_tokenizer_gives_roberta_special_tokens_around_each_window(shared):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "encoders" / "roberta-base-tokenizer")
    tokenized = tokenize(["not bad at all :)", "word " * 30], tokenizer, max_length=16, max_windows=8)
    assert tokenized.pad_id == 1
    starts = tokenized.ids[tokenized.window_offsets[:-1]]
    ends = tokenized.ids[tokenized.window_offsets[1:] - 1]
    assert set(starts.tolist()) == {0}
    assert set(ends.tolist()) == {2}
    assert np.diff(tokenized.text_offsets).tolist() == [1, 3]


@pytest.mark.parametrize("rows_per_step", [16, 32, 64, 128])
def test_padding_is_under_5_percent_on_tweets(shared, rows_per_step):
    texts = []
    with gzip.open(shared / "data/tweets-clean-posneg/final_clean_no_neutral_no_duplicates_v1.csv.gz", "rt") as file:
        texts = [row["text"] for row in itertools.islice(csv.DictReader(file), 20_000)]
    # Words and marks come close to the lengths that a subword tokenizer gives.
    lengths = np.array([2 + len(re.findall(r"\w{1,6}|[^\w\s]", text)) for text in texts])
    plan = plan_epoch(lengths, rows_per_step=rows_per_step, token_budget=16_384, seed=1, epoch=1)
    batches = [batch for _, step in plan for batch in step]
    places = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert sum(map(len, batches)) == len(lengths)
    assert 0.0 < 1.0 - lengths.sum() / places < 0.05


@given(lengths_strategy, st.integers(2, 40), st.integers(2, 4))
@settings(deadline=None)
def test_processes_get_about_the_same_number_of_tokens(lengths, rows_per_step, world):
    plans = [
        list(plan_epoch(lengths, rows_per_step=rows_per_step, token_budget=10**9, seed=1, epoch=1, rank=r, world=world))
        for r in range(world)
    ]
    for step in zip(*plans, strict=True):
        tokens = [sum(int(lengths[part].sum()) for part in own) for _, own in step]
        # Rows stand in order of length and are dealt out in turn: no more apart than the longest row.
        assert max(tokens) - min(tokens) <= lengths[step[0][0]].max()


@given(st.lists(st.text(max_size=40), min_size=1, max_size=12))
def test_a_batch_tells_the_sizes_that_its_mask_has(texts):
    tokenized = build(texts)
    batch = collate(tokenized, np.arange(len(texts)))
    expected = count_tokens(batch.attention_mask, batch.text_index, batch.num_texts)
    for name in ("per_window", "per_text", "windows"):
        assert getattr(batch.counts, name).tolist() == getattr(expected, name).tolist()
