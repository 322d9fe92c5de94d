"""Pictures of what benchmarks found, as SVG and PNG: lines differ in dash and mark as well, so they read in grey.

matplotlib comes with the extra ``riwoa[bench]``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from riwoa.bench.contestants import own_strategy
from riwoa.errors import InputError, UsageError
from riwoa.files.ownership import json_object
from riwoa.search.fitness import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]
Style = dict[str, Any]

_STYLES: tuple[Style, ...] = (  # dark to light, by turns, and no two with the same dash and mark
    {"color": "#0072b2", "linestyle": (0, (6, 2)), "marker": "s"},
    {"color": "#d55e00", "linestyle": (0, (2, 1.5)), "marker": "o"},
    {"color": "#009e73", "linestyle": (0, (7, 2, 1.5, 2)), "marker": "^"},
    {"color": "#aa4499", "linestyle": (0, (1, 1.5)), "marker": "D"},
    {"color": "#999933", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#888888", "linestyle": (0, (10, 3)), "marker": "x"},
    {"color": "#56b4e9", "linestyle": (0, (3, 3)), "marker": "P"},
    {"color": "#e69f00", "linestyle": "-", "marker": "*"},
    {"color": "#332288", "linestyle": (0, (5, 1)), "marker": "<"},
    {"color": "#cc6677", "linestyle": (0, (2, 4)), "marker": "h"},
)
_OURS: Style = {"color": "black", "linestyle": "-", "marker": None, "linewidth": 2.2, "zorder": 5}
_GRID = 300  # times at which a curve is drawn
_FIRST_QUERIES = 5  # where an axis begins
_MARKS = 6  # of a curve
_CONFIDENCE = 0.05
_UNITS = {"s": "search time, seconds", "epochs": "search time, epochs of training", "queries": "queries"}


def require_matplotlib() -> None:
    """Make sure that there is something to draw with.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib; install it with: pip install 'riwoa[bench]'")


def read_result(path: Path) -> Result:
    """What ``riwoactl --json bench`` printed of a contest.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    result = json_object(path)
    if not {"rows", "comparisons", "searches", "compared"} <= result.keys():
        raise InputError(
            f"{path} is no result of a contest; make one with riwoactl --json bench table ... > {path.name}"
        )
    return result


def plot_progress(result: Result, out: Path, title: str = "") -> list[Path]:
    """The best so far against search time, median and quartiles over seeds: riwoa's own, and riwoa beside its peers.

    Raises:
        InputError: nothing was found.
    """
    reached = [s["improvements"] for s in _successful(result)]
    names = [row["strategy"] for row in result["rows"]]
    ours = result["compared"]
    panels = [
        [n for n in names if n == ours or own_strategy(n)],
        [n for n in names if n == ours or not own_strategy(n)],
    ]
    panels = [p for p in panels if len(p) > 1] or [names]
    figure, axes = _figure(len(panels), 5.2, 3.9, sharey=True)
    times = _times(result)
    floor, styles = math.inf, _styles(names, ours)
    for panel, axis in zip(panels, axes, strict=True):
        for name in sorted(panel, key=lambda name: name == ours):  # ours last, and so on top
            style = styles[name]
            low, middle, high = _quartiles([s for s in result["searches"] if s["strategy"] == name], times)
            shade = 0.18 if name == ours else 0.1
            axis.fill_between(times, low, high, color=style["color"], alpha=shade, linewidth=0)
            axis.plot(times, middle, label=name, markevery=max(1, _GRID // _MARKS), markersize=5, **style)
            if np.isfinite(low).any():
                floor = min(floor, float(np.nanquantile(low, 0.25)))
        axis.set_xscale("log")
        axis.set_xlim(times[0], times[-1])
        axis.set_xlabel(_UNITS[result["time_unit"]])
        axis.legend(loc="lower right", fontsize=8, frameon=False, handlelength=3.2)
        if result["best_score"] is not None:
            axis.axhline(result["best_score"], color="#666666", linewidth=0.8, linestyle=":")
    best = result["best_score"]
    top = max(float(improvements[-1][1]) for improvements in reached) if best is None else best
    if math.isinf(floor):  # a quarter of every strategy's searches found nothing
        floor = min(float(improvements[0][1]) for improvements in reached)
    axes[0].set_ylim(floor, top + 0.03 * (top - floor))
    axes[0].set_ylabel("best so far (median, quartiles)")
    return _saved(figure, out, title)


def plot_fronts(result: Result, out: Path, title: str = "") -> list[Path]:
    """The front of each strategy's median search, over the true one; none where that search found nothing.

    Raises:
        InputError: nothing was found.
    """
    _successful(result)
    figure, (axis,) = _figure(1, 5.6, 4.2)
    settings = result["settings"]
    corner = (settings["reference_load"], settings["reference_value"])
    true = np.array([*result["front"], (corner[0], result["front"][-1][1])])
    axis.fill_between(true[:, 0], corner[1], true[:, 1], step="post", color="#dddddd", linewidth=0, label="true front")
    for name, style in _styles(list(result["fronts"]), result["compared"]).items():
        if not (front := result["fronts"][name]):
            continue
        points = np.array([*front, (corner[0], front[-1][1])])
        share = next(row["value_mean"] for row in result["rows"] if row["strategy"] == name)
        axis.step(points[:, 0], points[:, 1], where="post", label=f"{name} ({share:.3f})", markersize=4, **style)
    axis.set_xlim(float(true[0, 0]) * 0.95, corner[0])
    axis.set_ylim(corner[1], true[:, 1].max() + 0.5)
    axis.set_xlabel(settings["against"])
    axis.set_ylabel(settings["maximize"])
    axis.legend(
        loc="lower right",
        fontsize=8,
        facecolor="white",
        framealpha=1,
        edgecolor="white",
        title="share of hypervolume, mean",
        title_fontsize=8,
    )
    return _saved(figure, out, title)


def plot_ablation(result: Result, out: Path, title: str = "") -> list[Path]:
    """What each variant loses against the compared one: mean difference with its interval."""
    which = "comparisons_to_best" if result["comparisons_to_best"] else "comparisons"
    rows = sorted(result[which], key=lambda c: float(c["mean_difference"]))
    figure, (axis,) = _figure(1, 6.2, 0.9 + 0.34 * len(rows))
    for place, row in enumerate(rows):
        low, high = row["mean_difference_interval"] or (row["mean_difference"], row["mean_difference"])
        sure = row["wilcoxon_p_holm"] < _CONFIDENCE
        mean = row["mean_difference"]
        axis.barh(place, mean, color="#555555" if sure else "white", edgecolor="#555555", height=0.6)
        axis.plot([low, high], [place, place], color="black", linewidth=1.4, marker="|", markersize=7)
    axis.set_yticks(range(len(rows)), [row["against"].removeprefix(f"{result['compared']}:") for row in rows])
    axis.axvline(0.0, color="black", linewidth=0.8)
    what = "queries to the best that it costs" if which == "comparisons_to_best" else "score that it costs"
    axis.set_xlabel(f"{what}, against {result['compared']}\n(mean, 95 %; filled: p < 0.05 after Holm)")
    return _saved(figure, out, title)


def plot_ranks(results: Sequence[Result], out: Path, title: str = "") -> list[Path]:
    """Mean ranks over several grounds with Nemenyi's critical difference (Demsar, 2006); 1 is best.

    Raises:
        InputError: fewer than two strategies took part in all of them.
    """
    ranks, difference = mean_ranks(results)
    rows = sorted(ranks.items(), key=lambda item: item[1])
    figure, (axis,) = _figure(1, 6.2, 1.2 + 0.3 * len(rows))
    best = rows[0][1]
    axis.axvspan(best, best + difference, color="#dddddd", linewidth=0)
    for place, (_, rank) in enumerate(rows):
        axis.plot([1, rank], [place, place], color="#bbbbbb", linewidth=0.8, zorder=1)
        axis.plot(rank, place, marker="o", color="black", markersize=6, zorder=3)
        axis.annotate(f"{rank:.2f}", (rank, place), textcoords="offset points", xytext=(8, -3), fontsize=8)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.invert_yaxis()
    axis.set_xlim(1, len(rows) + 0.4)
    note = f"grey: within the critical difference of the first, {difference:.2f} (Nemenyi, 5 %)"
    axis.set_xlabel(f"mean rank over {len(results)} grounds\n{note}")
    return _saved(figure, out, title)


def mean_ranks(results: Sequence[Result]) -> tuple[dict[str, float], float]:
    """Mean rank of each strategy that took part everywhere, and Nemenyi's critical difference.

    A ground ranks by the mean of queries to the best, where that is known, else by the mean score.

    Raises:
        InputError: fewer than two took part in all of them.
    """
    shared = [
        row["strategy"]
        for row in (results[0]["rows"] if results else [])
        if all(row["strategy"] in {other["strategy"] for other in r["rows"]} for r in results)
    ]
    if len(shared) < 2:
        raise InputError("ranks need two strategies that took part in every one of the results")
    table = np.array([stats.rankdata(_losses(r, shared)) for r in results])
    k, n = len(shared), len(results)
    critical = float(stats.studentized_range.ppf(1 - _CONFIDENCE, k, np.inf)) / math.sqrt(2)
    means = dict(zip(shared, table.mean(axis=0).tolist(), strict=True))
    return means, critical * math.sqrt(k * (k + 1) / (6 * n))


def _losses(result: Result, names: Sequence[str]) -> list[float]:
    rows = {row["strategy"]: row for row in result["rows"]}
    if result["best_score"] is not None:
        return [rows[name]["queries_to_best_mean"] for name in names]
    return [-rows[name]["value_mean"] for name in names]


def _successful(result: Result) -> list[Result]:
    """The searches that found anything.

    Raises:
        InputError: there is none.
    """
    found = [s for s in result["searches"] if s["improvements"]]
    if not found:
        raise InputError("nothing was found within the limit; raise --budget")
    return found


def _times(result: Result) -> FloatArray:
    """Times from those of a few queries to the longest search's, evenly on a logarithmic axis."""
    longest, budget = result["time_ladder"][-1], result["ladder"][-1]
    return np.geomspace(longest * min(_FIRST_QUERIES / budget, 0.5), longest, _GRID)


def _quartiles(searches: Sequence[Result], times: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower quartile, median and upper quartile of the best so far at each time, NaN while there is none."""
    curves = np.full((len(searches), len(times)), -np.inf)
    for row, s in enumerate(searches):
        for time, (_, value) in zip(s["times"], s["improvements"], strict=True):
            curves[row, times >= time] = value
    low, middle, high = (np.quantile(curves, q, axis=0, method="inverted_cdf") for q in (0.25, 0.5, 0.75))
    return tuple(np.where(np.isfinite(c), c, np.nan) for c in (low, middle, high))  # type: ignore[return-value]


def _styles(names: Sequence[str], ours: str) -> dict[str, Style]:
    """How each line looks: ours black and full, the others each in its way."""
    others = [name for name in names if name != ours]
    styles = {name: {**_STYLES[n % len(_STYLES)], "linewidth": 1.3} for n, name in enumerate(others)}
    return styles | {name: _OURS for name in names if name == ours}


def _figure(columns: int, width: float, height: float, **settings: Any) -> tuple[Figure, list[Axes]]:
    require_matplotlib()
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"svg.hashsalt": "riwoa", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, height), squeeze=False, **settings)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#eeeeee", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, list(axes[0])


def _saved(figure: Figure, out: Path, title: str) -> list[Path]:
    """The two files: ``out`` with its ending replaced."""
    from matplotlib import pyplot

    if title:
        figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = [out.with_name(f"{out.name}.{kind}") for kind in ("svg", "png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=144)
    pyplot.close(figure)
    return paths
