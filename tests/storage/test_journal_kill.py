"""SIGKILL at named failpoints and at arbitrary moments: what was reported durable is there, whole, and nothing half."""

from __future__ import annotations

import itertools
import signal
import subprocess
from pathlib import Path

import pytest

from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import ENVIRONMENT, PYTHON, ROOT, generation, write_run

COMMAND = [PYTHON, "-m", "tests.storage.child_writer"]


def die_at(path: Path, failpoint: str) -> list[str]:
    """Journal until the failpoint kills the process; returns what it had reported as durable."""
    done = subprocess.run(
        [*COMMAND, str(path)],
        env={**ENVIRONMENT, "RIWOA_FAILPOINT": failpoint},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.splitlines()


def durable(path: Path) -> tuple[int, int]:
    """(generations, evaluations), read before and after anyone else opens the journal for writing."""
    with JournalReader(path) as reader:
        run = reader.latest_run()
        return (run.generations if run else 0), len(list(reader.evaluations("table-1")))


# The transactions: 1 begins the run; then evaluations and generation take turns.
@pytest.mark.parametrize(
    ("failpoint", "reported", "expected"),
    [
        ("journal.before_commit:1", None, (0, 0)),
        ("journal.after_commit:1", None, (0, 0)),
        ("journal.before_commit:6", "generation 1", (2, 6)),
        ("journal.after_commit:6", "generation 1", (2, 9)),
        ("journal.before_commit:7", "evaluations 2", (2, 9)),
        ("journal.after_commit:7", "evaluations 2", (3, 9)),
    ],
)
async def test_a_kill_around_a_commit_leaves_the_transaction_whole_or_absent(
    tmp_path: Path, failpoint: str, reported: str | None, expected: tuple[int, int]
) -> None:
    path = tmp_path / "journal.db"
    lines = die_at(path, failpoint)
    assert " ".join(lines[-1].split()[:2]) == reported if lines else reported is None
    assert durable(path) == expected
    assert verify(path).ok


async def test_a_journal_continued_after_kills_ends_in_the_digest_of_an_uninterrupted_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for failpoint in ("journal.before_commit:5", "journal.after_commit:3", "journal.before_commit:1"):
        die_at(path, failpoint)
    with JournalReader(path) as reader:
        count = reader.generation_count(1)
    assert count == 2
    async with await JournalWriter.open(path) as writer:
        for number in range(count, 5):
            digest = await writer.commit_generation(generation(1, number))
    assert digest == await write_run(tmp_path / "uninterrupted.db", 5)
    assert compare(path, tmp_path / "uninterrupted.db").same


def test_a_kill_at_any_moment_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for lines_before_the_kill in (1, 12, 33):
        with subprocess.Popen(
            [*COMMAND, str(path)], env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            seen = list(itertools.islice(child.stdout, lines_before_the_kill))
            child.kill()
            seen += child.stdout.readlines()
        generations = [line.split() for line in seen if line.startswith("generation") and line.endswith("\n")]
        with JournalReader(path) as reader:
            digests = [s.digest for s in reader.generation_summaries(1)]
            for _, number, digest in generations:
                assert digests[int(number)] == digest
        assert verify(path).ok
