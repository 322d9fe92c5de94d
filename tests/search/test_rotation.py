from __future__ import annotations

import numpy as np

from riwoa.search import whale
from riwoa.search.base import SearchParameters
from riwoa.search.covariance import eigenbasis, shrunk_covariance
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.riwoa import RotationInvariantWhale
from riwoa.search.space import Gene, Space

D, PAIRS = 5, 200_000
SPACE = Space("line", tuple(Gene(f"x{i}", tuple(range(9))) for i in range(D)))


def rotation(seed: int) -> FloatArray:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0])


def elongated(seed: int, count: int) -> FloatArray:
    """Points of a population that stretches along the axes, off the origin."""
    scales = np.array([2.0, 1.0, 0.5, 0.25, 0.1])
    return np.asarray(np.random.default_rng(seed).standard_normal((count, D)) * scales + 0.7)


def draws(a: float) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(9)
    return whale.coefficient_a(a, rng.random((PAIRS, D))), whale.coefficient_c(rng.random((PAIRS, D)))


def search_move(x: FloatArray, mates: FloatArray) -> FloatArray:
    """RI-IWOA's own search move of ``x`` towards ``mates``, with its basis and mean from a population."""
    strategy = RotationInvariantWhale(SPACE, Objective(None), 0, SearchParameters())
    mean = x.mean(axis=0)
    strategy._basis = eigenbasis(np.cov(x.T))[1]
    strategy._elite_mean = lambda: mean  # type: ignore[method-assign]
    both = np.concatenate((x, mates))
    a, c = draws(1.5)
    a, c = np.concatenate((a, a)), np.concatenate((c, c))
    other = np.concatenate((np.arange(PAIRS) + PAIRS, np.arange(PAIRS)))
    return np.asarray(strategy._search(both, other, a, c)[:PAIRS])


def plain_move(x: FloatArray, mates: FloatArray) -> FloatArray:
    return whale.search(mates, x, *draws(1.5))


def covariance_error(move: object, q: FloatArray) -> float:
    """How far the covariance of the move on a rotated population is from the rotated covariance, relative."""
    x, mates = elongated(1, PAIRS), elongated(2, PAIRS)
    here = np.cov(move(x, mates).T)  # type: ignore[operator]
    there = np.cov(move(x @ q.T, mates @ q.T).T)  # type: ignore[operator]
    return float(np.linalg.norm(there - q @ here @ q.T) / np.linalg.norm(here))


def test_the_search_moves_covariance_turns_with_the_landscape() -> None:
    assert max(covariance_error(search_move, rotation(s)) for s in range(3)) < 0.02


def test_plain_whale_optimisations_does_not() -> None:
    assert min(covariance_error(plain_move, rotation(s)) for s in range(3)) > 0.1


def test_the_signed_spiral_turns_with_the_landscape_exactly_and_the_published_one_does_not() -> None:
    q, x, leader = rotation(0), elongated(1, 50), elongated(2, 1)
    turn = np.random.default_rng(3).uniform(-1, 1, (50, 1))
    for spiral, invariant in ((whale.signed_spiral, True), (whale.spiral, False)):
        here, there = spiral(leader, x, turn, 1.0), spiral(leader @ q.T, x @ q.T, turn, 1.0)
        assert np.allclose(there, here @ q.T) == invariant


def test_the_published_spiral_meets_its_equation_at_known_points() -> None:
    x, leader = np.array([[0.2, 0.9]]), np.array([[0.5, 0.5]])
    np.testing.assert_allclose(whale.spiral(leader, x, np.zeros((1, 1)), 1.0), [[0.8, 0.9]])
    half = np.full((1, 1), 0.5)
    np.testing.assert_allclose(whale.spiral(leader, x, half, 1.0), leader - np.exp(0.5) * np.abs(leader - x))


def test_coefficients_span_their_published_ranges() -> None:
    r = np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(whale.coefficient_a(1.5, r), [-1.5, 0.0, 1.5])
    np.testing.assert_allclose(whale.coefficient_c(r), [0.0, 1.0, 2.0])
    assert [whale.control(t) for t in (0.0, 0.5, 1.0, 7.0)] == [2.0, 1.0, 0.0, 0.0]


def test_the_shrunk_covariance_is_invertible_with_fewer_elites_than_coordinates() -> None:
    elites = np.random.default_rng(0).random((10, 46))
    shrunk = shrunk_covariance(elites)
    assert np.linalg.matrix_rank(np.cov(elites.T)) < 10
    assert np.linalg.eigvalsh(shrunk).min() > 1e-3
    np.testing.assert_allclose(np.trace(shrunk), np.trace(np.cov(elites.T, bias=True)))


def test_with_many_elites_the_shrunk_covariance_is_the_sample_covariance() -> None:
    elites = elongated(4, 20_000)
    np.testing.assert_allclose(shrunk_covariance(elites), np.cov(elites.T, bias=True), atol=1e-2)


def test_shrinkage_commutes_with_rotation() -> None:
    q, elites = rotation(1), elongated(5, 4)
    np.testing.assert_allclose(shrunk_covariance(elites @ q.T), q @ shrunk_covariance(elites) @ q.T, atol=1e-12)


def test_identical_elites_give_a_covariance_of_nothing_rather_than_an_error() -> None:
    np.testing.assert_array_equal(shrunk_covariance(np.full((4, 3), 0.5)), np.zeros((3, 3)))


def test_the_eigenbasis_is_sorted_orthonormal_and_has_settled_signs() -> None:
    covariance = np.cov(elongated(6, 500).T)
    values, vectors = eigenbasis(covariance)
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(D), atol=1e-12)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-12)
    assert np.all(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(D)] > 0)
