from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.cognition.protocol import OnTrainingStep, Trained, TrainingJob
from riwoa.cognition.provider import ScriptedProvider
from riwoa.errors import CognitionError
from riwoa.run.choice_time import JOURNAL_EVERY
from riwoa.run.credit import (
    Child,
    OperatorSeconds,
    Tally,
    credit_rows,
    tallied,
    tallies_from_json,
    tallies_to_json,
    wilson,
)
from riwoa.service.views import operators_view
from riwoa_storage.events import ChoiceTimed, TrainingFailed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from tests.run.conduct import JOINT, conduct, gain_over_parent

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SETTINGS = (
    "cognition.provider=scripted",
    "search.p_semantic=0.7",
    "cognition.script=mixed",
    "search.placebo_share=0.3",
)


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


@pytest.mark.parametrize(
    ("wins", "proposals", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval_has_its_published_values(wins: int, proposals: int, low: float, high: float) -> None:
    assert wilson(wins, proposals) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_interval_holds_the_rate(wins: int, more: int) -> None:
    low, high = wilson(wins, wins + more)
    assert 0.0 <= low <= wins / (wins + more) + 1e-12
    assert wins / (wins + more) - 1e-12 <= high <= 1.0


def test_a_generation_adds_to_the_tallies_and_discounts_what_is_recent() -> None:
    children = [
        Child("semantic", 0.2, True, False),
        Child("semantic", -0.1, False, True),
        Child("spiral", None, False, False),
    ]
    first = tallied({}, children, {"semantic": 2}, {"spiral": 0.2})
    assert first["semantic"] == Tally(4, 2, 1, 1, 0.2, 4.0, 1.0)
    assert first["spiral"] == Tally(1, 1, 0, 0, 0.0, 1.0, 0.0, 0.2)
    second = tallied(first, [Child("spiral", 0.1, True, False)], {}, {})
    assert second["semantic"] == Tally(4, 2, 1, 1, 0.2, 4.0 * 0.95, 0.95)
    assert second["spiral"] == Tally(2, 2, 0, 1, 0.1, 1.95, 1.0, 0.2)  # the last is kept
    assert tallies_from_json(json.loads(json.dumps(tallies_to_json(second)))) == second


def test_gain_a_second_needs_seconds() -> None:
    rows = credit_rows({"spiral": Tally(10, 10, 0, 4, 0.5)}, {})
    assert rows["spiral"]["gain_per_s"] is None
    assert rows["spiral"]["mean_gain"] == 0.05
    assert credit_rows({"spiral": Tally(10, 10, 0, 4, 0.5)}, {"spiral": 5.0})["spiral"]["gain_per_s"] == 0.1


async def test_the_credit_in_the_journal_is_that_of_its_individuals(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SETTINGS, "cognition.lag=1", "run.generations=8", "cognition.train=false")
    with JournalReader(path) as reader:
        last = reader.last_generation(1)
        everybody = {(g, i.slot): i for g, i in reader.individuals(1)}
        due = [r for r in reader.requests(1) if r.join_generation < 8]
    assert last is not None
    tallies = tallies_from_json(last.counters["operators"])
    children = [i for i in everybody.values() if i.parent is not None]
    assert {"semantic", "placebo", "spiral", "polish"} <= tallies.keys()
    for name, tally in tallies.items():
        own = [i for i in children if i.operator == name]
        gains = [gain_over_parent(i, everybody) for i in own]
        assert tally.valid == len(own)
        assert tally.wins == sum(gain > 0 for gain in gains)
        assert tally.gain == pytest.approx(sum(gain for gain in gains if gain > 0))
        assert tally.proposals == (len(due) if name == "semantic" else len(own))
    assert tallies["semantic"].valid < tallies["semantic"].proposals  # the script writes some garbage


async def test_choosing_is_charged_to_all_that_is_asked_alike_and_leaders_to_who_made_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    looked: list[Any] = []
    settings = (*JOINT, "run.generations=9", "run.polish_evaluations=0")
    started_s = time.monotonic()
    await conduct(path, *settings, at_commit=lambda conductor: looked.append(conductor.choosing_s))
    lasted_s = time.monotonic() - started_s
    with JournalReader(path) as reader:
        (event,) = reader.events(1, ChoiceTimed)
        generations = list(reader.generations(1))
    asked = Counter(i.operator for g in generations[:JOURNAL_EVERY] for i in g.individuals)
    assert event.generation == JOURNAL_EVERY - 1
    assert event.seconds.keys() == asked.keys()
    assert looked[JOURNAL_EVERY - 1] == {}
    assert looked[0].keys() == {"init"}
    assert 0.0 < looked[0]["init"] < looked[2]["climb"] + looked[2]["init"] < sum(event.seconds.values()) < lasted_s
    seconds = OperatorSeconds(path, 1, ["landscape-1"])
    whole = counted(seconds, len(generations))
    assert all(whole[operator] > event.seconds[operator] for operator in asked)
    leaders = [(g.leader["generation"], g.leader["slot"]) for g in generations if g.leader is not None]
    made = {(g.generation, i.slot): i.operator for g in generations for i in g.individuals}
    assert seconds.leaders == Counter(made[place] for place in dict.fromkeys(leaders))
    assert seconds.model_leaders == 0
    rows = credit_rows({"climb": Tally(10, 10, 0, 4, 0.5)}, whole, seconds.leaders)
    assert {name: row["leaders"] for name, row in rows.items()} == {"climb": 0} | dict(seconds.leaders)


def counted(seconds: OperatorSeconds, generations: int) -> dict[str, float]:
    """Seconds of the generations before, counted to the end."""
    while seconds.count(generations):
        pass
    return dict(seconds.spent)


async def test_seconds_are_read_from_the_journal_once_a_generation_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    seconds: list[Any] = []

    def look(conductor: Any) -> None:
        if not seconds:
            seconds.append(OperatorSeconds(path, 1, ["landscape-1"]))
        seconds.append(counted(seconds[0], conductor.generation))

    await conduct(path, *SETTINGS, "cognition.lag=1", at_commit=look)
    with JournalReader(path) as reader:
        count = reader.generation_count(1)
    whole = counted(OperatorSeconds(path, 1, ["landscape-1"]), count)
    assert seconds[-1] == pytest.approx(whole)
    with JournalReader(path) as reader:
        spent = defaultdict[str, float](float)
        durations = {e.architecture_key: e.duration_s for e in reader.evaluations("landscape-1")}
        for _, i in reader.individuals(1):
            if not i.cache_hit:
                spent[i.operator] += durations[i.architecture_key]
        batches: dict[int, float] = {}
        for request_id, reply in reader.replies(1).items():
            generation = int(request_id.split("/")[1])
            if generation + 1 < reader.generation_count(1):
                batches[generation] = max(batches.get(generation, 0.0), reply.duration_s)
        chosen = reader.seconds.choosing(1, 0, count)
    assert whole["spiral"] == pytest.approx(spent["spiral"] + chosen.get("spiral", 0.0))
    assert whole["semantic"] == pytest.approx(spent["semantic"] + sum(batches.values()) + chosen.get("semantic", 0.0))


async def test_seconds_looked_at_within_a_commit_are_not_lost(tmp_path: Path) -> None:
    """The status is asked for at any moment; within a commit the search already stands at the next generation."""
    path = tmp_path / "journal.db"
    looked: list[Any] = []

    def meet(conductor: Any) -> None:
        if not looked:
            looked.append((conductor, OperatorSeconds(path, 1, ["landscape-1"])))

    def look(_: GenerationRecord) -> None:
        for conductor, seconds in looked:
            seconds.count(conductor.history.generations)

    await conduct(path, *SETTINGS, "cognition.lag=1", at_commit=meet, before_commit=look)
    ((conductor, seconds),) = looked
    seconds.count(conductor.history.generations)
    rows = operators_view(conductor, seconds)
    whole = counted(OperatorSeconds(path, 1, ["landscape-1"]), conductor.history.generations)
    fresh = conductor.choosing_s  # of the generations since the last that journaled it
    assert fresh
    expected = {n: whole.get(n, 0.0) + fresh.get(n, 0.0) for n in rows}
    assert {name: row["seconds"] for name, row in rows.items()} == pytest.approx(expected)


class Slow(ScriptedProvider):
    """Fails its first training; each takes its time."""

    trainings = 0

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self.trainings += 1
        await asyncio.sleep(0.3)
        if self.trainings == 1:
            raise CognitionError("as it was told to")
        return await super().train(job, on_progress)


async def test_the_language_models_seconds_hold_its_trainings_failed_ones_too(tmp_path: Path) -> None:
    path, provider = tmp_path / "journal.db", Slow("good")
    settings = ("cognition.provider=scripted", "search.p_semantic=0.9", "cognition.lag=1", "cognition.train_after=2")
    await conduct(path, *settings, "run.generations=14", provider=provider, target_ms=100.0)
    with JournalReader(path) as reader:
        (failed,) = (event.duration_s for event in reader.events(1, TrainingFailed))
        lasted = [a.training["duration_s"] for a in reader.adapters(1)]
        count = reader.generation_count(1)
        spent = reader.seconds.evaluating(1, "landscape-1", 0, count)["semantic"] + reader.seconds.writing(1, 0, count)
        spent += reader.seconds.choosing(1, 0, count)["semantic"]
    assert failed >= 0.3
    assert len(lasted) == provider.trainings - 1 >= 1
    whole = counted(OperatorSeconds(path, 1, ["landscape-1"]), count)
    assert whole["semantic"] == pytest.approx(spent + failed + sum(lasted))


@pytest.mark.parametrize("kind", [(), JOINT], ids=["by slots", "joint"])
async def test_the_bandit_moves_the_share_by_committed_wins_alone(tmp_path: Path, kind: tuple[str, ...]) -> None:
    shares: dict[str, list[float]] = {"whole": [], "parts": []}
    settings = (*SETTINGS, *kind, "search.adapt_semantic=true", "run.generations=10", "run.polish_evaluations=0")
    digests = [
        await conduct(tmp_path / "whole.db", *settings, at_commit=lambda c: shares["whole"].append(c.p_semantic))
    ]
    for _ in range(20):
        digest = await conduct(
            tmp_path / "parts.db", *settings, stop_after=1, at_commit=lambda c: shares["parts"].append(c.p_semantic)
        )
        if digest == digests[0]:
            break
    assert digest == digests[0]
    assert shares["parts"][:10] == shares["whole"]
    assert len(set(shares["whole"])) > 3
    assert all(0.05 <= share <= 0.95 for share in shares["whole"])
