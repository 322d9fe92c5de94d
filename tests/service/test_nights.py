"""``--nightly``: what a start within the hours and outside of them is to do."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from riwoa.config.loading import Loaded, load
from riwoa.config.schema import as_json
from riwoa.errors import UsageError
from riwoa.paths import StatePaths
from riwoa.service.nights import NightPlan, plan_night
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import PROVENANCE, generation


def hours(from_minutes: float, until_minutes: float) -> str:
    now = datetime.now()
    begins, ends = (now + timedelta(minutes=m) for m in (from_minutes, until_minutes))
    return f"{begins:%H:%M}-{ends:%H:%M}"


def settings(*overrides: str) -> Loaded:
    return load(None, list(overrides), {})


async def write_runs(state: Path, finished: int, *, unfinished: bool = False, deadline: str | None = None) -> None:
    config = as_json(settings(*([f"run.deadline={deadline}"] if deadline else [])).config)
    async with await JournalWriter.open(state / "journal.db") as journal:
        for number in range(finished + unfinished):
            run_id = await journal.begin_run({**PROVENANCE, "seed": 40 + number}, config)
            await journal.commit_generation(generation(run_id, 0))
            if number < finished:
                await journal.finish_run(run_id)


def test_by_day_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert plan_night(hours(60, 120), StatePaths(tmp_path), settings()) is None


def test_the_first_night_has_its_end_for_a_deadline_and_the_configured_seed(tmp_path: Path) -> None:
    night = hours(-60, 60)
    plan = plan_night(night, StatePaths(tmp_path), settings())
    assert plan is not None
    (deadline,) = plan.overrides
    assert deadline.startswith("run.deadline=")
    assert deadline.endswith(night.partition("-")[2])
    assert plan.renew_before_unix_s == pytest.approx(time.time() - 3600, abs=120)


async def test_each_new_run_has_another_seed_and_an_unfinished_one_keeps_its_own(tmp_path: Path) -> None:
    await write_runs(tmp_path, 2)
    plan = plan_night(hours(-60, 60), StatePaths(tmp_path), settings("run.seed=7"))
    assert plan is not None
    assert plan.overrides[1:] == ("run.seed=9",)
    await write_runs(tmp_path, 0, unfinished=True)
    plan = plan_night(hours(-60, 60), StatePaths(tmp_path), settings("run.seed=7"))
    assert plan is not None
    assert plan.overrides[1:] == ("run.seed=40",)


def test_what_is_left_of_a_night_may_be_too_little_for_another_run(tmp_path: Path) -> None:
    plan = plan_night(hours(-60, 20), StatePaths(tmp_path), settings())
    assert plan is not None
    assert plan.renew_before_unix_s == 0.0


async def test_by_day_a_run_cut_short_before_its_deadline_is_still_to_be_ended(tmp_path: Path) -> None:
    await write_runs(tmp_path, 0, unfinished=True, deadline="2020-01-01T07:00")
    plan = plan_night(hours(60, 120), StatePaths(tmp_path), settings())
    assert plan == NightPlan(("run.deadline=2020-01-01T07:00", "run.seed=40"))


def test_what_is_no_span_of_hours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--nightly late"):
        plan_night("late", StatePaths(tmp_path), settings())
