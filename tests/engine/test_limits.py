"""The machine's limits: rates of products and of copying, each counted as it should be."""

from __future__ import annotations

import pytest

from sentiment_hybrid.engine import limits


def test_a_layers_products_are_counted_for_every_token_and_layer():
    shapes = limits.encoder_shapes(10, hidden=4, intermediate=16)
    assert sum(2 * m * k * n for m, k, n in shapes) == 2 * 10 * (4 * 4 * 4 + 2 * 4 * 16)
    assert limits.encoder_flops(10, hidden=4, intermediate=16, layers=3) == 3 * 2 * 10 * (4 * 4 * 4 + 2 * 4 * 16)


def test_a_rate_is_that_of_all_products_together(monkeypatch):
    seconds = {(2, 3, 4): 1.0, (2, 4, 3): 3.0}
    asked = []
    monkeypatch.setattr(limits, "fastest", lambda work, share, device: asked.append(share) or seconds[work_shape(work)])

    def work_shape(work):
        left, weight = work.args
        return (*left.shape, len(weight))

    shapes = [(2, 3, 4), (2, 3, 4), (2, 4, 3)]
    assert limits.matmul_rate(shapes, seconds=2.0) == pytest.approx(3 * 48 / (1.0 + 1.0 + 3.0))
    assert asked == [1.0, 1.0], "equal shapes are measured once"


def test_the_fastest_run_counts_and_the_first_two_do_not(monkeypatch):
    now = [0.0]
    takes = iter([0.1, 0.1, 5.0, 3.0, 4.0, 4.0, 4.0])
    monkeypatch.setattr("sentiment_hybrid.engine.limits.time.perf_counter", lambda: now[0])

    def work():
        now[0] += next(takes)

    assert limits.fastest(work, 0.0) == pytest.approx(3.0)


def test_rates_of_this_machine_are_positive():
    assert limits.matmul_rate([(8, 8, 8)], seconds=0.001) > 0
    assert limits.copy_rate(1, seconds=0.001) > 0
