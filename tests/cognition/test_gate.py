from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from riwoa.cognition.gate import judge
from riwoa.cognition.protocol import Measured, Trained

BEFORE = Measured(
    held_out_loss=2.0, held_out_losses=(2.0,), valid_without_grammar=10, distinct_with_grammar=20, probes=24
)
BETTER = replace(BEFORE, held_out_loss=1.9)


def trained(after: Measured, before: Measured = BEFORE, losses: tuple[float, ...] = (2.0, 1.0)) -> Trained:
    return Trained(sha256="0" * 64, losses=losses, tokens=1, duration_s=1.0, before=before, after=after)


def test_an_adapter_that_learned_and_kept_form_and_variety_is_accepted() -> None:
    verdict = judge(trained(BETTER))
    assert verdict.accepted
    assert len(verdict.reasons) == 3
    assert "(rejected)" not in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (replace(BETTER, held_out_loss=2.0), "held-out loss 2.0000 -> 2.0000 (rejected)"),
        (replace(BETTER, held_out_loss=2.1), "held-out loss 2.0000 -> 2.1000 (rejected)"),
        (replace(BETTER, held_out_loss=math.nan), "held-out loss 2.0000 -> nan (rejected)"),
        (replace(BETTER, valid_without_grammar=9), "valid without the grammar 10 -> 9 of 24 (rejected)"),
        (replace(BETTER, distinct_with_grammar=17), "distinct patches 20 -> 17 of 24 (rejected)"),
    ],
)
def test_each_criterion_alone_rejects_and_is_named(after: Measured, reason: str) -> None:
    verdict = judge(trained(after))
    assert not verdict.accepted
    assert [r for r in verdict.reasons if "(rejected)" in r] == [reason]


def test_ninety_per_cent_of_the_variety_is_enough_and_equal_validity_too() -> None:
    assert judge(trained(replace(BETTER, distinct_with_grammar=18))).accepted


def test_without_held_out_successes_the_other_two_decide_and_the_record_says_so() -> None:
    none = replace(BEFORE, held_out_loss=None, held_out_losses=())
    verdict = judge(trained(none, before=none))
    assert verdict.accepted
    assert "no success is held out yet" in verdict.reasons[0]
    assert not judge(trained(replace(none, valid_without_grammar=0), before=none)).accepted


def test_a_training_that_diverged_is_rejected_even_where_nothing_is_held_out() -> None:
    none = replace(BEFORE, held_out_loss=None, held_out_losses=())
    verdict = judge(trained(none, before=none, losses=(2.0, math.inf)))
    assert not verdict.accepted
    assert "diverged" in verdict.reasons[-1]


def test_a_verdict_is_json() -> None:
    assert json.loads(json.dumps(judge(trained(BETTER)).to_json()))["accepted"] is True


COMPARED = replace(
    BEFORE, held_out_loss=None, held_out_losses=(), top_gains=(0.0, 0.01, -0.01, 0.02, 0.0, -0.02), greedy_known=6
)
DECIDED = replace(COMPARED, top_gains=(0.03, 0.02, 0.01, 0.05, 0.02, 0.01), greedy=4)


def test_an_adapter_that_decides_better_at_held_out_parents_is_accepted() -> None:
    verdict = judge(trained(DECIDED, before=COMPARED))
    assert verdict.accepted
    # Differences 0.03, 0.01, 0.02, 0.03, 0.02, 0.03: mean 0.02333, t(5, 0.95) = 2.015, standard error 0.003333.
    assert verdict.reasons[0] == "likeliest patches gain +0.02333 more, at least +0.01662, at 6 parents"


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (replace(DECIDED, top_gains=COMPARED.top_gains), "gain +0 more, at least +0, at 6 parents (rejected)"),
        (
            replace(DECIDED, top_gains=(0.2, 0.01, -0.01, 0.02, 0.0, -0.02)),
            "gain +0.03333 more, at least -0.03383, at 6 parents (rejected)",
        ),
        (replace(DECIDED, greedy=5), "the greedy rule's patch at 5 of 6 parents (rejected)"),
    ],
)
def test_decisions_that_may_be_luck_or_greed_are_rejected(after: Measured, reason: str) -> None:
    verdict = judge(trained(after, before=COMPARED))
    assert not verdict.accepted
    assert [r for r in verdict.reasons if r.endswith(reason)]


def test_one_held_out_parent_judges_nothing() -> None:
    few = replace(COMPARED, top_gains=(0.0,)), replace(DECIDED, top_gains=(0.5,), greedy=0)
    assert not judge(trained(few[1], before=few[0])).accepted
