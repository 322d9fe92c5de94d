"""Several texts in one reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.cognition.parse import PatchError
from riwoa.cognition.protocol import GeneratedText, Sample
from riwoa.cognition.samples import packed, unpacked

TEXTS = st.text(st.characters(exclude_categories=[]))  # half a surrogate pair among them


@given(st.lists(st.tuples(TEXTS, st.none() | st.floats(-1e6, 0.0)), min_size=1))
def test_what_is_packed_reads_back_each_text_once_the_likeliest_first(rows: list[tuple[str, float | None]]) -> None:
    given_ = [Sample(*row) for row in rows]
    text = packed(given_)
    text.encode()  # a database takes it
    found = unpacked(text)
    assert len(found) == len({s.text for s in given_}) == len({s.text for s in found})
    assert set(found) <= set(given_)
    known = [s.log_probability for s in found if s.log_probability is not None]
    assert known == sorted(known, reverse=True)
    assert [s.log_probability for s in found[len(known) :]] == [None] * (len(found) - len(known))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]\n3", '{"text": 3}', '{"text": null}', "<html>", "[" * 100_000, '"text"', "null"],
)
def test_a_reply_without_samples_is_unusable(text: str) -> None:
    with pytest.raises(PatchError, match="no patches"):
        unpacked(text)


def test_damaged_lines_and_numbers_are_left_out() -> None:
    text = '{"text": "a", "log_probability": "likely"}\nnonsense\n{"text": "b", "log_probability": NaN}'
    assert unpacked(text) == [Sample("a"), Sample("b")]


def test_samples_travel_between_the_processes() -> None:
    one = GeneratedText(id="1/2/3", text="a", tokens=3, thinking_tokens=0, samples=(Sample("a", -0.5), Sample("b")))
    assert GeneratedText.from_json(one.to_json()) == one
