"""When a run must have its answer, from what is configured and what is journaled; and which run is past that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riwoa.config import Run
from riwoa.hours import deadline_unix_s
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, RunRecord


def due_unix_s(wanted: str | None, revisions: Sequence[ConfigRevisionRecord], now_unix_s: float) -> float | None:
    """The moment of a deadline, None without one.

    A time of day means the first after it was configured, however often the daemon is started since; one that is in no
    revision yet was configured now.
    """
    if wanted is None:
        return None
    since_unix_s = now_unix_s
    for revision in reversed(revisions):
        if revision.config["run"].get("deadline") != wanted:
            break
        since_unix_s = revision.created_unix_s
    return deadline_unix_s(wanted, since_unix_s)


@dataclass(frozen=True, slots=True)
class Overdue:
    """An unfinished run, and the deadline that it has missed."""

    run: RunRecord
    deadline: str


def overdue(journal: Path, now_unix_s: float, configured: Run | None = None) -> Overdue | None:
    """The unfinished run that has an answer and no time left to ask for a better one; None if there is none.

    Args:
        journal: may be missing.
        now_unix_s: by the wall clock.
        configured: deadline and margin, where they may differ from the journaled ones.
    """
    try:
        with JournalReader(journal) as reader:
            run = reader.latest_run()
            last = reader.last_generation(run.run_id) if run is not None and run.status == "running" else None
            if run is None or last is None or last.leader is None:
                return None
            revisions = reader.config_revisions(run.run_id)
    except JournalMissingError:
        return None
    journaled = revisions[-1].config["run"]
    wanted = journaled.get("deadline") if configured is None else configured.deadline
    margin_s = journaled.get("deadline_margin_s", 0.0) if configured is None else configured.deadline_margin_s
    due = due_unix_s(wanted, revisions, now_unix_s)
    return Overdue(run, wanted) if wanted and due is not None and now_unix_s >= due - margin_s else None
