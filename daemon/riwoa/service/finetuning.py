"""Fine-tune the winner of a run: for ``riwoactl finetune``, and as the daemon's child at the end of a run.

``python -m riwoa.service.finetuning JOURNAL EPOCHS`` prints one JSON object a line: progress, then
``{"event": "done", ...}`` or ``{"event": "error", ...}``. The weights go beside the journal (``StatePaths.finetuned``),
and exports take them from there. Killed and run again it continues, on a processor to the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.export import found_network, read_winner
from riwoa.files.ownership import unwritable
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.ipc.job import Orders, answer
from riwoa.limits import whole_cores
from riwoa.oracle.kind import FineTuning
from riwoa.paths import StatePaths
from riwoa.search.paired import LEVEL
from riwoa.supernet.job import OnProgress, tell_parent
from riwoa.text import points

_MOST_THREADS = 4  # more gain little on networks this small


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What a fine-tuning came to; ``was_there``: it was done before."""

    file: Path
    told: Mapping[str, Any]
    was_there: bool = False


def finetuned(journal: Path, run_id: int | None = None) -> FineTuned | None:
    """The fine-tuning of a run's winner that was done; None where there is none. No torch.

    Raises:
        InputError: there is no winner.
        StorageError: the journal cannot be read.
    """
    oracle, found = found_network(read_winner(journal, run_id), journal)
    file = StatePaths(journal.absolute().parent).finetuned
    told = oracle.value.finetuning_told(found, file)
    return None if told is None else FineTuned(file, told, was_there=True)


def finetune_winner(
    journal: Path,
    how: FineTuning,
    progress: OnProgress,
    run_id: int | None = None,
    orders: Orders | None = None,
) -> FineTuned:
    """Train the winner of a run (the latest) on, or continue.

    Args:
        journal: of the run.
        how: how long, how fast.
        progress: is told how it goes.
        run_id: another run than the latest.
        orders: that may end it before: to leave its state behind, or with what it has.

    Raises:
        InputError: no winner, or one that cannot be trained, or the state beside its file is of another training.
        StateDirectoryError, FullDiskError: the file cannot be written.
        StorageError: the journal cannot be read.
    """
    done = finetuned(journal, run_id)
    if done is not None:
        return done
    oracle, found = found_network(read_winner(journal, run_id), journal)
    file = StatePaths(journal.absolute().parent).finetuned
    try:
        with oracle.blamed("fine-tune the winner"):
            return FineTuned(file, oracle.value.finetune(found, how, file, progress, orders))
    except OSError as error:
        raise unwritable(file, error, "choose another place with --state") from None


def gain_line(told: Mapping[str, Any]) -> str:
    """One split: before, after, the paired difference with its standard error, and its chance."""
    before, after, gain = (told[name] for name in ("before", "after", "gain"))
    words = f"{100 * before['accuracy']:.2f} % -> {100 * after['accuracy']:.2f} %, "
    words += f"{points(gain['value'], gain['error'])} points on {told['pictures']:,} pictures"
    chance = f"p = {gain['p']:.2g}"
    return f"{words} ({chance}{'' if gain['p'] < LEVEL else ': may be chance'})"


def usual_threads() -> int:
    """Threads that a fine-tuning takes where nobody says how many."""
    return min(_MOST_THREADS, whole_cores())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m riwoa.service.finetuning", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    parser.add_argument("journal", type=Path)
    parser.add_argument("epochs", type=int)
    given = parser.parse_args(argv)
    orders = Orders()
    if given.child:
        die_with_parent()
        watch_stdin(orders.take)

    def work() -> dict[str, Any]:
        how = FineTuning(given.epochs, threads=usual_threads())
        done = finetune_winner(given.journal, how, tell_parent, orders=orders)
        return {"file": str(done.file), **done.told}

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
