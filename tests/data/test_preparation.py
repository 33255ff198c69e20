"""Batches come back in their order, prepared as one process would, whatever happens to the helpers."""

from __future__ import annotations

import marshal
from collections.abc import Iterator

import numpy as np
import pytest

from sentiment_hybrid.data import splits
from sentiment_hybrid.data.normalizers import from_id
from sentiment_hybrid.data.ordering import CLEANED_AWAY, EMPTY, KEEP
from sentiment_hybrid.data.preparation import Preparation, Prepared, Recipe, prepare

RECIPE = Recipe("tweet@2", 3, 2, test_size=0.2, valid_size=0.1)
BATCHES = [[f"@anna text {batch} {n} é \ud800" if n % 5 else "  " for n in range(50)] for batch in range(8)]


def batches() -> Iterator[tuple[int, list[str], list[str]]]:
    for number, texts in enumerate(BATCHES):
        yield number, texts, texts if number % 2 else [f"raw {text}" for text in texts]


def shown(prepared: Prepared) -> tuple[object, ...]:
    return [fact.tolist() for fact in prepared.facts], prepared.pieces


EXPECTED = [(number, shown(prepare(RECIPE, texts, raws))) for number, texts, raws in batches()]


@pytest.mark.parametrize("alone", [None, 0, 100])
def test_batches_come_back_in_order_as_without_helpers(alone: int | None) -> None:
    with Preparation(alone=alone) as preparation:
        found = [(number, shown(done)) for number, done in preparation.each(batches(), RECIPE)]
    assert found == EXPECTED


def test_a_batch_has_the_hashes_of_its_raw_texts_and_leaves_out_empty_ones() -> None:
    texts = [" ", "Good @anna", "good  @anna", "bad &amp; worse", "&nbsp;"]
    done, pieces = prepare(RECIPE, texts, texts)
    cleaned = from_id("tweet@2").many(texts)
    assert done.reasons.tolist() == [EMPTY, KEEP, KEEP, KEEP, CLEANED_AWAY]
    assert np.array_equal((done.split_hashes, done.keys), splits.hash_raw(texts, 3, version=2))
    assert done.identities.tolist() == splits.identities(cleaned).tolist()
    assert sum(len(marshal.loads(packed)[1]) for _, packed in pieces) == 3


def test_helpers_that_die_are_done_without() -> None:
    with Preparation(alone=0) as preparation:
        found = []
        for number, done in preparation.each(batches(), RECIPE):
            found.append((number, shown(done)))
            for process in list((preparation._pool._processes or {}).values()):
                process.terminate()
    assert found == EXPECTED


def test_helpers_end_with_the_block() -> None:
    with Preparation(alone=0) as preparation:
        list(preparation.each(batches(), RECIPE))
        processes = list(preparation._pool._processes.values())
    assert processes
    for process in processes:
        process.join(20)
        assert process.exitcode is not None
