"""What a surrogate expects within a limit, in small worlds that are known through and through, and in OFA's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.run.prediction import FEWEST, MOST_EVALUATIONS, Prediction, predict
from riwoa.run.task import KeptLatencies
from riwoa.search.base import Outcome
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.space import Gene, IntArray, Space
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.surrogate.mixture import EXACT
from riwoa.surrogate.screening import Screening
from tests.support.official import official_data

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


def test_after_a_search_of_ofas_predictor_its_intervals_hold_within_other_limits() -> None:
    """Of one search within 25 ms; ``learn_values`` tells of four."""
    predictor = AccuracyPredictor.load(official_data("once-for-all/acc_predictor.pth"))
    tables = OfaLatencyTable(official_data("once-for-all/latency_table@note10"))
    space = mobilenet_space((160, 176, 192, 208, 224))
    load_of = KeptLatencies(space, lambda architecture: tables.latency_ms(ofa_config(architecture)))

    def accuracy(row: IntArray) -> float:
        return float(predictor.accuracies([ofa_config(space.architecture(row))])[0])

    strategy = BayesianSearch(space, Objective(25.0), 2, BayesianParameters(offspring=8), load_of)
    driver, met = Driver(strategy, guide=Screening(space, of_scores=True)), dict[bytes, IntArray]()
    while len(met) < 100:
        told = []
        for p in driver.ask():
            row = strategy.codec.decode(p.genotype[None])[0]
            outcome = Outcome(p.slot, p.operator, p.genotype, accuracy(row), load_of(row), p.parent)
            told.append(Evaluated(outcome, {}, row.tobytes() not in met))
            met[row.tobytes()] = row
        driver.tell(told)
    known = np.array(list(met.values()))
    values, loads = np.array([accuracy(row) for row in known]), np.array([load_of(row) for row in known])
    held, gains = [], []
    for limit in (16.0, 18.0, 20.0, 22.0, 28.0, 32.0, 36.0):
        within = loads <= limit

        def excess(rows: IntArray, most: float = limit) -> FloatArray:
            return np.maximum(np.array([load_of(row) for row in rows]) / most - 1.0, 0.0)

        found = predict(space, known, values, within, loads / limit, excess)
        assert found is not None
        held.append(found.low <= accuracy(found.indices) <= found.high)
        gains.append(accuracy(found.indices) - values[within].max())
    assert sum(held) >= len(held) - 1
    assert min(gains) > 0.002
