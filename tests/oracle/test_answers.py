"""Answers as text: what goes in comes out, picture by view."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.oracle.answers import pack_answers, unpack_answers


def test_answers_come_back_by_picture_and_view() -> None:
    right = np.random.default_rng(0).random(3 * 13) < 0.5  # view by view, as images stand
    found = unpack_answers(pack_answers(right), pictures=13, views=3)
    assert found.shape == (13, 3)
    assert np.array_equal(found[:, 1], right[13:26])


@pytest.mark.parametrize(("text", "pictures"), [(pack_answers(np.ones(9, dtype=bool)), 30), ("", 0), ("!", 5)])
def test_text_of_another_number_of_answers_is_refused(text: str, pictures: int) -> None:
    with pytest.raises(ValueError, match="answers"):
        unpack_answers(text, pictures, views=1)
