"""Whether a trained adapter replaces the one in use. Pure: the same measurements give the same verdict.

An adapter must pass all three, each measured before and after the training on what no training ever sees:

- the mean loss on held-out successes falls: it learned what succeeds, not just what it was shown;
- no fewer probes get a valid patch without the grammar: it still knows what the answer looks like;
- the different patches among the probes stay at ``DISTINCT_KEPT`` of before or more. A model that repeats its favourite
  patch has a low loss and wins often, yet finds nothing new (seen in a trial: distinct 52 -> 23 of 96 while wins rose).

Without any held-out success yet the first says nothing, and the other two decide; the verdict says so.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from riwoa.cognition.protocol import Measured, Trained

DISTINCT_KEPT = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted or not, and why: one line a criterion, in their order."""

    accepted: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As journaled with the adapter."""
        return {**asdict(self), "reasons": list(self.reasons)}


def judge(trained: Trained) -> Verdict:
    """The verdict on a training."""
    before, after = trained.before, trained.after
    checks = [_loss(before, after), _validity(before, after), _variety(before, after)]
    if not all(map(math.isfinite, trained.losses)):
        checks.append((False, "the training diverged: a loss is not finite"))
    return Verdict(all(passed for passed, _ in checks), tuple(reason for _, reason in checks))


def _loss(before: Measured, after: Measured) -> tuple[bool, str]:
    if before.held_out_loss is None or after.held_out_loss is None:
        return True, "held-out loss not judged: no success is held out yet"
    fell = after.held_out_loss < before.held_out_loss  # false for a loss that is no number
    return fell, f"held-out loss {before.held_out_loss:.4f} -> {after.held_out_loss:.4f}{_mark(fell)}"


def _validity(before: Measured, after: Measured) -> tuple[bool, str]:
    kept = after.valid_without_grammar >= before.valid_without_grammar
    counts = f"{before.valid_without_grammar} -> {after.valid_without_grammar} of {after.probes}"
    return kept, f"valid without the grammar {counts}{_mark(kept)}"


def _variety(before: Measured, after: Measured) -> tuple[bool, str]:
    kept = after.distinct_with_grammar >= DISTINCT_KEPT * before.distinct_with_grammar
    counts = f"{before.distinct_with_grammar} -> {after.distinct_with_grammar} of {after.probes}"
    return kept, f"distinct patches {counts}{_mark(kept)}"


def _mark(passed: bool) -> str:
    return "" if passed else " (rejected)"
