"""Whether a trained adapter replaces the one in use. Pure: the same measurements give the same verdict.

An adapter must pass all, each measured before and after the training on what no training ever sees. Where it learned
from comparisons:

- at held-out parents the likeliest of the evaluated patches gains more than before, its mean by more than 0 with 95 %
  confidence (Student's t, one-sided): it decides better;
- it is the greedy rule's patch at ``GREEDY_MOST`` of them or less: that rule needs no model.

Where it learned from successes:

- the mean loss on held-out successes falls: it learned what succeeds, not just what it was shown. Without any yet this
  says nothing, and the others decide; the verdict says so.

And always:

- no fewer probes get a valid patch without the grammar: it still knows what the answer looks like;
- the different patches among the probes stay at ``DISTINCT_KEPT`` of before or more. A model that repeats its favourite
  patch has a low loss and wins often, yet finds nothing new (seen in a trial: distinct 52 -> 23 of 96 while wins rose).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from riwoa.cognition.protocol import Measured, Trained

DISTINCT_KEPT = 0.9
GREEDY_MOST = 0.8
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted or not, and why: one line a criterion, in their order."""

    accepted: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As journaled with the adapter."""
        return {**asdict(self), "reasons": list(self.reasons)}


def judge(trained: Trained, *, trial: bool = False) -> Verdict:
    """The verdict on a training; in a trial, on an adapter of before."""
    before, after = trained.before, trained.after
    learned = [_decisions(before, after), _greed(after)] if after.top_gains is not None else [_loss(before, after)]
    checks = [*learned, _validity(before, after), _variety(before, after)]
    if not trial and not trained.losses:
        checks.append((False, "there was nothing to learn from (rejected)"))
    if not all(map(math.isfinite, trained.losses)):
        checks.append((False, "the training diverged: a loss is not finite"))
    return Verdict(all(passed for passed, _ in checks), tuple(reason for _, reason in checks))


def _decisions(before: Measured, after: Measured) -> tuple[bool, str]:
    """By how much more the likeliest patches gain, paired by parent."""
    more = np.array(after.top_gains) - np.array(before.top_gains)
    if len(more) < 2:
        return False, f"held-out parents to judge by: {len(more)} (rejected)"
    from scipy.special import stdtrit  # only the daemon judges; the model's process starts without

    error = float(more.std(ddof=1)) / math.sqrt(len(more))
    least = float(more.mean()) - float(stdtrit(len(more) - 1, _CONFIDENCE)) * error
    passed = least > 0.0
    return passed, (
        f"likeliest patches gain {more.mean():+.4g} more, at least {least:+.4g}, at {len(more)} parents{_mark(passed)}"
    )


def _greed(after: Measured) -> tuple[bool, str]:
    passed = after.greedy <= GREEDY_MOST * after.greedy_known
    return passed, f"the greedy rule's patch at {after.greedy} of {after.greedy_known} parents{_mark(passed)}"


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
