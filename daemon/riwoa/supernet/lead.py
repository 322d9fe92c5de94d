"""Is there something to find in a supernet? How far its largest subnet leads the median random one.

Where all subnets are alike, within what a draw of pictures decides, a search finds the luckiest and not the best.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from riwoa.search.codec import Codec
from riwoa.search.rng import generator
from riwoa.supernet.space import OfaConfig, mobilenet_space, ofa_config

if TYPE_CHECKING:
    from riwoa.supernet.evaluator import SubnetEvaluator

LEAST_LEAD_ERRORS = 2.0  # a lead of fewer standard errors is too poor to search in


def judged_lead(
    evaluators: Mapping[str, SubnetEvaluator],
    count: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Accuracies of the largest, the smallest and ``count`` random subnets, and the lead with its standard errors.

    Args:
        evaluators: by split; "validation" is one, and the lead is its.
        count: random subnets.
        seed: of their choice.
        progress: told how many of them are judged.
    """
    configs = drawn_subnets(evaluators["validation"].resolutions, count, seed)
    found: list[dict[str, float]] = []
    images = 0
    for i, config in enumerate(configs):
        evaluations = {split: evaluator.evaluate(config) for split, evaluator in evaluators.items()}
        images = evaluations["validation"]["images"]
        found.append({split: evaluation["accuracy"] for split, evaluation in evaluations.items()})
        progress(i + 1, len(configs))
    largest = found[0]
    median = {split: statistics.median(row[split] for row in found[2:]) for split in evaluators}
    lead = largest["validation"] - median["validation"]
    error = (sum(a * (1 - a) for a in (largest["validation"], median["validation"])) / images) ** 0.5
    return {
        "random_subnets": count,
        "images": images,
        "accuracy": {"largest": largest, "median_random": median, "smallest": found[1]},
        "random": found[2:],
        "lead": lead,
        "lead_standard_errors": lead / error if error else None,
    }


def drawn_subnets(resolutions: Sequence[int], count: int, seed: int) -> list[OfaConfig]:
    """The largest, the smallest, and ``count`` random subnets."""
    space = mobilenet_space(resolutions)
    codec = Codec(space, seed)
    extremes = np.array([[len(g.choices) - 1 for g in space.genes], [0 for _ in space.genes]])
    vectors = generator(seed, 0, "supernet.check").random((count, codec.dimension))
    return [ofa_config(space.architecture(indices)) for indices in (*extremes, *codec.decode(vectors))]


def too_poor(told: Mapping[str, Any]) -> str | None:
    """Why a supernet of this lead is too poor to search in; None where it is not, or nobody knows.

    Args:
        told: of ``judged_lead``, or what a file keeps of it.
    """
    lead, errors = told.get("lead"), told.get("lead_standard_errors")
    if not isinstance(lead, float) or not isinstance(errors, float) or errors >= LEAST_LEAD_ERRORS:
        return None
    return (
        f"the supernet is too poor to search in: its largest subnet leads the median random one by {100 * lead:.1f} "
        f"points, {errors:.1f} standard errors; train it longer, or on more pictures"
    )


def lead_line(told: Mapping[str, Any]) -> str:
    """How far the largest subnet leads, or that this is too little to search in."""
    if poor := too_poor(told):
        return f"warning: {poor}"
    errors = told["lead_standard_errors"]
    lead = f"the largest leads the median of {told['random_subnets']} random subnets by {100 * told['lead']:.2f} points"
    return lead + (f", {errors:.1f} standard errors" if errors else "")
