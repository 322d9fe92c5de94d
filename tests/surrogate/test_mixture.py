"""The process of rank scores: its gradient, what it learns, what it believes, and that it forgets how it came there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from riwoa.search.fitness import FloatArray
from riwoa.search.space import Gene, IntArray, Space
from riwoa.surrogate.mixture import (
    EXACT,
    MixtureKernel,
    MixtureLearner,
    MixtureProcess,
    learn_values,
    mean_ranks,
    normal_scores,
)

NOMINAL = Space("nominal", tuple(Gene(f"op{i}", tuple("abcde"), "nominal") for i in range(6)))
MIXED = Space(
    "mixed",
    (*(Gene(f"k{i}", (3, 5, 7)) for i in range(4)), *(Gene(f"op{i}", ("a", "b"), "nominal") for i in range(3))),
)


def drawn(space: Space, count: int) -> IntArray:
    return np.random.default_rng(0).integers(0, space.cardinalities, (count, len(space)))


def worth(indices: IntArray) -> FloatArray:
    """Only the first two genes count, and of the first only whether it holds the choice of index 3."""
    return np.asarray((indices[:, 0] == 3) + 0.2 * indices[:, 1], dtype=np.float64)


@pytest.mark.parametrize("space", [NOMINAL, MIXED], ids=["nominal", "mixed"])
def test_the_gradient_is_that_of_the_cost(space: Space) -> None:
    kernel, rng = MixtureKernel(space), np.random.default_rng(1)
    known = kernel.features(drawn(space, 20)), rng.normal(size=20)
    at = kernel.means + 0.3 * kernel.sds * rng.normal(size=len(kernel.means))
    _, gradient = kernel.cost(at, *known)
    step = 1e-5
    for i, found in enumerate(gradient):
        ahead, behind = at.copy(), at.copy()
        ahead[i] += step
        behind[i] -= step
        difference = (kernel.cost(ahead, *known)[0] - kernel.cost(behind, *known)[0]) / (2 * step)
        assert found == pytest.approx(difference, abs=1e-6)


def test_it_learns_which_genes_and_choices_matter_and_ranks_what_it_never_saw() -> None:
    known, unseen = drawn(NOMINAL, 160)[:60], drawn(NOMINAL, 160)[60:]
    learned = MixtureLearner(NOMINAL).learn(known, worth(known))
    kernel = MixtureKernel(NOMINAL)
    plain = MixtureProcess(kernel, kernel.means, known, normal_scores(worth(known)), worth(known))
    ranked, ranked_plain = (
        float(np.corrcoef(process.predict(unseen)[0], worth(unseen))[0, 1]) for process in (learned, plain)
    )
    assert 1.0 - ranked**2 < 0.5 * (1.0 - ranked_plain**2)


def test_values_are_read_back_from_scores_and_go_on_beyond_the_best() -> None:
    known = drawn(NOMINAL, 60)
    values = worth(known)
    process = MixtureLearner(NOMINAL).learn(known, values)
    means, deviations = process.predict_indices(known)
    assert np.corrcoef(means, values)[0, 1] > 0.95
    assert (deviations > 0).all()
    assert process.score(float(values.max())) == pytest.approx(float(normal_scores(values).max()))


def test_equals_share_their_mean_rank() -> None:
    values = np.random.default_rng(3).integers(0, 6, 40).astype(np.float64)
    np.testing.assert_array_equal(mean_ranks(values), rankdata(values))


def test_what_is_believed_is_expected_and_makes_sure() -> None:
    known, new = drawn(NOMINAL, 21)[:20], drawn(NOMINAL, 21)[20:]
    process = MixtureLearner(NOMINAL).learn(known, worth(known))
    believing = process.believe(new)
    (before,), (unsure,) = process.predict(new)
    (after,), (sure,) = believing.predict(new)
    assert after == pytest.approx(before, abs=1e-6)
    assert sure < unsure


def test_believing_is_learning_what_is_expected() -> None:
    """The factor that grows says what one that is computed anew says."""
    known, new, probe = np.split(drawn(MIXED, 60), [30, 33])
    kernel, scores = MixtureKernel(MIXED), normal_scores(worth(known))
    process = MixtureProcess(kernel, kernel.means, known, scores, worth(known))
    joined = np.concatenate((known, new))
    expected = np.concatenate((scores, process.predict(new)[0]))
    anew = MixtureProcess(kernel, kernel.means, joined, expected, expected)
    grown = process.believe(new[:1]).believe(new[1:])
    assert grown.count == len(known)
    for found, wanted in zip(grown.predict(probe), anew.predict(probe), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_gene_of_very_many_choices_is_a_number() -> None:
    space = Space("real", tuple(Gene(f"x{i}", tuple(range(100_000))) for i in range(2)))
    kernel = MixtureKernel(space)
    assert [part.shape for part in kernel.features(drawn(space, 3))] == [(3, 2)]
    known = drawn(space, 60)
    values = -np.square(known / 1e5 - 0.5).sum(axis=1)
    means, _ = MixtureLearner(space).learn(known[:40], values[:40]).predict(known[40:])
    assert np.corrcoef(means, values[40:])[0, 1] > 0.9


@pytest.mark.parametrize("count", [7, 55, EXACT + 30])
def test_a_process_does_not_depend_on_those_learned_before_it(count: int) -> None:
    known = drawn(NOMINAL, count)
    values, probe = worth(known), drawn(NOMINAL, 5)
    grown = MixtureLearner(NOMINAL)
    for n in range(max(4, count - 3), count):
        grown.learn(known[:n], values[:n])
    fresh = MixtureLearner(NOMINAL).learn(known, values)
    np.testing.assert_array_equal(grown.learn(known, values).predict(probe), fresh.predict(probe))


def test_a_process_of_values_expects_more_than_the_best_it_knows_where_one_of_ranks_does_not() -> None:
    space = Space("numbers", tuple(Gene(f"k{i}", (3, 5, 7)) for i in range(6)))
    every = drawn(space, 200)
    worth_of = every.sum(axis=1) / 12.0
    known = every[worth_of <= 0.5]
    best = np.full((1, 6), 2)
    low, _, high = learn_values(space, known, known.sum(axis=1) / 12.0).quantiles(best, (-1.96, 0.0, 1.96))[:, 0]
    assert low < 1.0 < high
    assert low > 0.8
    ranked = MixtureLearner(space).learn(known, known.sum(axis=1) / 12.0)
    assert ranked.quantiles(best, (1.96,))[0, 0] < 0.9


def test_joint_outcomes_agree_with_single_ones_and_narrow_as_belief_does() -> None:
    known, asked = drawn(MIXED, 40)[:30], drawn(MIXED, 40)[30:]
    process = MixtureLearner(MIXED).learn(known, worth(known))
    means, covariance = process.outcomes(asked)
    alone, deviations = process.predict(asked)
    noise = float(covariance[0, 0] - deviations[0] ** 2)
    assert means == pytest.approx(alone)
    assert np.diag(covariance) == pytest.approx(deviations**2 + noise)
    column = covariance[:, 0] / np.sqrt(covariance[0, 0])
    narrowed = np.diag(covariance - np.outer(column, column))[1:]
    assert narrowed == pytest.approx(process.believe(asked[:1]).predict(asked[1:])[1] ** 2 + noise)


def test_left_out_errors_are_those_of_processes_that_never_saw_the_example() -> None:
    known = drawn(MIXED, 25)
    kernel, scores = MixtureKernel(MIXED), normal_scores(worth(known) + 0.1 * np.random.default_rng(2).normal(size=25))
    whole = MixtureProcess(kernel, kernel.means, known, scores, scores)
    for out in (0, 7, 24):
        kept = np.arange(25) != out
        rest = MixtureProcess(kernel, kernel.means, known[kept], scores[kept], scores[kept])
        mean, covariance = rest.outcomes(known[[out]])
        assert whole.left_out_z()[out] == pytest.approx((scores[out] - mean[0]) / np.sqrt(covariance[0, 0]), rel=1e-4)
