"""The generated part of the results page, from the results of a share of the experiments.

It stands between two marks; what is outside them is written by hand and stays. Lines of tables fit a terminal of 80
columns.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.arena import Found
from riwoa.bench.experiments import LOOKS, SECTIONS, Experiment, reached
from riwoa.bench.functions import FINE_CELLS
from riwoa.bench.measures import OURS, best_after
from riwoa.bench.paired import student_interval
from riwoa.bench.plots import mean_ranks, plot_ablation, plot_fronts, plot_progress, plot_ranks
from riwoa.errors import InputError
from riwoa_storage.durable import replace_durably

BEGIN = "<!-- bench: what follows is written by `make bench`, and again the next time -->"
END = "<!-- bench: end -->"
WHOLE_BEGIN = "<!-- writers: what follows is written by `riwoactl bench cognition --whole`, and again the next time -->"
WHOLE_END = "<!-- writers: end -->"
_WIDTH = 79
_INDENT = 4  # by which `riwoactl help` moves code
_COLUMNS_A_TABLE = 5
_PICTURES = {"progress": plot_progress, "fronts": plot_fronts, "ablation": plot_ablation}

_READING = (
    'A query trains a cell for 200 epochs, so search time in epochs is 200 times the queries. "own" is what the search '
    "itself computes, in milliseconds of its processor a query. Differences are paired by seed; p is Wilcoxon's, "
    "two-sided, after Holm; effect is the rank-biserial correlation, above 0 for riwoa; intervals are 95 %, by "
    "bootstrap."
)

Result = dict[str, Any]
Rows = list[tuple[Experiment, Result]]


def write_page(page: Path, text: str, begin_mark: str = BEGIN, end_mark: str = END) -> None:
    """Put a generated part between its marks in a page.

    Raises:
        InputError: the page cannot be read, or has no marks.
    """
    try:
        whole = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{page} cannot be read ({error}); name the results page with --page") from None
    before, begin, rest = whole.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not (begin and end):
        raise InputError(f"{page} lacks the lines {begin_mark!r} and {end_mark!r}; put them where the numbers belong")
    replace_durably(page, f"{before}{begin_mark}\n\n{text}\n{end_mark}{after}".encode())


def rendered(
    experiments: Sequence[Experiment],
    found: Mapping[str, Result],
    failed: Mapping[str, str],
    *,
    quick: bool,
    command: str = "make bench",
) -> str:
    """The generated part, in Markdown; ``command`` makes it."""
    there = [(e, found[e.name]) for e in experiments if e.name in found]
    parts = [*_head(experiments, there, failed, quick, command), *_targets(there)]
    for section in SECTIONS:
        rows = [(e, r) for e, r in there if e.section == section]
        if rows:
            parts += [f"### {section.title}", _filled(section.says), *_SECTIONS[section.kind](rows)]
    return "\n\n".join([*parts, *_ranks(there), ""])


def draw(experiments: Sequence[Experiment], found: Mapping[str, Result], folder: Path) -> list[Path]:
    """The pictures of the results, as files in a folder; none of a result where nothing was found.

    Raises:
        UsageError: there is nothing to draw with.
    """
    drawn: list[Path] = []
    for e in experiments:
        if e.picture is not None and e.name in found:
            with contextlib.suppress(InputError):  # the page's table says so
                title = f"{e.section.title}: {e.title}"
                drawn += _PICTURES[e.picture](found[e.name], folder / f"{e.picture}-{e.name}", title)
    ranked = [found[e.name] for e in experiments if e.ranked and e.name in found]
    if len(ranked) > 1:
        drawn += plot_ranks(ranked, folder / "ranks")
    return drawn


def _head(
    experiments: Sequence[Experiment], there: Rows, failed: Mapping[str, str], quick: bool, command: str
) -> list[str]:
    """Of what code and machine the numbers are, and what is missing."""
    few = ": a few seeds of a part of the experiments, too few to conclude from"
    facts = [f"By `make bench-quick`{few}." if quick else f"By `{command}`."]
    for name, what in (("commit", "Commit"), ("libraries", "With"), ("machine", "On")):
        facts.append(f"{what} {'; '.join(dict.fromkeys(r['provenance'][name] for _, r in there))}.")
    took = sum(r["took_s"] for _, r in there) / 60.0
    facts.append(f"{took:.0f} minutes of one core when last run (searches that were kept are not repeated).")
    if any(e.section.kind != "writers" for e, _ in there):
        facts.append(_READING)
    measured = {e.name for e, _ in there}
    absent = [e.name for e in experiments if e.name not in measured]
    parts = [" ".join(facts), *([f"Not measured: {', '.join(absent)}."] if absent else [])]
    return [_filled(part) for part in (*parts, *(f"Failed: {name}: {said}" for name, said in failed.items()))]


def _targets(there: Rows) -> list[str]:
    rows = [["ground", "target", "reached", ""]]
    for e, result in there:
        for target in e.targets:
            value, met = reached(target, result)
            rows.append([_ground(e), target.words, value, "met" if met else "MISSED"])
    return ["### Targets", _block(rows, words=True)] if len(rows) > 1 else []


def _ground(e: Experiment) -> str:
    return f"{e.section.short} {e.title}".strip()


def _contest(rows: Rows) -> list[str]:
    """One table each."""
    parts = []
    for e, result in rows:
        seeds = result["settings"]["seeds"]
        parts += [
            f"{e.title}, seeds: {seeds}, queries: {e.budget}",
            f"```\n{_command(e, result)}\n```",
            _contest_table(result),
        ]
    return parts


def _contest_table(result: Result) -> str:
    front, measured = result["bench"] == "front", result["time_unit"] == "s"
    known = not front and result["best_score"] is not None
    key = "comparisons_to_best" if known else "comparisons"
    against = {c["against"]: c for c in result[key]}
    if known:
        first = ["queries", "95 %", "miss", "valid", "test"]
    else:
        first = ["share" if front else "valid", "95 %", *(["test", "time, s"] if measured else [])]
    table = [["", *first, "own", "effect", "p"]]
    ours = result["compared"]
    for row in result["rows"]:
        if known:
            low, high = row["queries_to_best_interval"] or (float("nan"),) * 2
            numbers = [f"{row['queries_to_best_mean']:.0f}", f"{low:.0f}-{high:.0f}", str(row["missed"])]
            numbers += [f"{row['value_mean']:.2f}", _or_blank(row["report_mean"])]
        else:
            low, high = row["value_interval"] or (float("nan"),) * 2
            digits = 3 if front else 2
            numbers = [f"{row['value_mean']:.{digits}f}", f"{low:.{digits}f}-{high:.{digits}f}"]
            numbers += [_or_blank(row["report_mean"]), f"{row['time_mean']:.0f}"] if measured else []
        c = against.get(row["strategy"])
        pair = ["", ""] if c is None else [f"{c['rank_biserial']:+.2f}", _p(c["wilcoxon_p_holm"])]
        name = row["strategy"].removeprefix(f"{ours}:")
        table.append([name, *numbers, f"{row['own_ms_a_query']:.1f}", *pair])
    return _block(table)


def _grounds(rows: Rows) -> list[str]:
    """Strategies down, grounds across, a few a table; with known bests queries and misses, else the value."""
    parts = [f"```\n{_command(*rows[0])}\n```"]
    for start in range(0, len(rows), _COLUMNS_A_TABLE - 1):
        some = rows[start : start + _COLUMNS_A_TABLE - 1]
        names = list(dict.fromkeys(row["strategy"] for _, r in some for row in r["rows"]))
        table = [["", *(e.title.rpartition(", ")[2] for e, _ in some)]]
        table += [[name, *(_cell(r, name) for _, r in some)] for name in names]
        table.append(["largest p", *(_p(_largest_p(r)) for _, r in some)])
        groups = dict.fromkeys(e.title.rpartition(", ")[0] for e, _ in some)
        seeds = "/".join(dict.fromkeys(str(r["settings"]["seeds"]) for _, r in some))
        parts += [f"{', '.join(g for g in groups if g) or 'Grounds'}, seeds: {seeds}", _block(table)]
    return parts


def _cell(result: Result, name: str) -> str:
    row = next((row for row in result["rows"] if row["strategy"] == name), None)
    if row is None:
        return ""
    if result["best_score"] is not None:
        return f"{row['queries_to_best_mean']:.0f} ({row['missed']})"
    return f"{row['value_mean']:.2f}"


def _largest_p(result: Result) -> float:
    """Of riwoa's comparisons."""
    key = "comparisons_to_best" if result["best_score"] is not None else "comparisons"
    return max((c["wilcoxon_p_holm"] for c in result[key]), default=1.0)


def _functions(rows: Rows) -> list[str]:
    parts = []
    for e, result in rows:
        names = [row["strategy"] for row in result["grounds"][0]["rows"]]
        table = [["", *names, "largest p"]]
        for ground in result["grounds"]:
            means = [f"{row['value_mean']:.2f}" for row in ground["rows"]]
            p = max((c["wilcoxon_p_holm"] for c in ground["comparisons"]), default=1.0)
            cells = "" if ground["cells"] == FINE_CELLS else f" {ground['cells']}"
            table.append([f"{ground['function']} {ground['dimensions']}-d{cells}", *means, _p(p)])
        parts += [f"Seeds: {result['settings']['seeds']}", f"```\n{_command(e, result)}\n```", _block(table)]
    return parts


def _ranks(there: Rows) -> list[str]:
    ranked = [r for e, r in there if e.ranked]
    if len(ranked) < 2:
        return []
    try:
        ranks, difference = mean_ranks(ranked)
    except InputError:
        return []
    table = [["mean rank", ""], *([name, f"{rank:.2f}"] for name, rank in sorted(ranks.items(), key=lambda i: i[1]))]
    says = f"Over {len(ranked)} grounds; the critical difference is {difference:.2f} (Nemenyi, 5 %)."
    return ["### Ranks", says, _block(table)]


def _writers(rows: Rows) -> list[str]:
    """One table each: the best after so many queries, and by how much a writer is ahead of nobody."""
    parts = []
    for e, result in rows:
        seeds = result["settings"]["seeds"]
        parts += [f"{e.title}, seeds: {seeds}", f"```\n{_command(e, result)}\n```", _writers_table(e, result)]
    return parts


def _writers_table(e: Experiment, result: Result) -> str:
    """Of the first, whom the others are compared with, means; of the others differences with Student's intervals."""
    control, *_ = e.strategies
    table = [["", *map(str, LOOKS), "picked", "CPU, s", "trained"]]
    for name in e.strategies:
        searches = [s for s in result["searches"] if s["strategy"] == name]
        cells = []
        for queries in LOOKS:
            reached, theirs = (_reached(result, who, queries) for who in (name, control))
            ahead = student_interval(np.subtract(reached, theirs).tolist())
            half = ahead["high"] - ahead["mean"]
            sure = f" +-{half:.2f}" if math.isfinite(half) else ""  # one seed knows no interval
            cells.append(f"{np.mean(reached):.2f}" if name == control else f"{ahead['mean']:+.2f}{sure}")
        joined, picked, trainings = (sum(s[which] for s in searches) for which in ("joined", "picked", "trainings"))
        took_s = float(np.mean([s["own_s"] for s in searches]))
        share, trained = (f"{picked}/{joined}" if joined else ""), (str(trainings) if trainings else "")
        table.append([name.removeprefix(f"{OURS}-"), *cells, share, f"{took_s:.1f}", trained])
    return _block(table)


def _reached(result: Result, name: str, queries: int) -> list[float]:
    """What each search of a strategy had found by then, by seed; the worst of all finds where it had nothing."""
    worst = min((value for s in result["searches"] for _, value in s["improvements"]), default=0.0)
    runs = [Found.from_json(s) for s in result["searches"] if s["strategy"] == name]
    return [max(worst, best_after(f, queries)) for f in runs]


_SECTIONS = {"contest": _contest, "grounds": _grounds, "functions": _functions, "writers": _writers}


def _command(e: Experiment, result: Result) -> str:
    """As a user would type it for the same seeds, in lines that fit."""
    places = {"data": "$RIWOA_DATA", "table": "latency_lut.json", "results": ".bench"}
    words = ["riwoactl", "bench", *e.command(places, result["settings"]["seeds"])]
    lines, line = [], ""
    for word in (w if w.startswith("$") else shlex.quote(w) for w in words):
        for piece in _pieces(word):
            if line and len(line) + len(piece) + 3 > _WIDTH - 8:
                lines.append(f"{line.rstrip()}{'' if line.endswith(',') else ' '}\\")
                line = "" if line.endswith(",") else "    "
            line += piece
        line += " "
    return "\n".join([*lines, line.rstrip()])


def _pieces(word: str) -> list[str]:
    """A list by commas, in parts that may stand on lines of their own."""
    if len(word) < 40 or "," not in word:
        return [word]
    parts = word.split(",")
    return [*(f"{part}," for part in parts[:-1]), parts[-1]]


def _block(rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """A table as code: the first column to the left, numbers to the right, words to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    apart = "  " if sum(widths) + 2 * (len(widths) - 1) <= _WIDTH - _INDENT else " "
    lines = [
        apart.join(
            cell.ljust(width) if i == 0 or words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(["```", *lines, "```"])


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _p(p: float) -> str:
    return "< 1e-4" if p < 1e-4 else f"{p:.2g}"


def _or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
