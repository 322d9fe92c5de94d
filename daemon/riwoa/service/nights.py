"""``riwoad --nightly FROM-UNTIL``: what a start at this hour is to do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from riwoa.config.hours import checked_hours, window
from riwoa.config.loading import Loaded
from riwoa.errors import UsageError
from riwoa.paths import StatePaths
from riwoa.run.deadline import overdue
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader

_LEAST_NIGHT_S = 1800.0  # what a new run needs to be worth more than the last one's answer


@dataclass(frozen=True, slots=True)
class NightPlan:
    """What a start within the hours does.

    Attributes:
        overrides: ``--set`` values that the night adds.
        renew_before_unix_s: a finished run whose last commit is older is followed by another; 0 for none.
    """

    overrides: tuple[str, ...]
    renew_before_unix_s: float = 0.0


def plan_night(hours: str, paths: StatePaths, loaded: Loaded) -> NightPlan | None:
    """The plan for a start now; None where it is day and nothing is left to do.

    By day, a run that was cut short before its deadline is ended, for what it found is still to be exported.

    Raises:
        UsageError: ``hours`` is no span such as 22:00-07:00.
        StorageError: the journal cannot be read.
    """
    try:
        night = window(checked_hours(hours), datetime.now())
    except ValueError as error:
        raise UsageError(f"--nightly {hours}: should be {error}") from None
    late = overdue(paths.journal, time.time())
    if night is not None:
        began, ends = night
        long_enough = ends.timestamp() - time.time() > _LEAST_NIGHT_S
        overrides = (f"run.deadline={ends:%Y-%m-%dT%H:%M}", *_seed_override(paths, loaded))
        return NightPlan(overrides, began.timestamp() if long_enough else 0.0)
    if late is not None:
        return NightPlan((late.deadline.setting, f"run.seed={late.run.provenance['seed']}"))
    return None


def _seed_override(paths: StatePaths, loaded: Loaded) -> list[str]:
    """Another seed for each new run, or every night would find what the first one found."""
    try:
        with JournalReader(paths.journal) as reader:
            runs = reader.runs()
    except JournalMissingError:
        runs = []
    if not runs:
        return []
    seed = runs[-1].provenance["seed"] if runs[-1].status == "running" else loaded.config.run.seed + len(runs)
    return [f"run.seed={seed}"]
