"""What is remembered of a run, from a real journal."""

from __future__ import annotations

from pathlib import Path

from riwoa.run.history import Best, History
from riwoa.search.fitness import Objective
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord
from tests.storage.samples import write_run


async def test_while_a_leader_is_chosen_anew_whoever_looks_sees_the_one_before(tmp_path: Path) -> None:
    seen: list[Best | None] = []

    class Watched(JournalReader):
        def individual(self, run_id: int, generation: int, slot: int) -> IndividualRecord | None:
            seen.append(history.best)
            return super().individual(run_id, generation, slot)

    path = tmp_path / "journal.db"
    await write_run(path, 4)
    history = History(Objective(None))
    with Watched(path) as reader:
        history.judge_by(Objective(None), reader, 1)
        before = history.best
        assert before is not None
        assert before.origin == (3, 2)  # the most accurate
        seen.clear()
        history.judge_by(Objective(10.0), reader, 1)
        assert seen
        assert all(best is before for best in seen)
        assert history.best is not None
        assert history.best.origin == (3, 0)  # the most accurate within 10 ms


async def test_a_restored_front_is_the_one_that_was_found_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    lived, resumed = History(Objective(None)), History(Objective(None))
    with JournalReader(path) as reader:
        for g in reader.generations(1):
            lived.absorb(g.generation, g.individuals)
        last = reader.last_generation(1)
        assert last is not None
        resumed.restore(reader, last, lambda generation, key: None)
    assert resumed.archive.front() == lived.archive.front()
    assert len(resumed.archive) == 3
