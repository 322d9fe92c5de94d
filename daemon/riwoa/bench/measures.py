"""What came of a contest, in numbers: curves against queries and search time, queries to the best, comparisons.

A search that found nothing is credited with the landscape's worst value; one that never met the best, with the whole
budget of queries, and with all of its time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from riwoa.bench.arena import Found
from riwoa.bench.contest import Settings
from riwoa.bench.landscape import Landscape
from riwoa.bench.paired import bootstrap_interval, compare_all, median_ratio
from riwoa.search.fitness import FloatArray

_TO_BEST = (
    "reached_best_share",
    "missed",
    "queries_to_best_median",
    "queries_to_best_mean",
    "queries_to_best_interval",
    "time_to_best_mean",
)
OURS = "riwoa"  # what the others are compared with, where it takes part; else the first


def ladder(budget: int) -> list[int]:
    """Query counts to look at: 10, 20, 50, 100, 200, 500, ... and the budget."""
    steps = [factor * 10**power for power in range(1, len(str(budget)) + 1) for factor in (1, 2, 5)]
    return [*(step for step in steps if step < budget), budget]


def time_ladder(found: Sequence[Found], budget: int) -> list[float]:
    """Search times to look at: shares of the longest search's, as the queries are of the budget."""
    longest = max((f.time for f in found), default=0.0)
    return [longest * queries / budget for queries in ladder(budget)]


def summary(settings: Settings, landscape: Landscape, found: Sequence[Found]) -> dict[str, Any]:
    """What the result objects share."""
    runs = {name: [f for f in found if f.strategy == name] for name in settings.strategies}
    finals = {name: [final(landscape, f) for f in of] for name, of in runs.items()}
    ours = OURS if OURS in runs else settings.strategies[0]
    others = [name for name in runs if name != ours]
    known = landscape.best is not None
    to_best = {
        name: [-queries_to_best(landscape, f, settings.budget) for f in of] for name, of in runs.items() if known
    }
    return {
        "ratio": median_ratio(finals[ours], finals["random"]) if "random" in others else None,
        "ladder": ladder(settings.budget),
        "time_ladder": (times := time_ladder(found, settings.budget)),
        "time_unit": landscape.time_unit,
        "best_score": landscape.best,
        "compared": ours,
        "rows": [_row(name, landscape, of, settings.budget, times) for name, of in runs.items()],
        "comparisons": compare_all(finals[ours], {name: finals[name] for name in others}),
        "comparisons_to_best": compare_all(to_best[ours], {name: to_best[name] for name in others}) if known else [],
        "searches": [asdict(f) for f in found],
    }


def final(landscape: Landscape, f: Found) -> float:
    """What a search reached in the end."""
    return f.improvements[-1][1] if f.improvements else landscape.worst


def queries_to_best(landscape: Landscape, f: Found, budget: int) -> float:
    """After how many queries a search met a score as good as the best there is; the budget where it did not."""
    return min(_met_after(landscape, f), float(budget))


def _row(name: str, landscape: Landscape, runs: Sequence[Found], budget: int, times: Sequence[float]) -> dict[str, Any]:
    finals = np.array([final(landscape, f) for f in runs])
    reported = np.array([landscape.report(f.row) for f in runs if f.row is not None])
    known = reported[np.isfinite(reported)]
    return {
        "strategy": name,
        "seeds": len(runs),
        "value_mean": float(finals.mean()),
        "value_sd": _sd(finals),
        "value_interval": bootstrap_interval(finals),
        **_curves(landscape, runs, budget),
        **_quartiles("time_curve", np.array([[_best_by(f, time) for time in times] for f in runs])),
        **_to_best(landscape, runs, budget),
        "report_mean": float(known.mean()) if len(known) else None,
        "report_sd": _sd(known),
        "found_share": sum(bool(f.improvements) for f in runs) / len(runs),
        "queries": sorted({f.queries for f in runs}),
        "failed_mean": float(np.mean([f.failed for f in runs])),
        "given_up_mean": float(np.mean([f.given_up for f in runs])),
        "repeats_mean": float(np.mean([f.repeats for f in runs])),
        "time_mean": float(np.mean([f.time for f in runs])),
        "own_s_mean": float(np.mean([f.own_s for f in runs])),
        "own_ms_a_query": 1000.0 * sum(f.own_s for f in runs) / max(1, sum(f.queries for f in runs)),
    }


def _curves(landscape: Landscape, runs: Sequence[Found], budget: int) -> dict[str, Any]:
    """The best so far after each step of the ladder; what the winner so far is reported with; regret."""
    steps = ladder(budget)
    curves = np.array([[best_after(f, queries) for queries in steps] for f in runs])
    credited = np.where(np.isfinite(curves), curves, landscape.worst)
    reports = np.array([[_report_after(landscape, f, queries) for queries in steps] for f in runs])
    return {
        **_quartiles("curve", curves),
        "curve_report_mean": [_mean(column) for column in reports.T],
        "regret_mean": None if landscape.best is None else (landscape.best - credited.mean(axis=0)).tolist(),
        "regret_interval": None
        if landscape.best is None
        else [bootstrap_interval(landscape.best - column) for column in credited.T],
    }


def _quartiles(name: str, curves: FloatArray) -> dict[str, Any]:
    """Over searches: values that occurred, and so never a number between two of which one is "nothing yet"."""
    return {
        f"{name}_{which}": [_number(v) for v in np.quantile(curves, q, axis=0, method="inverted_cdf")]
        for which, q in (("q25", 0.25), ("median", 0.5), ("q75", 0.75))
    }


def _to_best(landscape: Landscape, runs: Sequence[Found], budget: int) -> dict[str, Any]:
    """How many searches met the best there is, and the queries until then: median, and mean with misses as budget.

    So is the mean of times.
    """
    if landscape.best is None:
        return dict.fromkeys(_TO_BEST)
    counts = [_met_after(landscape, f) for f in runs]
    paid = [queries_to_best(landscape, f, budget) for f in runs]
    missed = sum(math.isinf(count) for count in counts)
    return {
        "reached_best_share": 1.0 - missed / len(counts),
        "missed": missed,
        "queries_to_best_median": _number(sorted(counts)[(len(counts) - 1) // 2]),
        "queries_to_best_mean": float(np.mean(paid)),
        "queries_to_best_interval": bootstrap_interval(paid),
        "time_to_best_mean": float(np.mean([_time_to_best(landscape, f) for f in runs])),
    }


def _met_after(landscape: Landscape, f: Found) -> float:
    best = landscape.best
    assert best is not None
    return next((float(count) for count, value in f.improvements if value >= best), math.inf)


def _time_to_best(landscape: Landscape, f: Found) -> float:
    """The time until a search met the best there is; all of its time where it did not."""
    best = landscape.best
    assert best is not None
    reached = zip(f.times, f.improvements, strict=True)
    return next((time for time, (_, value) in reached if value >= best), f.time)


def _best_by(f: Found, time: float) -> float:
    """The score after so much time, −inf for none."""
    reached = zip(f.times, f.improvements, strict=True)
    return max((value for at, (_, value) in reached if at <= time), default=-math.inf)


def best_after(f: Found, queries: int) -> float:
    """The score after so many queries, −inf for none."""
    return max((value for count, value in f.improvements if count <= queries), default=-math.inf)


def _report_after(landscape: Landscape, f: Found, queries: int) -> float:
    """What is told of the winner after so many queries, NaN for nothing."""
    rows = [row for (count, _), row in zip(f.improvements, f.rows, strict=False) if count <= queries]
    return math.nan if not rows or rows[-1] is None else landscape.report(rows[-1])


def _mean(values: FloatArray) -> float | None:
    """The mean of those that are numbers."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _sd(values: FloatArray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _number(value: float) -> float | None:
    """The value as JSON can say it."""
    return float(value) if math.isfinite(value) else None
