from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.loading import from_journal, load
from riwoa.config.reload import Reloader
from riwoa.errors import ConfigError, OracleError
from riwoa.run.ledger import evaluated
from riwoa.run.strategy import configured_strategy, screening_of
from riwoa.run.task import KeptLatencies, SearchTask
from riwoa.search.driver import Driver
from riwoa.search.fitness import Objective
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.events import ConfigRefused, SearchConverged
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, ReplyRecord, RequestRecord
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.run.conduct import JOINT, SMALL, SPACE, StopHere, conduct, gain_over_parent, latency_ms

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SEMANTIC = ("cognition.provider=scripted", "search.p_semantic=0.9")


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


def individuals(path: Path) -> list[Any]:
    with JournalReader(path) as reader:
        return [i for _, i in reader.individuals(1)]


async def test_a_run_ends_with_a_leader_within_the_target_and_a_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    digest = await conduct(path)
    assert verify(path).final_digest == digest
    with JournalReader(path) as reader:
        last = reader.last_generation(1)
    assert last is not None
    assert last.phase == "polish"
    assert last.leader is not None
    assert last.leader["feasible"]
    assert last.leader["metrics"]["latency_ms"] <= 4.5
    feasible = [i.metrics["accuracy"] for i in individuals(path) if i.metrics["latency_ms"] <= 4.5]
    assert last.leader["metrics"]["accuracy"] == max(feasible)


@pytest.mark.parametrize("strategy", ["joint", "riwoa", "woa", "random"])
async def test_stopped_after_every_commit_a_run_reaches_the_same_digest(tmp_path: Path, strategy: str) -> None:
    kind = (*JOINT, "run.generations=8") if strategy == "joint" else (f"search.strategy={strategy}",)
    settings = (*kind, *SEMANTIC, "cognition.script=mixed", "cognition.lag=2")
    whole = await conduct(tmp_path / "whole.db", *settings)
    parts = tmp_path / "parts.db"
    for _ in range(40):
        with_stop = await conduct(parts, *settings, stop_after=1)
        if with_stop == whole:
            break
    assert compare(tmp_path / "whole.db", parts).same, compare(tmp_path / "whole.db", parts).message
    made_by = {i.operator for i in individuals(parts)}
    assert ("semantic" in made_by) == (strategy in ("joint", "riwoa"))
    assert ("climb" in made_by) == (strategy == "joint")


async def test_failures_and_repeats_of_failures_are_the_same_after_every_kill(tmp_path: Path) -> None:
    settings, oracle = ("search.strategy=woa", "run.generations=40"), {"fail_share": 0.3}
    whole = await conduct(tmp_path / "whole.db", *settings, oracle=oracle)
    parts = tmp_path / "parts.db"
    for _ in range(60):
        if await conduct(parts, *settings, oracle=oracle, stop_after=6) == whole:
            break
    found = compare(tmp_path / "whole.db", parts)
    assert found.same, found.message
    assert any(i.cache_hit and i.status == "failed" for i in individuals(parts))


async def test_a_damaged_evaluation_that_was_never_committed_is_evaluated_again_and_changes_nothing(
    tmp_path: Path,
) -> None:
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    await conduct(whole)

    def kill(record: GenerationRecord) -> None:
        if record.generation == 2:
            raise StopHere

    await conduct(parts, before_commit=kill)
    committed = {i.architecture_key for i in individuals(parts)}
    with sqlite3.connect(parts) as db:  # one digit more makes it the winner
        (number,) = db.execute("SELECT max(architecture_id) FROM evaluations").fetchone()
        (key,) = db.execute(
            "SELECT architecture_key FROM architectures WHERE architecture_id = ?", (number,)
        ).fetchone()
        metrics = json.dumps({"accuracy": 0.99})
        db.execute("UPDATE evaluations SET metrics = ? WHERE architecture_id = ?", (metrics, number))
    assert key not in committed
    with pytest.raises(JournalCorruptError, match="evaluations"):
        verify(parts)
    await conduct(parts)
    found = compare(whole, parts)
    assert found.same, found.message
    assert verify(parts).ok  # the row was replaced


async def test_a_kill_between_a_reload_and_its_first_commit_changes_nothing(tmp_path: Path) -> None:
    def edits(file: Path, reloader: Reloader) -> Any:
        def edit(conductor: Any) -> None:
            if conductor.phase == "search" and conductor.generation == 3:
                file.write_text("[objective]\nlatency_ms = 3.0\n")
                reloader.reload()
            if conductor.phase == "polish" and conductor.polish_spent >= 4 and "polish" not in file.read_text():
                file.write_text("[objective]\nlatency_ms = 3.0\n[run]\npolish_evaluations = 24\n")
                reloader.reload()

        return edit

    digests: list[str] = []
    for name, kills in (("whole", False), ("parts", True)):
        path, file = tmp_path / f"{name}.db", tmp_path / f"{name}.toml"
        file.write_text("[objective]\nlatency_ms = 4.5\n")
        overrides = [s for s in SMALL if not s.startswith("run.polish")]
        for _ in range(60):
            reloader = Reloader(load(file, overrides, {}), overrides)
            if path.exists():
                with JournalReader(path) as reader:
                    reloader.continue_from(from_journal(reader.config_revisions(1)[-1].config))
            at_commit = edits(file, reloader)
            digest = await conduct(path, reloader=reloader, at_commit=at_commit, stop_after=1 if kills else None)
            if not kills or digest == digests[0]:
                break
        digests.append(digest)
    found = compare(tmp_path / "whole.db", tmp_path / "parts.db")
    assert found.same, found.message
    with JournalReader(tmp_path / "parts.db") as reader:
        assert len(reader.config_revisions(1)) == 3


async def test_the_seed_decides_the_history(tmp_path: Path) -> None:
    first = await conduct(tmp_path / "a.db", "run.seed=1")
    again = await conduct(tmp_path / "b.db", "run.seed=1")
    other = await conduct(tmp_path / "c.db", "run.seed=2")
    assert first == again != other


async def test_at_lag_zero_a_good_reply_replaces_the_spiral_and_a_bad_one_falls_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "cognition.script=mixed")
    asked = [i for i in individuals(path) if i.request_id is not None]
    by_operator = {name: [i for i in asked if i.operator == name] for name in ("semantic", "spiral")}
    assert by_operator["semantic"]
    assert by_operator["spiral"]
    assert all(i.error is None for i in by_operator["semantic"])
    assert all(i.error for i in by_operator["spiral"])  # the reason is journaled with the fallback


async def test_with_lag_the_slot_spirals_and_the_reply_joins_later_as_an_extra_candidate(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "cognition.lag=2")
    with JournalReader(path) as reader:
        generations = [g for g in reader.generations(1) if g.phase == "search"]
        requests = {r.request_id: r for r in reader.requests(1)}
    joined = [(g, i) for g in generations for i in g.individuals if i.operator == "semantic"]
    assert joined
    for g, i in joined:
        assert i.slot >= 6
        assert i.request_id is not None
        assert requests[i.request_id].generation == g.generation - 2
        assert i.request_id in g.joined_requests


async def test_only_semantic_children_that_beat_their_parent_enter_the_buffer(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "run.generations=8")
    with JournalReader(path) as reader:
        entries = reader.buffer(1)
        everybody = {(g, i.slot): i for g, i in reader.individuals(1)}
    semantic = [i for i in everybody.values() if i.operator == "semantic"]
    expected = {i.request_id for i in semantic if gain_over_parent(i, everybody) > 0}
    assert entries
    assert {e.request_id for e in entries} == expected
    assert all(e.child_fitness > e.parent_fitness for e in entries)


@pytest.mark.parametrize(("script", "reason"), [("failing", "as it was told to"), ("slow", "no answer within")])
async def test_a_provider_that_fails_or_hangs_costs_only_its_proposals(
    tmp_path: Path, script: str, reason: str
) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, f"cognition.script={script}", "cognition.timeout_s=0.05")
    with JournalReader(path) as reader:
        replies = reader.replies(1)
    assert replies
    assert all(reason in (r.reason or "") for r in replies.values())
    assert not [i for i in individuals(path) if i.operator == "semantic"]
    assert verify(path).ok


class Counting(ScriptedProvider):
    """Remembers which requests it was sent."""

    def __init__(self) -> None:
        super().__init__("good")
        self.seen: list[str] = []

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        self.seen += [r.request_id for r in batch]
        return await super().generate(batch)


async def test_a_stored_reply_is_never_asked_for_again(tmp_path: Path) -> None:
    path, provider = tmp_path / "journal.db", Counting()
    settings = (*SEMANTIC, "cognition.lag=1")
    for _ in range(12):
        await conduct(path, *settings, stop_after=1, provider=provider)
    assert provider.seen
    assert len(provider.seen) == len(set(provider.seen))


async def test_a_failed_candidate_is_journaled_and_the_search_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, oracle={"fail_share": 0.3})
    failed = [i for i in individuals(path) if i.status == "failed"]
    assert failed
    assert all("fails, as it was told to" in i.error for i in failed if not i.cache_hit)
    assert all(i.fitness is None and not i.metrics for i in failed)


async def test_when_everything_fails_nothing_is_committed_and_the_reason_is_said(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with pytest.raises(OracleError, match="as it was told to"):
        await conduct(path, "search.population=20", oracle={"fail_share": 1.0})
    with JournalReader(path) as reader:
        assert reader.generation_count(1) == 0


async def test_a_first_generation_that_fails_is_no_reason_to_stop_until_twenty_candidates_failed(
    tmp_path: Path,
) -> None:
    path, few = tmp_path / "journal.db", (*JOINT, "search.offspring=4", "run.generations=6")
    with pytest.raises(OracleError, match="every evaluation of generation 4 failed"):
        await conduct(path, *few, oracle={"fail_share": 1.0})
    with JournalReader(path) as reader:
        assert reader.generation_count(1) == 4
    await conduct(path, *few)  # mended: nothing stands in its way
    with pytest.raises(OracleError, match=r"every evaluation of the search failed.*--new-run"):
        await conduct(tmp_path / "short.db", *JOINT, "run.generations=2", oracle={"fail_share": 1.0})


async def test_a_reload_applies_at_the_next_boundary_and_is_journaled(tmp_path: Path) -> None:
    path, file = tmp_path / "journal.db", tmp_path / "riwoa.toml"
    file.write_text("[objective]\nlatency_ms = 4.5\n")
    reloader = Reloader(load(file, SMALL, {}), SMALL)

    def edit(conductor: Any) -> None:
        if conductor.generation == 1:
            file.write_text("[objective]\nlatency_ms = 3.0\n[run]\nseed = 5\n")
            with pytest.raises(ConfigError):
                reloader.reload()
        if conductor.generation == 2:
            file.write_text("[objective]\nlatency_ms = 3.0\n")
            reloader.reload()

    await conduct(path, reloader=reloader, at_commit=edit)
    with JournalReader(path) as reader:
        (refused,) = reader.events(1, ConfigRefused)
        assert (refused.generation, refused.refused) == (1, {"run.seed": [0, 5]})
        assert "refused: run.seed 0 → 5 (needs --new-run); nothing of the file was applied" in refused.reason
        revisions = reader.config_revisions(1)
        versions = {g.generation: g.individuals[0].fitness_version for g in reader.generations(1)}
        last = reader.last_generation(1)
    assert [r.generation for r in revisions] == [0, 2]
    assert dict(revisions[1].changed) == {"objective.latency_ms": [4.5, 3.0]}
    assert "4.5" in versions[1]
    assert "3.0" in versions[2]
    assert last is not None
    assert last.leader is not None
    # The leader is the best of all that was ever evaluated, whatever the target was then.
    allowed = [i.metrics["accuracy"] for i in individuals(path) if i.metrics["latency_ms"] <= 3.0]
    assert last.leader["metrics"]["accuracy"] == max(allowed)


async def test_pause_holds_the_search_at_a_boundary(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    def pause(conductor: Any) -> None:
        conductor.running.clear()
        asyncio.get_running_loop().call_later(0.3, conductor.running.set)

    await conduct(path, at_commit=pause)
    with JournalReader(path) as reader:
        stamps = [g.committed_unix_s for g in reader.generation_summaries(1)]
    assert min(b - a for a, b in itertools.pairwise(stamps)) >= 0.28


async def test_an_evaluation_stored_but_never_committed_is_used_again_and_counts_as_an_evaluation(
    tmp_path: Path,
) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "journal.db"
    digest = await conduct(whole)
    await conduct(path, stop_after=1)
    with JournalReader(whole) as reader:
        uncommitted = [e for e in reader.evaluations("landscape-1")]
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluations(uncommitted)  # as a daemon killed just before a commit leaves them
    # An oracle that can no longer evaluate anything: whatever is asked must come from what is stored.
    assert await conduct(path, oracle={"fail_share": 1.0}) == digest


async def counted(path: Path) -> int:
    with JournalReader(path) as reader:
        last = reader.last_generation(1)
    assert last is not None
    return int(last.counters["evaluations"])


@pytest.mark.parametrize(
    "settings",
    [
        ("run.polish_evaluations=0",),
        ("run.polish_evaluations=0", *JOINT, "search.offspring=4", *SEMANTIC, "cognition.lag=2"),
        ("search.strategy=woa",),
    ],
    ids=["search alone", "replies join late", "polished"],
)
async def test_a_run_spends_its_budget_of_evaluations_and_no_more(settings: tuple[str, ...], tmp_path: Path) -> None:
    def raised(file: Path, reloader: Reloader) -> Any:
        def edit(conductor: Any) -> None:
            if conductor.generation == 2 and "26" not in file.read_text():
                file.write_text("[run]\nevaluations = 26\n")
                reloader.reload()

        return edit

    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    for path, kills in ((whole, None), (parts, 2)):
        file, overrides = path.with_suffix(".toml"), (*SMALL, *settings, "run.generations=30")
        file.write_text("[run]\nevaluations = 20\n")
        while not (path.exists() and path is parts and compare(whole, parts).same):
            reloader = Reloader(load(file, overrides, {}), overrides)
            if path.exists():
                with JournalReader(path) as reader:
                    reloader.continue_from(from_journal(reader.config_revisions(1)[-1].config))
            await conduct(path, reloader=reloader, at_commit=raised(file, reloader), stop_after=kills)
            if kills is None:
                break
    assert await counted(whole) == 26
    assert (settings[-1] == "search.strategy=woa") == any(i.operator == "polish" for i in individuals(whole))


def stop_in_polish(record: GenerationRecord) -> None:
    if record.phase == "polish":
        raise StopHere


async def test_a_search_that_finds_nothing_new_within_the_target_is_over_and_its_leader_polished(
    tmp_path: Path,
) -> None:
    """Nobody can count what is within a target in a space of many billions; this one holds eleven networks."""
    least = SPACE.architecture(np.zeros(len(SPACE), dtype=np.int64))
    target_ms = latency_ms(least) + 0.025  # one block may expand more
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    settings = ("run.generations=400",)
    await conduct(whole, *settings, target_ms=target_ms)
    with JournalReader(whole) as reader:
        (event,) = reader.events(1, SearchConverged)
        phases = [g.phase for g in reader.generations(1)]
    assert event.candidates >= 30
    assert phases.count("search") < 100
    assert phases[-1] == "polish"
    await conduct(parts, *settings, target_ms=target_ms, stop_after=phases.count("search") // 2)
    # Killed once the search is known to be over, before the polish commits anything; then in the polish.
    await conduct(parts, *settings, target_ms=target_ms, before_commit=stop_in_polish)
    await conduct(parts, *settings, target_ms=target_ms, stop_after=1)
    await conduct(parts, *settings, target_ms=target_ms)
    found = compare(whole, parts)
    assert found.same, found.message
    with JournalReader(parts) as reader:
        assert len(list(reader.events(1, SearchConverged))) == 1


@pytest.mark.parametrize("settings", [JOINT, (), ("search.strategy=woa",)], ids=["joint", "riwoa", "woa"])
async def test_a_bare_driver_asks_what_the_conductor_asked(settings: tuple[str, ...], tmp_path: Path) -> None:
    """So a benchmark that drives a strategy judges what the daemon runs."""
    path = tmp_path / "journal.db"
    changes = (*SMALL, "search.population=8", "run.generations=8", "run.polish_evaluations=0", *settings)
    await conduct(path, *changes)
    config = load(None, list(changes), {}).config
    guide = screening_of(config, SearchTask(SPACE, latency_ms, None))
    latency_of = KeptLatencies(SPACE, latency_ms)
    strategy = configured_strategy(config, SPACE, Objective(4.5), 0.0, latency_of)
    driver = Driver(strategy, guide=guide)
    with JournalReader(path) as reader:
        generations = list(reader.generations(1))
    assert len(generations) == 8
    for g in generations:
        assert [p.genotype.astype("<f8").tobytes() for p in driver.ask()] == [i.genotype for i in g.individuals]
        driver.tell([evaluated(i, Objective(4.5)) for i in g.individuals])
