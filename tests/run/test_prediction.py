"""What a surrogate expects within a limit, in small worlds that are known through and through."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from riwoa.run.prediction import FEWEST, MOST_EVALUATIONS, Prediction, predict
from riwoa.search.fitness import FloatArray
from riwoa.search.space import Gene, IntArray, Space
from riwoa.surrogate.mixture import EXACT

SPACE = Space("small", tuple(Gene(f"g{i}", (1, 2, 3)) for i in range(6)))
EVERY = np.array(list(itertools.product(range(3), repeat=6)), dtype=np.int64)
_GAINS, _COSTS = np.array([1.0, 0.5, 2.0, 0.2, 0.1, 1.5]), np.array([1.0, 2.0, 1.0, 1.0, 0.5, 2.0])


def worth(indices: IntArray) -> FloatArray:
    return np.asarray(indices @ _GAINS + 0.3 * (indices[:, 0] == 2) * (indices[:, 2] == 0))


def load(indices: IntArray) -> FloatArray:
    return np.asarray(1.0 + indices @ _COSTS)


def predicted(known: IntArray, limit: float, noise: float = 0.0) -> Prediction | None:
    values = worth(known) + noise * np.random.default_rng(1).normal(size=len(known))
    reach = load(known) / limit
    return predict(SPACE, known, values, reach <= 1.0, reach, lambda rows: np.maximum(load(rows) / limit - 1.0, 0.0))


def some(count: int, seed: int = 0) -> IntArray:
    return EVERY[np.random.default_rng(seed).permutation(len(EVERY))[:count]]


@pytest.mark.parametrize("limit", [4.0, 7.0, 12.0])
def test_what_is_predicted_is_the_best_there_is_and_within(limit: float) -> None:
    found = predicted(some(120), limit)
    assert found is not None
    best = worth(EVERY[load(EVERY) <= limit]).max()
    assert worth(found.indices[None, :])[0] == pytest.approx(best)
    assert load(found.indices[None, :])[0] <= limit
    assert found.low <= best <= found.high


def test_where_everything_was_evaluated_nothing_is_left_to_be_sure_of() -> None:
    everything = EVERY[load(EVERY) <= 5.0]
    assert FEWEST <= len(everything) <= EXACT
    found = predicted(everything, 5.0)
    assert found is not None
    assert found.effort is not None
    assert (found.effort.met, found.effort.rivals, found.effort.evaluations) == (0, 0, 0)
    assert worth(found.indices[None, :])[0] == worth(everything).max()


def test_what_is_like_a_rival_need_not_be_evaluated_too_and_noise_makes_more_of_them() -> None:
    clear, noisy = predicted(some(60), 8.0), predicted(some(60), 8.0, noise=1.0)
    assert clear is not None
    assert noisy is not None
    assert clear.effort is not None
    assert noisy.effort is not None
    assert 0 < clear.effort.evaluations < clear.effort.rivals
    assert clear.effort.evaluations < noisy.effort.evaluations <= MOST_EVALUATIONS
    assert noisy.high - noisy.low > 2 * (clear.high - clear.low)


def test_where_nothing_was_evaluated_within_a_start_is_stepped_to() -> None:
    slow = EVERY[load(EVERY) >= 8.0][:100]
    found = predicted(slow, 3.0)
    assert found is not None
    assert found.effort is None
    assert load(found.indices[None, :])[0] <= 3.0
    assert predicted(slow, 0.5) is None  # nothing is


def test_too_few_and_equal_values_predict_nothing() -> None:
    assert predicted(some(FEWEST - 1), 8.0) is None
    assert predicted(np.repeat(EVERY[:1], FEWEST, axis=0), 8.0) is None
