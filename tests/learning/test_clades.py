import numpy as np

from riwoa.learning.clades import Clades


def test_a_win_counts_for_every_ancestor() -> None:
    clades = Clades()
    clades.add((1, 0), (0, 0), won=False)
    clades.add((2, 0), (1, 0), won=True)
    clades.add((2, 1), (0, 1), won=False)
    assert clades.counts((0, 0)) == (1, 2)
    assert clades.counts((1, 0)) == (1, 1)
    assert clades.counts((0, 1)) == (0, 1)
    assert clades.counts((2, 0)) == (0, 0)


def test_the_clade_that_wins_is_drawn_more_often() -> None:
    clades = Clades()
    for n in range(20):
        clades.add((1, n), (0, 0), won=True)
        clades.add((2, n), (0, 1), won=False)
    draws = [clades.drawn([(0, 0), (0, 1)], np.random.default_rng(seed)) for seed in range(20)]
    assert all(first > second for first, second in draws)
