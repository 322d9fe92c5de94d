import time

import numpy as np

from riwoa.learning.head import LinearHead


def test_a_step_at_a_time_gives_the_weights_of_a_ridge_regression_on_all() -> None:
    draw = np.random.default_rng(0)
    features, gains = draw.standard_normal((50, 6)), draw.standard_normal(50)
    head = LinearHead(6)
    for row, gain in zip(features, gains.tolist(), strict=True):
        head.learn(row, gain)
    expected = np.linalg.solve(features.T @ features + np.eye(6), features.T @ gains)
    assert np.allclose(head.weights, expected)
    assert np.allclose(head.expect(features), features @ expected)


def test_a_step_is_learned_in_less_than_a_millisecond() -> None:
    head, features = LinearHead(40), np.ones(40)
    started_s = time.perf_counter()
    for _ in range(200):
        head.learn(features, 1.0)
    assert (time.perf_counter() - started_s) / 200 < 1e-3  # 0.02 ms alone
