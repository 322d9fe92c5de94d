"""Asynchronous asking: no worker waits for the slowest, and what the clock decides of it is journaled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from riwoa.config.loading import load
from riwoa.errors import ConfigError
from riwoa.run.strategy import check_asynchronous
from riwoa.search.base import Outcome
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.fitness import Objective
from riwoa_storage.events import DeadlineReached
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from riwoa_storage.replay import compare, verify
from tests.support import uneven_lives
from tests.support.uneven_lives import SPACE, UnevenBackend, live, replayed


def generations(path: Path) -> dict[int, GenerationRecord]:
    with JournalReader(path) as reader:
        run = reader.latest_run()
        assert run is not None
        return {n: reader.generation(run.run_id, n) for n in range(run.generations)}


WRITES = (
    "cognition.provider=scripted",
    "cognition.role=slot",
    "cognition.lag=3",
    "search.p_semantic=1.0",
    "run.generations=6",
)


@pytest.mark.parametrize(
    ("failpoint", "settings"),
    [("conductor.evaluated:4", ()), ("journal.before_commit:9", ()), ("journal.after_commit:8", WRITES)],
)
def test_killed_anywhere_it_ends_as_the_run_in_which_the_same_arrived_in_peace(
    tmp_path: Path, failpoint: str, settings: tuple[str, ...]
) -> None:
    hunted, whole = tmp_path / "hunted.db", tmp_path / "whole.db"
    script = [sys.executable, uneven_lives.__file__, str(hunted), failpoint, *settings]
    lives = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    assert int(lives) >= 2, "killed twice at least"
    assert verify(hunted).ok
    recorded = generations(hunted)
    asyncio.run(live(whole, *settings, watch=replayed(recorded)))
    found = compare(hunted, whole)
    assert found.same, found.message
    assert any(i.operator == "semantic" for g in recorded.values() for i in g.individuals) == bool(settings)
    committed = {i.architecture_key for g in recorded.values() for i in g.individuals}
    with JournalReader(hunted) as reader:
        assert {e.architecture_key for e in reader.evaluations("uneven")} <= committed, "nothing was evaluated in vain"


def test_a_slow_candidate_holds_nobody_up_and_the_order_is_an_input(tmp_path: Path) -> None:
    backend = UnevenBackend(patience=8)
    asyncio.run(live(tmp_path / "journal.db", backend=backend))
    search = [g for g in generations(tmp_path / "journal.db").values() if g.phase == "search"]
    arrived = [asked for g in search for asked in g.inputs["arrived"]]
    assert len(arrived) == len(set(arrived)) == 12, "four generations of three"
    assert "0/0" in arrived[6:], "with others of the first generations long told"
    assert len(backend.evaluated) == len(set(backend.evaluated))


def test_a_budget_counts_what_is_under_way(tmp_path: Path) -> None:
    backend = UnevenBackend()
    asyncio.run(live(tmp_path / "journal.db", "run.evaluations=10", "run.polish_evaluations=0", backend=backend))
    assert len(backend.evaluated) == 10


@pytest.mark.parametrize(
    ("setting", "way_out"),
    [("search.strategy=woa", "set riwoa, or gp"), ("oracle.rungs=[100]", "leave oracle.rungs out")],
)
def test_what_asks_whole_generations_is_refused(setting: str, way_out: str) -> None:
    config = load(None, ["search.asynchronous=true", setting], {}).config
    with pytest.raises(ConfigError, match=way_out):
        check_asynchronous(config)


def test_what_is_under_way_is_not_asked_for_again_and_takes_its_place() -> None:
    params = BayesianParameters(offspring=3, generations=2, asynchronous=True)
    strategy = BayesianSearch(SPACE, Objective(None), 0, params)
    first = strategy.ask()
    strategy.tell([Outcome(0, "init", first[1].genotype, 0.5, 1.0, None)])
    strategy.set_under_way([first[0].genotype, first[2].genotype])
    (fourth,) = strategy.ask()
    met = [strategy.codec.decode(p.genotype[None])[0].tolist() for p in (*first, fourth)]
    assert len(np.unique(met, axis=0)) == 4
    strategy.tell([Outcome(0, "init", fourth.genotype, 0.6, 1.0, None)])
    strategy.set_under_way([first[0].genotype, first[2].genotype])
    left = []
    for n in range(3):
        left += strategy.ask()
        strategy.tell([Outcome(0, "init", first[n].genotype, 0.1, 1.0, None)])
        strategy.set_under_way([p.genotype for p in left][-2:])
    assert strategy.tau == 5 / 6
    assert not strategy.ask(), "one is left of the schedule, and two are under way"


def test_a_deadline_drops_what_is_under_way(tmp_path: Path) -> None:
    hangs = UnevenBackend(patience=1_000_000)
    settings = ("run.duration_s=1.5", "run.deadline_margin_s=0.0", "run.polish_evaluations=0")
    asyncio.run(live(tmp_path / "journal.db", *settings, backend=hangs))
    told = [asked for g in generations(tmp_path / "journal.db").values() for asked in g.inputs["arrived"]]
    assert len(told) == 11, "all but the one that hangs"
    with JournalReader(tmp_path / "journal.db") as reader:
        assert [e.phase for e in reader.events(1, DeadlineReached)] == ["search"]
