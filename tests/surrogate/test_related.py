"""What another oracle says is followed while it predicts what the run finds, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray
from riwoa.surrogate.gaussian_process import Examples
from riwoa.surrogate.mixture import MixtureLearner, normal_scores
from riwoa.surrogate.related import FEWEST, RelatedOracles
from riwoa.surrogate.screening import Screening
from tests.surrogate.test_mixture import NOMINAL, drawn, worth


def other(indices: IntArray) -> FloatArray:
    """On another scale, and with something of its own."""
    return np.asarray(10.0 * worth(indices) + 0.2 * indices[:, 2])


@pytest.fixture(scope="module")
def examples() -> Examples:
    indices = drawn(NOMINAL, 120)
    return Examples(NOMINAL, indices[40:], other(indices[40:]))


def test_what_predicts_is_followed_and_tells_of_architectures_that_nobody_has_evaluated(examples: Examples) -> None:
    indices = drawn(NOMINAL, 40)
    known, rest = indices[:8], indices[8:]
    trend = RelatedOracles(NOMINAL, [examples]).trend
    alone = MixtureLearner(NOMINAL).learn(known, worth(known))
    led = MixtureLearner(NOMINAL, trend).learn(known, worth(known))
    assert led.count == 8 + len(examples)
    means = led.predict(rest)[0]
    assert np.array_equal(led.mean(rest), means)
    assert _correlation(means, worth(rest)) > max(0.9, _correlation(alone.mean(rest), worth(rest)))
    # A belief changes no mean; an evaluation that says otherwise does.
    assert led.believe(rest[:2]).mean(rest) == pytest.approx(means)
    assert led.mean(known) == pytest.approx(normal_scores(worth(known)), abs=0.6)


def test_what_does_not_predict_is_not_followed_nor_before_enough_is_known(examples: Examples) -> None:
    indices = drawn(NOMINAL, 30)
    trend = RelatedOracles(NOMINAL, [examples]).trend
    assert trend(indices[: FEWEST - 1], worth(indices[: FEWEST - 1])) is None
    assert trend(indices, -worth(indices)) is None
    assert trend(indices, np.random.default_rng(0).normal(size=30)) is None
    found = trend(indices, worth(indices))
    assert found is not None
    assert found.correlation > 0.9
    both = RelatedOracles(NOMINAL, [Examples(NOMINAL, examples.indices, -examples.accuracies), examples]).trend
    better = both(indices, worth(indices))
    assert better is not None
    assert better.scores(indices) == pytest.approx(found.scores(indices))


def test_a_screening_says_what_it_follows(examples: Examples) -> None:
    screening = Screening(NOMINAL, related=(examples,), of_scores=True)
    for row in drawn(NOMINAL, 8):
        screening.tell(row, float(worth(row[None, :])[0]), None)
    screening.learn()
    assert screening.view()["related"] == pytest.approx(0.98, abs=0.03)
    assert "related" not in Screening(NOMINAL, of_scores=True).view()


def _correlation(a: FloatArray, b: FloatArray) -> float:
    return float(np.corrcoef(a, b)[0, 1])
