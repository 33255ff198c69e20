"""The helper process hashes as this one does, and is not needed."""

from __future__ import annotations

import numpy as np
import pytest

from sentiment_hybrid.data import splits
from sentiment_hybrid.data.hashing import Hasher

BATCHES = [[f"@anna text {batch} {n} é \ud800" for n in range(50)] for batch in range(4)]


def hashed(hasher: Hasher) -> list[np.ndarray]:
    return [np.stack(result()) for result in [hasher.start(batch) for batch in BATCHES]]


@pytest.mark.parametrize("alone", [None, 0, 100])
def test_every_text_is_hashed_as_without_a_helper(alone: int | None) -> None:
    with Hasher(3, version=2, alone=alone) as hasher:
        found = hashed(hasher)
    assert np.array_equal(found, [np.stack(splits.hash_raw(batch, 3, version=2)) for batch in BATCHES])


def test_a_helper_that_dies_is_done_without() -> None:
    with Hasher(3, version=2, alone=0) as hasher:
        hasher.start(BATCHES[0])()
        (process,) = hasher._pool._processes.values()
        process.terminate()
        process.join()
        assert np.array_equal(hashed(hasher), [np.stack(splits.hash_raw(batch, 3, version=2)) for batch in BATCHES])


def test_the_helper_ends_with_the_block() -> None:
    with Hasher(3, version=2, alone=0) as hasher:
        hasher.start(BATCHES[0])()
        (process,) = hasher._pool._processes.values()
    process.join(20)
    assert process.exitcode is not None
