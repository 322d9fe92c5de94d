"""A deadline ends a run in time to polish and export, as a journaled input; a paused run ends by it, too."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.run.deadline import overdue
from riwoa_storage.events import DeadlineReached
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from tests.run.conduct import conduct

SUPPORT = Path(__file__).resolve().parents[1] / "support"
ENDLESS = ("run.generations=1000", "run.deadline_margin_s=60.0")
GENERATION_S = 60.0


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


class Clock:
    """A wall clock that each commit puts forward by a minute, at a pace that the search is told of, too."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._ahead_s = time.time()

    def read(self) -> float:
        """Unix seconds."""
        return self._ahead_s + time.monotonic() - self._began_s

    def jump(self, by_s: float) -> None:
        """As ntpd, or a user, does."""
        self._ahead_s += by_s

    def tick(self, conductor: Any) -> None:
        self.jump(GENERATION_S)
        conductor.schedule.generation_s = [GENERATION_S]

    def deadline(self, minutes: float) -> str:
        at = datetime.fromtimestamp(self.read() + 60 * minutes)
        return f"run.deadline={at:%Y-%m-%dT%H:%M:%S}"


def generations(path: Path) -> list[GenerationRecord]:
    with JournalReader(path) as reader:
        return list(reader.generations(1))


def deadlines(path: Path) -> list[tuple[str | None, str]]:
    with JournalReader(path) as reader:
        return [(event.deadline, event.phase) for event in reader.events(1, DeadlineReached)]


async def test_the_search_ends_in_time_for_its_polish_and_the_journal_says_why(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, clock.deadline(10), "run.polish_evaluations=12")
    await conduct(path, *settings, at_commit=clock.tick, now_unix_s=clock.read)
    phases = [g.phase for g in generations(path)]
    searched, polished = phases.count("search"), phases.count("polish")
    # Ten minutes: one is the margin, two are the polish (12 evaluations at 6 a generation), one may be under way.
    assert searched == 6
    assert polished >= 1
    first = generations(path)[searched]
    assert first.inputs["deadline"] == "search"
    assert all("deadline" not in g.inputs for g in generations(path) if g.generation != searched)
    assert clock.read() <= datetime.fromisoformat(settings[2].partition("=")[2]).timestamp()


async def test_a_duration_counts_from_the_beginning_of_the_run_however_often_it_is_resumed(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, "run.duration_s=600.0", "run.polish_evaluations=12")
    began = clock.read()
    await conduct(path, *settings, stop_after=3, at_commit=clock.tick, now_unix_s=clock.read)
    await conduct(path, *settings, at_commit=clock.tick, now_unix_s=clock.read)
    assert [g.phase for g in generations(path)].count("search") == 6  # as with a deadline ten minutes away
    assert clock.read() <= began + 600.0


async def test_the_earlier_of_duration_and_deadline_counts_and_names_itself(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, "run.duration_s=600.0")
    await conduct(path, *settings, clock.deadline(60), stop_after=1, now_unix_s=clock.read)
    assert overdue(path, clock.read() + 500.0) is None
    late = overdue(path, clock.read() + 600.0)
    assert late is not None
    assert late.deadline.setting == "run.duration_s=600.0"


async def test_a_deadline_that_is_far_changes_no_digest(tmp_path: Path) -> None:
    clock = Clock()
    free = await conduct(tmp_path / "free.db")
    bound = await conduct(tmp_path / "bound.db", clock.deadline(600))
    assert bound == free
    assert deadlines(tmp_path / "bound.db") == []


async def test_a_generation_that_the_deadline_finds_under_way_is_dropped_and_what_is_known_stays(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "journal.db", Clock()

    def slow_from_now_on(conductor: Any) -> None:
        clock.jump(datetime.fromisoformat(deadline.partition("=")[2]).timestamp() - 0.5 - clock.read())
        conductor.schedule.generation_s = [0.1]

    deadline = clock.deadline(30)
    settings = ("run.generations=1000", "run.deadline_margin_s=0.0", deadline, "run.polish_evaluations=0")
    began = time.monotonic()
    # The second generation would take minutes; half a second is left.
    await conduct(
        path,
        *settings,
        oracle={"takes_s": 0.5},
        at_commit=slow_from_now_on,
        now_unix_s=clock.read,
    )
    assert len(generations(path)) == 1
    assert time.monotonic() - began < 15
    assert deadlines(path) == [(deadline.partition("=")[2], "search")]


async def test_a_run_that_found_the_deadline_gone_when_it_was_resumed_ends_with_what_it_has(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, clock.deadline(60))
    digest = await conduct(path, *settings, stop_after=3, now_unix_s=clock.read)
    clock.jump(8 * 3600)
    assert await conduct(path, *settings, now_unix_s=clock.read) == digest
    assert len(deadlines(path)) == 1


async def test_a_run_without_any_answer_searches_one_generation_late_as_it_is(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, clock.deadline(60))
    clock.jump(8 * 3600)
    await conduct(path, *settings, now_unix_s=clock.read)
    (only,) = generations(path)
    assert only.leader is not None


async def test_a_paused_run_ends_by_its_deadline(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()

    def pause(conductor: Any) -> None:
        conductor.running.clear()
        clock.jump(59 * 60 - 0.3)  # of the hour, of which a minute is the margin

    began = time.monotonic()
    await conduct(path, *ENDLESS, clock.deadline(60), at_commit=pause, now_unix_s=clock.read)
    assert len(generations(path)) == 1
    assert time.monotonic() - began < 15


async def test_a_time_of_day_stays_the_same_day_however_often_the_run_is_started(tmp_path: Path) -> None:
    path, seen = tmp_path / "journal.db", []

    def note(conductor: Any) -> None:
        seen.append(conductor.deadline_unix_s)

    for commits in (1, 1, 1):
        await conduct(path, "run.deadline=03:30", "run.deadline_margin_s=0.0", stop_after=commits, at_commit=note)
    assert len(set(seen)) == 1
    assert 0 < seen[0] - time.time() <= 24 * 3600 + 60


async def test_a_wall_clock_that_jumps_changes_nothing_in_a_run_without_a_deadline(tmp_path: Path) -> None:
    whole = await conduct(tmp_path / "whole.db")
    clock = Clock()

    def jump(conductor: Any) -> None:
        clock.jump(1e9 * (-1) ** conductor.generation)

    assert await conduct(tmp_path / "jumps.db", at_commit=jump, now_unix_s=clock.read) == whole


async def test_a_deadline_is_journaled_where_there_is_nothing_to_polish_too(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    settings = (*ENDLESS, clock.deadline(10), "run.polish_evaluations=0")
    await conduct(path, *settings, at_commit=clock.tick, now_unix_s=clock.read)
    assert 6 <= len(generations(path)) <= 9
    assert len(deadlines(path)) == 1


async def test_a_pause_is_no_pace(tmp_path: Path) -> None:
    """One generation that lasted hours must not make the polish seem to take as long."""
    path, clock = tmp_path / "journal.db", Clock()

    def tick(conductor: Any) -> None:
        clock.jump(60)
        conductor.schedule.generation_s = [60.0, 60.0, 4 * 3600.0]

    await conduct(path, *ENDLESS, clock.deadline(20), at_commit=tick, now_unix_s=clock.read)
    assert sum(g.phase == "search" for g in generations(path)) >= 12


async def test_an_overdue_run_is_known_from_its_journal_alone(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", Clock()
    assert overdue(path, clock.read()) is None
    await conduct(path, *ENDLESS, clock.deadline(60), stop_after=2, now_unix_s=clock.read)
    assert overdue(path, clock.read()) is None
    clock.jump(59 * 60 + 1)  # a minute is the margin
    late = overdue(path, clock.read())
    assert late is not None
    assert late.run.run_id == 1
    later = load(None, [clock.deadline(60)], {}).config.run
    assert overdue(path, clock.read(), later) is None  # an edit gives it more time
