from __future__ import annotations

import numpy as np

from riwoa.search.rng import generator


def test_the_same_name_gives_the_same_numbers() -> None:
    np.testing.assert_array_equal(generator(7, 3, "moves", 2).random(9), generator(7, 3, "moves", 2).random(9))


def test_any_part_of_the_name_changes_the_numbers() -> None:
    names = [(7, 3, "moves", 2), (8, 3, "moves", 2), (7, 4, "moves", 2), (7, 3, "init", 2), (7, 3, "moves", 3)]
    assert len({float(generator(*n).random()) for n in names}) == len(names)


def test_a_slots_row_does_not_depend_on_how_many_slots_follow() -> None:
    few, many = (generator(7, 3, "moves").random((n, 46)) for n in (4, 20))
    np.testing.assert_array_equal(few, many[:4])


def test_the_stream_is_pinned_so_that_old_journals_resume() -> None:
    assert generator(1, 2, "pinned", 3).random(2).tolist() == [0.2541306807430992, 0.9487025297093069]
