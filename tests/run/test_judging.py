"""The front on pictures that chose nothing: the winner first, each once, and no longer than a deadline allows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from riwoa.errors import InputError
from riwoa.oracle.pool import PoolSettings
from riwoa.oracle.protocol import ModuleSpec
from riwoa.run.front import fastest_equal, read_front
from riwoa.run.history import Best
from riwoa.run.journal import RunJournal
from riwoa.run.judging import Judges, judge_networks, unjudged
from riwoa.search.pareto import ParetoPoint
from riwoa.service.front_view import left_out_line, told_apart
from riwoa_storage.events import NetworkJudged
from riwoa_storage.records import IndividualRecord
from riwoa_storage.writer import JournalWriter
from tests.ctl.support import generation, individual

SUPPORT = Path(__file__).resolve().parent.parent / "support"
# key -> accuracy to the search, latency, what the oracle makes of it
NETWORKS: Mapping[str, tuple[float, float, dict[str, Any]]] = {
    "winner": (0.9, 1.8, {"right": 8}),
    "near": (0.85, 1.5, {"right": 7}),
    "far": (0.5, 0.4, {"right": 0}),
    "beyond": (0.95, 2.4, {"right": 9}),
}


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SUPPORT), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


JUDGES = Judges(ModuleSpec(factory="pool_oracles:scripted"), PoolSettings(workers=1, poll_s=0.05))


async def a_run(writer: JournalWriter, path: Path, **changed: dict[str, Any]) -> tuple[RunJournal, Best]:
    """A run of one generation, and its leader."""
    run_id = await writer.begin_run({"seed": 0}, {})
    rows = tuple(
        individual(slot, (key, accuracy, latency_ms), {**answer, **changed.get(key, {})})
        for slot, (key, (accuracy, latency_ms, answer)) in enumerate(NETWORKS.items())
    )
    await writer.commit_generation(generation(run_id, 0, rows))
    return RunJournal(writer, path, run_id), Best(0, rows[0], 0.9, True, 2.0)


def front() -> list[ParetoPoint]:
    return [ParetoPoint(key, at[0], at[1], (0, slot)) for slot, (key, at) in enumerate(NETWORKS.items())]


def keys(networks: list[IndividualRecord]) -> list[str]:
    return [network.architecture_key for network in networks]


async def test_the_winner_comes_first_then_the_nearest_and_what_is_journaled_is_not_judged_again(
    tmp_path: Path,
) -> None:
    path, told = tmp_path / "journal.db", list[tuple[int, int]]()
    async with await JournalWriter.open(path) as writer:
        run, winner = await a_run(writer, path)
        wanted = unjudged(run, winner, front())
        assert keys(wanted) == ["winner", "near", "beyond", "far"]
        await judge_networks(run, JUDGES, wanted[:2], tell=lambda *counts: told.append(counts))
        assert told == [(0, 2), (1, 2), (2, 2)]
        assert keys(unjudged(run, winner, front())) == ["beyond", "far"]  # as after a kill
        await judge_networks(run, JUDGES, unjudged(run, winner, front()))
        assert unjudged(run, winner, front()) == []
    with run.reader() as reader:
        found = read_front(reader, reader.run(1))
    assert found.test is not None
    assert (found.test.value, found.test.pictures) == (0.8, 10)
    assert [(n.point.key, n.is_equal) for n in found.networks] == [
        ("far", False),  # 8 pictures to none
        ("near", True),
        ("winner", False),
        ("beyond", True),
    ]
    assert fastest_equal(path).point.key == "near"
    shown = told_apart(found)
    assert [n.point.key for n in shown] == ["far", "near", "winner"]  # "beyond" is the winner, as far as can be told
    assert left_out_line(found, shown).startswith("One more network lies closer than the errors can tell")


async def test_a_deadline_leaves_time_for_the_winner_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        run, winner = await a_run(writer, path, near={"seconds": 60.0})
        await judge_networks(run, JUDGES, unjudged(run, winner, front()), left_s=lambda: 0.2)
    with run.reader() as reader:
        assert [event.architecture_key for event in reader.events(1, NetworkJudged)] == ["winner"]


async def test_a_network_that_cannot_be_judged_leaves_the_others_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        run, winner = await a_run(writer, path, near={"refuse": 1})
        await judge_networks(run, JUDGES, unjudged(run, winner, front()))
        assert keys(unjudged(run, winner, front())) == ["near"]
    with run.reader() as reader:
        events = reader.events(1, NetworkJudged)
    assert [event.error for event in events if event.error] == ["error: no such network"]
    with pytest.raises(InputError, match="faster than its winner and as good"):
        fastest_equal(path)


async def test_a_run_that_judged_nothing_has_no_fastest_equal_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await a_run(writer, path)
        with pytest.raises(InputError, match="it has not ended"):
            fastest_equal(path)
        await writer.put_event(NetworkJudged(run_id=1, architecture_key="winner", error="none are left"))
    with pytest.raises(InputError, match="none are left; leave --prefer out"):
        fastest_equal(path)
