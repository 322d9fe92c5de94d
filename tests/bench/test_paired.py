import itertools
import math

import numpy as np
import pytest
from scipy import stats

from riwoa.bench.paired import bootstrap_interval, compare, compare_all, holm, rank_biserial


def test_holm_keeps_the_order_and_is_no_laxer_than_it_must_be() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_effect_is_the_share_of_ranks_for_us_less_that_against() -> None:
    assert rank_biserial(np.array([1.0, 2.0, 3.0])) == 1.0
    assert rank_biserial(np.array([-1.0, -2.0])) == -1.0
    assert rank_biserial(np.array([0.0, 0.0])) == 0.0
    assert rank_biserial(np.array([3.0, -1.0, 2.0, 0.0])) == pytest.approx((3 + 2 - 1) / 6)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        low, high = bootstrap_interval(rng.normal(size=30)) or (math.nan, math.nan)
        held += low <= 0.0 <= high
    assert 88 <= held <= 99
    assert bootstrap_interval([1.0]) is None


def test_a_comparison_says_how_much_and_how_surely() -> None:
    ours, theirs = [3.0, 4.0, 5.0, 6.0, 7.0, 5.0], [2.0, 3.0, 5.0, 4.0, 6.0, 5.5]
    found = compare(ours, "them", theirs)
    assert (found["wins"], found["ties"], found["losses"]) == (4, 1, 1)
    assert found["mean_difference"] == pytest.approx(0.75)
    low, high = found["mean_difference_interval"]
    assert low < 0.75 < high
    assert found["wilcoxon_p_two_sided"] == stats.wilcoxon(np.subtract(ours, theirs)).pvalue


def test_several_comparisons_are_corrected_together() -> None:
    ours = [float(n) for n in range(10)]
    others = {name: [v - shift for v in ours] for name, shift in (("a", 1.0), ("b", -1.0), ("c", 0.0))}
    found = compare_all(ours, others)
    plain = [c["wilcoxon_p_two_sided"] for c in found]
    assert [c["wilcoxon_p_holm"] for c in found] == holm(plain)
    assert all(a["wilcoxon_p_holm"] >= a["wilcoxon_p_two_sided"] for a in found)
    assert [c["rank_biserial"] for c in found] == [1.0, -1.0, 0.0]
    assert not any(a == b for a, b in itertools.pairwise(found))
