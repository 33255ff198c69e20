"""Rows come back from the disk in the order asked for, whatever their partitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.data.partitions import Partitions, pack

TEXTS = st.text(max_size=8) | st.just("half a character \ud800")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(TEXTS, max_size=60), batch=st.integers(1, 20), count=st.sampled_from([1, 3, 64]),
    draw=st.randoms(use_true_random=False),
)  # fmt: skip
def test_kept_rows_come_back_once_each_by_position(
    texts: list[str], batch: int, count: int, draw: object, tmp_path: Path
) -> None:
    seeded = np.random.default_rng(draw.getrandbits(32))  # type: ignore[attr-defined]
    keys = seeded.integers(0, 2**64, len(texts), dtype=np.uint64)
    splits = seeded.integers(0, 3, len(texts)).astype(np.uint8)
    kept = np.flatnonzero(seeded.random(len(texts)) < 0.8)
    positions = np.zeros(len(texts), dtype=np.int64)
    positions[seeded.permutation(kept)] = np.arange(1, len(kept) + 1)
    raws = [None if number % 2 else f"raw {number}" for number in range(len(texts))]
    with Partitions(tmp_path, count=count) as partitions:
        for start in range(0, len(texts), batch):
            part = slice(start, start + batch)
            some = np.flatnonzero((positions[part] > 0) | (keys[part] % 2 == 0))
            pieces = pack(texts[part], raws[part], rows=some, splits=splits[part], keys=keys[part], count=count)
            partitions.add(pieces, start)
        assert not list(tmp_path.iterdir())
        found = [
            row
            for some in partitions.in_order(positions)
            for row in zip(*(values.tolist() for values in some), strict=True)
        ]
    expected = [(row, texts[row], raws[row]) for row in np.argsort(positions) if positions[row]]
    assert found == expected
