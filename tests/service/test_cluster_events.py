"""What a cluster did reaches the journal in order, of its run, and a journal that fails ends nothing."""

from __future__ import annotations

from pathlib import Path

from riwoa.service.cluster_events import ClusterEvents
from riwoa_storage.events import EvaluationAnsweredTwice, EvaluationAskedAgain, Event
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter


def told() -> list[Event]:
    answered = [
        EvaluationAnsweredTwice(job=f"{i}", node="b", first=i == 0, status="ok", duration_s=1.0) for i in range(20)
    ]
    return [EvaluationAskedAgain(job="0", after_s=9.0, limit_s=8.0, node="a", again_on="b"), *answered]


async def test_events_are_journaled_in_the_order_in_which_they_are_told(tmp_path: Path) -> None:
    journal = await JournalWriter.open(tmp_path / "journal.db")
    run_id = await journal.begin_run({"seed": 0}, {})
    events = ClusterEvents(journal)
    events.run_id = run_id
    for event in told():
        events.tell(event)
    await events.written()
    await journal.close()
    with JournalReader(tmp_path / "journal.db") as reader:
        found = reader.events(run_id)
    assert [getattr(event, "job", None) for event in found] == [getattr(event, "job", None) for event in told()]
    assert isinstance(found[0], EvaluationAskedAgain)


async def test_a_journal_that_is_closed_ends_nothing(tmp_path: Path) -> None:
    journal = await JournalWriter.open(tmp_path / "journal.db")
    await journal.close()
    events = ClusterEvents(journal)
    events.tell(told()[0])
    await events.written()
