"""The calibration: a line where a line does, a correction where that is better, and intervals that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from riwoa.hardware import fit
from riwoa.hardware.calibration import FEATURES
from riwoa.hardware.fit import FloatArray

N = 24
NAMES = list(FEATURES)


def networks(seed: int, n: int = N) -> tuple[FloatArray, FloatArray]:
    """Sums (n,) from 1 to 6 ms, and features (n, features) of the sizes that real ones have."""
    rng = np.random.default_rng(seed)
    sums = rng.uniform(1, 6, n)
    features = np.column_stack(
        [
            rng.integers(16, 27, n),
            rng.integers(4, 13, n),
            0.1 * sums + rng.uniform(0, 0.3, n),
            0.002 * sums,
            rng.choice([24, 32, 40], n) ** 2 / 1e6,
        ]
    )
    return sums, features


def noisy(times: FloatArray, seed: int, share: float) -> FloatArray:
    return np.asarray(times * np.exp(np.random.default_rng(seed).normal(0, share, len(times))))


@pytest.mark.parametrize("seed", range(20))
def test_where_a_network_takes_as_long_as_its_parts_a_line_is_kept(seed: int) -> None:
    sums, features = networks(seed)
    found = fit.choose(sums, features, noisy(0.1 + 0.9 * sums, seed + 100, 0.01), 1.0)
    unseen_sums, unseen_features = networks(seed + 1000, 200)
    error = np.abs(found.model.predict(unseen_sums, unseen_features) / (0.1 + 0.9 * unseen_sums) - 1)
    assert np.median(error) < 0.01


def test_lines_are_seldom_given_up_for_noise() -> None:
    kept = 0
    for seed in range(50):
        sums, features = networks(seed)
        kept += not fit.choose(sums, features, noisy(0.1 + 0.9 * sums, seed + 100, 0.01), 1.0).model.correction
    assert kept >= 47


@pytest.mark.parametrize("seed", range(5))
def test_where_launches_decide_the_correction_ranks_networks_that_it_has_not_seen(seed: int) -> None:
    """A device that takes 0.1 ms an operator whatever it does, so that the plain sum knows a quarter of the truth."""

    def truth(sums: FloatArray, features: FloatArray) -> FloatArray:
        return np.asarray(0.05 * sums + 0.1 * features[:, 0] + 0.05 * features[:, 1])

    sums, features = networks(seed)
    measured = noisy(truth(sums, features), seed, 0.005)
    found = fit.choose(sums, features, measured, 1.0)
    assert found.model.correction
    assert found.correction_error_percent < found.line_error_percent / 3
    unseen_sums, unseen_features = networks(seed + 50, 60)
    expected = truth(unseen_sums, unseen_features)
    assert fit.spearman(unseen_sums, expected) < 0.7
    assert fit.spearman(found.model.predict(unseen_sums, unseen_features), expected) > 0.98


def test_a_correction_that_may_not_be_used_leaves_the_line() -> None:
    sums, features = networks(0)
    measured = 0.1 * features[:, 0] + 0.05 * sums
    assert fit.choose(sums, features, measured, 1.0).model.correction
    assert not fit.choose(sums, features, measured, 1.0, usable=lambda model: False).model.correction


def test_a_feature_that_never_varies_gets_no_weight_and_spoils_nothing() -> None:
    sums, features = networks(1)
    features[:, NAMES.index("input_mpx")] = 32**2 / 1e6
    model = fit.fit_ridge(sums, features, 0.5 * sums + 0.1 * features[:, 0], 1e-4)
    assert model.correction["input_mpx"] == 0
    assert model.correction["operators"] == pytest.approx(0.1, rel=0.05)


def test_a_strong_ridge_is_a_line() -> None:
    sums, features = networks(2)
    measured = 0.3 + 0.8 * sums
    model = fit.fit_ridge(sums, features, measured, 1e9)
    assert model.predict(sums, features) == pytest.approx(measured, rel=1e-4)
    assert max(abs(w) for w in model.correction.values()) < 1e-4


def test_the_ridge_does_not_depend_on_the_unit_of_time() -> None:
    sums, features = networks(3)
    measured = noisy(0.3 + 0.8 * sums + 0.02 * features[:, 0], 3, 0.01)
    slow, fast = (fit.fit_ridge(sums * k, features, measured * k, 0.01) for k in (1000.0, 1.0))
    assert slow.predict(sums * 1000, features) == pytest.approx(1000 * fast.predict(sums, features))


def test_one_disturbed_network_does_not_tilt_the_line() -> None:
    sums = np.linspace(1, 6, N)
    measured = 0.2 + 0.9 * sums
    measured[-1] *= 3
    model = fit.fit_line(sums, measured, 1.0)
    assert (model.intercept_ms, model.slope) == pytest.approx((0.2, 0.9))


def test_a_line_that_would_give_the_fastest_network_no_time_goes_through_the_origin() -> None:
    sums = np.linspace(2, 6, N)
    model = fit.fit_line(sums, sums - 1.5, least_sum_ms=1.0)
    assert model.intercept_ms == 0
    assert model.slope > 0


def test_intervals_hold_as_often_as_they_say_on_networks_not_seen() -> None:
    """Over 50 devices: what is promised on average is 90 %; one device alone may be unlucky."""
    covered = []
    for seed in range(50):
        sums, features = networks(seed)
        truth = 0.1 + 0.9 * sums
        found = fit.choose(sums, features, noisy(truth, seed + 500, 0.02), 1.0)
        interval = fit.interval(found.left_out_ms, noisy(truth, seed + 500, 0.02)[None])
        assert interval is not None
        unseen_sums, unseen_features = networks(seed + 1000, 50)
        measured = noisy(0.1 + 0.9 * unseen_sums, seed + 2000, 0.02)
        error = np.abs(measured / found.model.predict(unseen_sums, unseen_features) - 1) * 100
        covered.append(float(np.mean(error <= interval.half_width_percent)))
    assert 0.87 <= np.mean(covered) <= 0.96


def test_an_interval_also_holds_in_processes_that_each_have_a_level_of_their_own() -> None:
    """400 devices, three processes each, levels 3 % apart: the fourth process is within 90 % of the time."""
    rng = np.random.default_rng(0)
    sums = np.linspace(1, 6, N)
    covered = []
    for _ in range(400):
        sessions = sums * np.exp(rng.normal(0, 0.03, (3, 1)) + rng.normal(0, 0.01, (3, N)))
        found = fit.interval(np.median(sessions, axis=0), sessions)
        assert found is not None
        fourth = sums * np.exp(rng.normal(0, 0.03) + rng.normal(0, 0.01, N))
        covered.append(np.mean(np.abs(fourth / np.median(sessions, axis=0) - 1) * 100 <= found.half_width_percent))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_what_processes_differ_by_is_told_apart_from_what_networks_differ_by() -> None:
    predicted = np.linspace(1, 6, N)
    wobble = np.where(np.arange(N) % 2, 1.01, 1 / 1.01)
    alone = fit.interval(predicted, predicted[None] * wobble * 1.2)
    apart = fit.interval(predicted, predicted[None] * wobble * np.array([[1.0], [0.97], [1.04]]))
    assert alone is not None
    assert apart is not None
    assert (alone.scores, alone.sessions, alone.between_percent) == (N, 1, 0)
    assert alone.half_width_percent == alone.within_percent == pytest.approx(1.0, abs=0.1)
    assert (apart.scores, apart.sessions) == (3 * N, 3)
    assert apart.within_percent == pytest.approx(1.0, abs=0.1)
    assert apart.between_percent > 4
    assert apart.half_width_percent == pytest.approx(np.hypot(apart.within_percent, apart.between_percent), abs=1e-5)


def test_too_few_networks_for_the_level_give_no_interval() -> None:
    times = np.linspace(1, 2, 8)
    assert fit.interval(times, times[None]) is None
    assert fit.interval(np.append(times, 3.0), np.append(times, 3.0)[None]) is not None


def test_correlations_of_a_constant_are_nothing_rather_than_no_number() -> None:
    assert fit.spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0
    assert fit.kendall([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == 0


def test_a_model_refuses_nothing_but_is_what_it_says() -> None:
    sums, features = networks(4)
    model = fit.Model(0.1, 0.9, dict.fromkeys(FEATURES, 0.0))
    assert model.predict(sums, features) == pytest.approx(replace(model, correction={}).predict(sums, features))
