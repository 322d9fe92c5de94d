"""Who works when: counted from between the two sides, and kept apart on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from riwoa.bench.alternation import AlternatingBackend, Alternation, Side
from riwoa.oracle.protocol import EvaluationResult
from tests.bench.support import FakeBackend


async def work(alternation: Alternation, side: Side, seconds: float, at_work: list[tuple[str, str]]) -> None:
    async with alternation.turn(side):
        at_work.append((side, "begins"))
        await asyncio.sleep(seconds)
        at_work.append((side, "ends"))


async def test_sides_that_alternate_are_never_at_work_together_and_all_of_a_side_go_at_once() -> None:
    alternation, at_work = Alternation(alternate=True), list[tuple[str, str]]()
    sides: list[Side] = ["generation", "evaluation", "evaluation", "generation", "evaluation"]
    await asyncio.gather(*(work(alternation, side, 0.02, at_work) for side in sides))
    # The second generation came while the first was at work; the evaluations then had their turn together.
    assert at_work == [
        *[("generation", "begins")] * 2,
        *[("generation", "ends")] * 2,
        *[("evaluation", "begins")] * 3,
        *[("evaluation", "ends")] * 3,
    ]
    assert alternation.both_s == 0
    assert alternation.busy_s("evaluation") == pytest.approx(0.02, abs=0.015)


async def test_a_turn_is_given_back_when_its_work_fails() -> None:
    alternation, at_work = Alternation(alternate=True), list[tuple[str, str]]()
    with pytest.raises(RuntimeError):
        async with alternation.turn("generation"):
            raise RuntimeError("the model is gone")
    await asyncio.wait_for(work(alternation, "evaluation", 0.0, at_work), 1)
    assert at_work


async def test_sides_that_overlap_wait_for_nobody_and_the_time_of_both_is_counted_once() -> None:
    alternation, at_work = Alternation(alternate=False), list[tuple[str, str]]()
    sides: list[tuple[Side, float]] = [("generation", 0.1), ("evaluation", 0.05), ("evaluation", 0.02)]
    await asyncio.gather(*(work(alternation, side, seconds, at_work) for side, seconds in sides))
    assert [what for _, what in at_work[:3]] == ["begins"] * 3
    assert alternation.both_s == pytest.approx(alternation.busy_s("evaluation"))
    assert alternation.busy_s("generation") > alternation.busy_s("evaluation") >= 0.05


async def test_an_evaluation_that_is_cancelled_or_refused_gives_its_turn_back() -> None:
    alternation, at_work = Alternation(alternate=True), list[tuple[str, str]]()

    class Refusing(FakeBackend):
        async def submit(
            self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
        ) -> asyncio.Future[EvaluationResult]:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await AlternatingBackend(Refusing(), alternation).submit("a", {})
    (await AlternatingBackend(FakeBackend(), alternation).submit("b", {"resolution": 24})).cancel()
    await asyncio.wait_for(work(alternation, "generation", 0.0, at_work), 1)
    assert at_work
