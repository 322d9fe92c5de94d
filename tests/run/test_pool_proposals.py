"""The language model in its role of a pool: what it writes is chosen from, and nothing is added."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.prompt import load_template
from riwoa.cognition.protocol import Sample
from riwoa.cognition.provider import ScriptedProvider
from riwoa.cognition.samples import packed
from riwoa.run import style
from riwoa.run.offers import placebo_patch
from riwoa.search.rng import generator
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, ReplyRecord, RequestRecord
from tests.run.conduct import JOINT, StopHere, conduct, latency_ms
from tests.support.landscape_oracle import Landscape

SUPPORT = Path(__file__).resolve().parent.parent / "support"
POOL = (
    *JOINT,
    "cognition.provider=scripted",
    "cognition.role=pool",
    "cognition.lag=2",
    "cognition.train_after=60",
    "run.generations=12",
    "run.polish_evaluations=0",
)


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def whole(journals: Path) -> tuple[Path, str]:
    """A run that nothing disturbed, and its digest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(SUPPORT))
        patched.setenv("RIWOA_TEST_ORACLES", "1")
        return journals / "whole.db", asyncio.run(conduct(journals / "whole.db", *POOL, provider=Clairvoyant()))


class Clairvoyant(ScriptedProvider):
    """Writes the best of many patches, now and then garbage; for some generations nothing."""

    def __init__(self) -> None:
        super().__init__("good")
        self.asked: list[str] = []

    def _reply(self, request: RequestRecord, duration_s: float) -> ReplyRecord:
        self.asked.append(request.request_id)
        parent, p = request.parameters["parent"], request.parameters
        offered = {gene: tuple(choices) for gene, choices in p["choices"].items() if not gene.endswith("depth")}
        draw = generator(request.seed, 0, "test")
        patches = [placebo_patch(offered, p["most_genes"], draw) for _ in range(300)]
        within = [patch for patch in patches if latency_ms({**parent, **patch}) <= 4.5]
        best = sorted(within, key=lambda patch: -Landscape().evaluate({**parent, **patch})["accuracy"])[: p["samples"]]
        texts = [json.dumps(patch) for patch in best] + ["{{{ not json"]
        reply = super()._reply(request, duration_s)
        return replace(reply, text="" if request.generation % 4 == 1 else packed(map(Sample, texts)))


def read(path: Path) -> tuple[list[GenerationRecord], list[RequestRecord]]:
    with JournalReader(path) as reader:
        return list(reader.generations(1)), reader.requests(1)


async def test_patches_join_the_pool_at_lag_and_no_candidate_is_added(whole: tuple[Path, str]) -> None:
    generations, requests = read(whole[0])
    assert [len(g.individuals) for g in generations] == [6] * 12
    assert requests
    assert all(r.join_generation == r.generation + 2 and r.slot == 0 for r in requests)
    assert [request_id for g in generations for request_id in g.joined_requests] == [r.request_id for r in requests]
    assert generations[-1].counters["patches"] > 16
    chosen = [(g.generation, i) for g in generations for i in g.individuals if i.operator == "semantic"]
    by_id = {r.request_id: r for r in requests}
    for generation, individual in chosen:
        assert individual.request_id is not None
        request = by_id[individual.request_id]
        assert request.join_generation == generation
        assert individual.parent == tuple(request.parameters["parent_at"])
    assert generations[-1].counters["fallbacks"] == 0
    assert sum(asked for asked, _ in generations[-1].counters["prompts"].values()) == len(requests)


async def test_a_reply_that_brought_nothing_says_why(whole: tuple[Path, str]) -> None:
    generations, requests = read(whole[0])
    won = {i.request_id for g in generations for i in g.individuals if i.request_id is not None}
    for g in generations:
        for name, reason in g.inputs["rejected"].items():
            assert (f"1/{name}" in won) == reason.startswith("not better")
    with JournalReader(whole[0]) as reader:
        assert {entry.request_id for entry in reader.buffer(1)} <= won
    assert any(reason == "the reply holds no patches" for g in generations for reason in g.inputs["rejected"].values())
    assert len(won) < len(requests)


@pytest.mark.parametrize("stop_after", [4, 7])
async def test_killed_and_resumed_the_digest_is_the_same(
    whole: tuple[Path, str], tmp_path: Path, stop_after: int
) -> None:
    path = tmp_path / "killed.db"
    await conduct(path, *POOL, stop_after=stop_after, provider=Clairvoyant())
    assert await conduct(path, *POOL, provider=Clairvoyant()) == whole[1]
    # What a prompt tells of the run's own steps follows from committed generations.
    asked, again = ([(r.prompt, r.parameters) for r in read(which)[1]] for which in (whole[0], path))
    assert asked == again


async def test_every_strategy_composes_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lessons and newest steps, whichever the bandit would draw."""
    two = tuple(map(load_template, ("pool_lessons", "pool_newest")))
    monkeypatch.setattr(style, "pool_templates", lambda: two)
    whole = await conduct(tmp_path / "whole.db", *POOL, provider=Clairvoyant())
    await conduct(tmp_path / "killed.db", *POOL, stop_after=7, provider=Clairvoyant())
    assert await conduct(tmp_path / "killed.db", *POOL, provider=Clairvoyant()) == whole
    asked, again = (read(tmp_path / f"{name}.db")[1] for name in ("whole", "killed"))
    assert [(r.prompt, r.parameters) for r in asked] == [(r.prompt, r.parameters) for r in again]
    told = {r.parameters["strategy"]: r.prompt for r in asked if "nothing yet" not in r.prompt}
    assert "; one: " in told["pool_lessons"]
    assert any(word in told["pool_newest"] for word in (": better, ", ": worse, "))


async def test_killed_while_it_writes_the_request_is_sent_again_and_not_asked_anew(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    def stop(record: GenerationRecord) -> None:
        if record.generation == 6:
            raise StopHere

    path = tmp_path / "killed.db"
    await conduct(path, *POOL, before_commit=stop, provider=Clairvoyant())
    with JournalReader(path) as reader:
        answered = set(reader.replies(1))
    again = Clairvoyant()
    assert await conduct(path, *POOL, provider=again) == whole[1]
    assert answered
    assert not answered & set(again.asked)  # what was written is not asked twice


async def test_a_model_that_fails_leaves_the_search_as_it_is_without_one(tmp_path: Path) -> None:
    def found(path: Path) -> list[tuple[str, Any]]:
        return [(i.operator, i.architecture) for g in read(path)[0] for i in g.individuals]

    settings = ("run.generations=5", "cognition.breaker_failures=1")
    await conduct(tmp_path / "failing.db", *POOL, *settings, "cognition.script=failing")
    await conduct(tmp_path / "none.db", *POOL, *settings, "cognition.provider=none")
    assert found(tmp_path / "failing.db") == found(tmp_path / "none.db")


async def test_a_budget_of_evaluations_is_spent_to_the_last_and_not_exceeded(tmp_path: Path) -> None:
    budget = ("run.generations=40", "run.evaluations=44", "run.polish_evaluations=8", "cognition.train=false")
    await conduct(tmp_path / "budget.db", *POOL, *budget)
    assert read(tmp_path / "budget.db")[0][-1].counters["evaluations"] == 44
