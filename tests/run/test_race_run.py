"""Lower rungs and screening in a whole run: what is given up, what is journaled, and that a kill changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from riwoa.run.evaluations import version_at
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord
from riwoa_storage.replay import compare, verify
from tests.run.conduct import JOINT, conduct

SUPPORT = Path(__file__).resolve().parent.parent / "support"
RACED = ("oracle.rungs=[50,400]", "search.population=10", "run.generations=12", "search.riwoa.screened=1")
SEMANTIC = ("cognition.provider=scripted", "search.p_semantic=0.5", "cognition.script=mixed", "cognition.lag=2")


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


def individuals(path: Path) -> list[tuple[int, IndividualRecord]]:
    with JournalReader(path) as reader:
        return list(reader.individuals(1))


def last(path: Path) -> Any:
    with JournalReader(path) as reader:
        found = reader.last_generation(1)
    assert found is not None
    return found


async def test_the_hopeless_are_given_up_and_every_rung_is_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    digest = await conduct(path, *RACED)
    assert verify(path).final_digest == digest
    found = [i for _, i in individuals(path)]
    dropped = [i for i in found if i.status == "dropped"]
    counters = last(path).counters
    assert len(dropped) >= 20
    assert counters["dropped"] == sum(not i.cache_hit for i in dropped)
    assert counters["evaluations"] == sum(i.status == "ok" and not i.cache_hit for i in found)
    for i in dropped:
        assert i.fitness is None
        assert "accuracy" not in i.metrics
        assert "accuracy_50" in i.metrics
    raced = [i for generation, i in individuals(path) if i.status == "ok" and i.operator != "polish"]
    assert all({"accuracy", "accuracy_50", "accuracy_400"} <= i.metrics.keys() for i in raced)
    with JournalReader(path) as reader:
        on_50, in_full = (len(list(reader.evaluations(version_at("landscape-1", r)))) for r in ("50", None))
    assert on_50 == len({i.architecture_key for i in found if "accuracy_50" in i.metrics})
    assert in_full == len({i.architecture_key for i in found if i.status == "ok"})
    assert on_50 > in_full


async def test_giving_up_hardly_changes_the_population_the_winner_or_the_front(tmp_path: Path) -> None:
    """The landscape's rungs are nearly exact, so hardly a bound fails: the search goes the way of one without rungs.

    Which bound does is the processor's: eigenvectors are rounded as it rounds.
    """
    raced, plain = tmp_path / "raced.db", tmp_path / "plain.db"
    await conduct(raced, *RACED)
    await conduct(plain, *RACED[1:])
    one, other = ({(g, i.slot): i.architecture_key for g, i in individuals(path)} for path in (raced, plain))
    assert one.keys() == other.keys()
    assert sum(one[place] == other[place] for place in one) >= 0.9 * len(one)
    assert last(raced).leader["fitness"] == pytest.approx(last(plain).leader["fitness"], abs=0.001)
    assert len(_front(raced) ^ _front(plain)) <= 2
    assert last(raced).counters["evaluations"] < 0.8 * last(plain).counters["evaluations"]


def _front(path: Path) -> set[tuple[float, float]]:
    points = {(i.metrics["accuracy"], i.metrics["latency_ms"]) for _, i in individuals(path) if i.status == "ok"}
    return {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}


@pytest.mark.parametrize(
    "settings",
    [(), SEMANTIC, ("search.riwoa.screened=4",), ("search.strategy=random",), (*JOINT, "search.offspring=10")],
)
async def test_killed_after_every_commit_it_gives_up_the_same(tmp_path: Path, settings: tuple[str, ...]) -> None:
    whole = await conduct(tmp_path / "whole.db", *RACED, *settings)
    parts = tmp_path / "parts.db"
    for _ in range(40):
        if await conduct(parts, *RACED, *settings, stop_after=1) == whole:
            break
    found = compare(tmp_path / "whole.db", parts)
    assert found.same, found.message
    assert any(i.status == "dropped" for _, i in individuals(parts))


async def test_killed_among_evaluations_it_repeats_none_on_any_rung(tmp_path: Path) -> None:
    whole = await conduct(tmp_path / "whole.db", *RACED)
    parts, kill = tmp_path / "parts.db", 7
    worked = 0

    class Killed(Exception):
        pass

    def on_result() -> None:
        nonlocal worked
        worked += 1
        if worked % kill == 0:
            raise Killed

    for _ in range(200):
        finished = False
        try:
            finished = await conduct(parts, *RACED, on_result=on_result) == whole
        except* Killed:
            pass
        if finished:
            break
    assert compare(tmp_path / "whole.db", parts).same
    assert _stored(parts) == _stored(tmp_path / "whole.db")
    assert worked <= len(_stored(parts))  # a kill comes between a result's storing and its telling, too


def _stored(path: Path) -> set[tuple[str, str | None]]:
    with JournalReader(path) as reader:
        rungs = ("50", "400", None)
        return {(e.architecture_key, r) for r in rungs for e in reader.evaluations(version_at("landscape-1", r))}


async def test_audits_tell_how_often_a_bound_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa.search.racing.AUDITED_SHARE", 0.5)
    path = tmp_path / "journal.db"
    await conduct(path, *RACED, "oracle.rung_confidence=0.5")
    audited = [i for _, i in individuals(path) if "audited" in i.metrics and not i.cache_hit]
    counters = last(path).counters
    assert counters["audited"] == len(audited) > 5
    assert counters["missed"] == sum(i.metrics["accuracy"] > i.metrics["audited"] for i in audited)
    assert all(i.status == "ok" and math.isfinite(i.metrics["audited"]) for i in audited)


async def test_predictions_are_journaled_beside_what_came_of_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, "search.population=10", "run.generations=8", "search.riwoa.screened=6")
    later = [i for g, i in individuals(path) if g >= 4 and i.operator != "polish" and not i.cache_hit]
    assert later
    assert all(i.metrics["predicted_sd"] > 0 for i in later)
    errors = [abs(i.metrics["accuracy"] - i.metrics["predicted"]) for i in later]
    assert sum(errors) / len(errors) < 0.03
    assert not any("predicted" in i.metrics for g, i in individuals(path) if g < 2)
