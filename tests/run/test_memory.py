"""What a run knows from earlier ones: what it takes, what it leaves out and says why, and that it stays the same."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from riwoa.errors import ConfigError
from riwoa.run.memory import Lessons, Memory, memory_of, with_memory
from riwoa.run.task import SearchTask
from riwoa.search.fitness import Objective
from riwoa.search.space import Gene, Space
from riwoa.surrogate.gaussian_process import Examples
from riwoa_storage.events import MemoryInherited
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import RunRecord
from riwoa_storage.replay import compare
from riwoa_storage.writer import JournalWriter
from tests.run.test_table_run import life, table, table_settings
from tests.service.test_service import ctl, run
from tests.storage.samples import alter, evaluation

__all__ = ["table"]  # the fixture

SPACE = Space("tiny", (Gene("width", (8, 16, 32), "ordered"), Gene("op", ("conv", "skip"), "nominal")))
OTHER = Space("tiny", (Gene("width", (8, 16), "ordered"), Gene("kernel", (3, 5), "ordered")))
WIDER = Space("wider", (Gene("width", (8, 16, 64), "ordered"), Gene("op", ("conv", "skip", "pool"), "nominal")))
TASK = SearchTask(SPACE, lambda architecture: float(architecture["width"]), None)
FAST = Objective(20.0)


async def begin(writer: JournalWriter, oracle: str, space: Space = SPACE, **more: object) -> int:
    """A run that has evaluated every architecture: the wider the better, and convolutions by a little."""
    run_id = await writer.begin_run({"oracle_version": oracle, "space": space.to_json(), **more}, {})
    for width in (8, 16, 32):
        for op in ("conv", "skip"):
            architecture = {"width": width, "op": op}
            accuracy = width / 100 + (0.01 if op == "conv" else 0.0)
            record = evaluation(f"{width}.{op}", accuracy, oracle_version=oracle, architecture=architecture)
            await writer.put_evaluation(record)
    return run_id


def remembered(path: Path, run: RunRecord | None = None, objective: Objective = FAST) -> Memory | None:
    with JournalReader(path) as reader:
        return memory_of(reader, run, TASK, objective, "mine")


async def test_a_run_knows_every_evaluation_of_its_oracle_and_begins_with_the_best_within_its_own_target(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        assert remembered(path) is None  # nobody has searched here
        await begin(writer, "mine")
        await writer.put_evaluation(evaluation("failed", 0.9, oracle_version="mine", status="failed"))
    found = remembered(path)
    assert found is not None
    assert (found.known.runs, len(found.known.examples), found.related) == ((1,), 6, ())
    best = [SPACE.architecture(row) for row in found.start[:4]]
    assert best == [{"width": w, "op": o} for w, o in ((16, "conv"), (16, "skip"), (8, "conv"), (8, "skip"))]
    assert found.words == f"6 evaluations of run 1 ({found.sha256[:12]})"
    slow = remembered(path, objective=Objective(None))
    assert slow is not None
    assert SPACE.architecture(slow.start[0]) == {"width": 32, "op": "conv"}


async def test_what_cannot_be_used_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    elsewhere = evaluation("9", 0.9, oracle_version="mine", architecture={"width": 9, "op": "conv"})
    words = evaluation("w", oracle_version="mine", architecture={"width": 8, "op": "skip"}, metrics={"accuracy": "?"})
    async with await JournalWriter.open(path) as writer:
        await begin(writer, "mine")
        await begin(writer, "another", OTHER)
        await writer.put_evaluation(elsewhere)
        await writer.put_evaluation(words)
    alter(path, "UPDATE evaluations SET metrics = '{\"accuracy\": 1.0}' WHERE architecture_id = 5")
    found = remembered(path)
    assert found is not None
    assert (len(found.known.examples), found.related) == (5, ())
    assert found.known.examples.accuracies.max() < 0.34
    damaged, outside, other = sorted(found.left_out, key=lambda reason: reason.startswith(("1 eval", "run 2")))
    assert "the row of evaluations" in damaged
    assert "is damaged" in damaged
    assert outside == "1 evaluation of run 1 outside the space"
    assert other == "run 2 searched other genes by another oracle"


async def test_another_oracle_of_the_space_is_a_hint_if_it_knows_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await begin(writer, "older")
    assert remembered(path) is None  # six are too few
    monkeypatch.setattr("riwoa.run.memory.FEWEST_RELATED", 6)
    found = remembered(path)
    assert found is not None
    assert [(r.oracle_version, len(r.examples)) for r in found.related] == [("older", 6)]
    assert len(found.known.examples) == 0
    assert SPACE.architecture(found.start[0]) == {"width": 16, "op": "conv"}
    assert found.words == f"6 evaluations of run 1 by another oracle, as a hint ({found.sha256[:12]})"


async def test_of_a_space_of_the_same_genes_what_lies_in_this_one_is_a_hint_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    monkeypatch.setattr("riwoa.run.memory.FEWEST_RELATED", 6)
    async with await JournalWriter.open(path) as writer:
        await begin(writer, "digits", WIDER)
        for op in ("conv", "pool"):
            too_wide = {"width": 64, "op": op}
            await writer.put_evaluation(evaluation(f"64.{op}", 0.9, oracle_version="digits", architecture=too_wide))
    found = remembered(path)
    assert found is not None
    assert [(r.oracle_version, len(r.examples)) for r in found.related] == [("digits", 6)]
    assert found.left_out == ("2 evaluations of run 1 outside the space",)


async def test_a_begun_run_knows_what_it_knew_whatever_has_come_or_gone_since(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await begin(writer, "mine")
        first = remembered(path)
        assert first is not None
        number = await writer.begin_run(
            {"oracle_version": "mine", "space": SPACE.to_json(), "memory": first.provenance()}, {}
        )
        with JournalReader(path) as reader:
            begun = reader.run(number)
        unwritten = remembered(path, begun)  # killed before it was written down: read once more
        assert unwritten is not None
        assert unwritten.sha256 == first.sha256
        assert not unwritten.is_journaled
        await writer.put_event(MemoryInherited(run_id=number, content=first.to_json()))
    alter(path, "DELETE FROM evaluations")
    kept = remembered(path, begun)
    assert kept is not None
    assert kept.sha256 == first.sha256
    assert kept.is_journaled
    assert kept.start.tolist() == first.start.tolist()
    unknowing = replace(begun, provenance={"oracle_version": "mine"})
    assert remembered(path, unknowing) is None  # begun by an older version, or told to know nothing
    alter(path, "DELETE FROM events")
    with pytest.raises(ConfigError, match=r"run 2 was begun with evaluations .* --new-run"):
        remembered(path, begun)


def test_beside_a_predictors_file_the_journal_has_the_last_word() -> None:
    rows = np.array([[0, 0], [1, 0], [2, 1]], dtype=np.int64)
    task = replace(TASK, prior=Examples(SPACE, rows[:2], np.array([0.1, 0.2])))
    found = with_memory(task, Memory(Lessons("mine", (1,), Examples(SPACE, rows[1:], np.array([0.3, 0.4]))), (), rows))
    assert found.prior is not None
    assert found.prior.indices.tolist() == rows.tolist()
    assert found.prior.accuracies.tolist() == [0.1, 0.3, 0.4]


def test_a_second_run_starts_with_the_first_and_ends_in_the_same_digest_after_kills(
    table: Path, tmp_path: Path
) -> None:
    settings = table_settings(table, "oracle.table.latency=latency.npz:phone_ms", "search.strategy=gp")
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert run(whole, settings=[*settings, "objective.latency_ms=9.0"]).returncode == 0
    shutil.copytree(whole, state)
    second = [*settings, "objective.latency_ms=6.0"]
    done = run(whole, "--new-run", settings=second)
    assert done.returncode == 0, done.stderr
    assert "remembered" in done.stderr
    assert "memory       began with" in ctl(whole, "status", "--verbose").stdout
    # Killed when the run is begun and what it knows is not written down yet, and in the midst of its search.
    assert life(state, second, "journal.after_commit:2", "--new-run") == -signal.SIGKILL
    with JournalReader(state / "journal.db") as reader:
        assert (reader.latest_run().run_id, reader.events(2, MemoryInherited)) == (2, [])  # type: ignore[union-attr]
    for failpoint in ("conductor.evaluated:2", "journal.after_commit:9"):
        assert life(state, second, failpoint) == -signal.SIGKILL
    assert life(state, second, "") == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    with JournalReader(whole / "journal.db") as reader:
        told = reader.run(2).provenance["memory"]
        first = [i.metrics for generation, i in reader.individuals(2) if generation == 0]
        known = [i.metrics for _, i in reader.individuals(1) if i.metrics.get("latency_ms", 7.0) <= 6.0]
    assert (told["runs"], told["related"]) == ([1], [])
    assert max(m["accuracy"] for m in first) == max(m["accuracy"] for m in known)
    unknowing = run(state, "--new-run", settings=[*second, "search.memory=false"])
    assert unknowing.returncode == 0
    assert "remembered" not in unknowing.stderr
