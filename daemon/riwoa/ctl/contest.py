"""The benchmarks that are contests (``riwoactl bench embedded|table|front|predictor|functions``): options and words."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, loaded
from riwoa.errors import UsageError
from riwoa.limits import whole_cores
from riwoa.log import configure
from riwoa.paths import client_state

if TYPE_CHECKING:
    from riwoa.bench.contest import Settings
    from riwoa.bench.table import Question


def embedded(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Strategies on the embedded task."""
    parser.add_argument("--workers", type=int, default=whole_cores(), help="searches at once (default: the cores)")
    kept = "where evaluations are kept (default: bench_embedded.jsonl in the state directory)"
    parser.add_argument("--evaluations", type=Path, metavar="FILE.jsonl", help=kept)
    add_configuration(parser)
    given, settings = _contest(parser, arguments, seeds=20)
    if given.workers < 1:
        parser.error("--workers must be at least 1")
    from riwoa.bench.embedded import Task, bench_embedded, load_table

    config = loaded(given.config, given.set).config
    paths = client_state(options.state)
    table = asyncio.run(load_table(given.table, paths.latency_table, config))
    task = Task(config, table, given.evaluations or paths.state / "bench_embedded.jsonl")
    with bar("searching", "search") as advance:
        return bench_embedded(
            settings, task, workers=given.workers, out=given.out, progress=lambda d, t: advance(d, t, "")
        )


def table(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Strategies on a table."""
    _add_table(parser)
    constraint = "of its own unit, or as COLUMN<=25%% what a quarter of the rows keep to; may be repeated"
    parser.add_argument("--constraint", action="append", default=[], metavar="COLUMN<=X", help=constraint)
    parser.add_argument("--low-fidelity", metavar="COLUMN", help="cheap measurements, for strategies that race")
    parser.add_argument("--low-fidelity-cost", type=float, metavar="X", help="what one costs, in queries")
    after = "a search that remembers (riwoa-after, gp-after) has maximised this column before"
    parser.add_argument("--after", metavar="COLUMN", help=after)
    given, settings = _contest(parser, arguments)
    if (given.low_fidelity is None) != (given.low_fidelity_cost is None):
        parser.error("--low-fidelity and --low-fidelity-cost belong together")
    if given.low_fidelity_cost is not None and not 0 < given.low_fidelity_cost <= 1:
        parser.error("--low-fidelity-cost must be above 0 and at most 1")
    from riwoa.bench.table import Constraint, bench_table

    limits = tuple(Constraint.parse(text) for text in given.constraint)
    question = _question(
        given,
        constraints=limits,
        low_fidelity=given.low_fidelity,
        low_fidelity_cost=given.low_fidelity_cost,
        after=given.after,
    )
    with bar("searching", "search") as advance:
        return bench_table(
            settings, given.file, question, join=given.join, out=given.out, progress=lambda d, t: advance(d, t, "")
        )


def front(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Strategies on a table with two aims."""
    _add_table(parser)
    parser.add_argument("--against", required=True, metavar="COLUMN", help="to be made smaller, known beforehand")
    corner = "the worst corner, in the columns' units: what is beyond counts for nothing"
    parser.add_argument("--reference", required=True, metavar="AGAINST,MAXIMIZE", help=corner)
    given, settings = _contest(parser, arguments, budget=300)
    from riwoa.bench.front import Reference, bench_front

    try:
        load, value = map(float, given.reference.split(","))
    except ValueError:
        parser.error(f"--reference needs two numbers, as 80.4,60, not {given.reference!r}")
    with bar("searching", "search") as advance:
        return bench_front(
            settings,
            given.file,
            _question(given),
            given.against,
            Reference(load, value),
            join=given.join,
            out=given.out,
            progress=lambda d, t: advance(d, t, ""),
        )


def workers(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Asynchronous asking against whole generations."""
    _add_table(parser)
    for name, usual in (("seeds", 10), ("budget", 300), ("workers", 4)):
        parser.add_argument(f"--{name}", type=int, default=usual, help=f"default {usual}")
    spread = "standard deviation of the logarithm of what a query takes (default 1)"
    parser.add_argument("--spread", type=float, default=1.0, help=spread)
    given = parser.parse_args(arguments)
    if min(given.seeds, given.budget, given.workers) < 1 or not 0 <= given.spread <= 5:
        parser.error("--seeds, --budget and --workers must be at least 1, --spread from 0 to 5")
    from riwoa.bench.workers import Settings, bench_workers

    settings = Settings(given.seeds, given.budget, given.workers, given.spread)
    with bar("searching", "seed") as advance:
        return bench_workers(
            settings, given.file, _question(given), join=given.join, progress=lambda d, t: advance(d, t, "")
        )


def targets(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """One search for several devices against a search a device."""
    from riwoa.bench.targets import GROUNDS

    on_help = "OFA's predictor with the Note10 and three devices made up of its table, or a table with four devices"
    parser.add_argument("--on", choices=GROUNDS, default=GROUNDS[0], help=on_help)
    for name, usual in (("seeds", 20), ("budget", 400)):
        parser.add_argument(f"--{name}", type=int, default=usual, help=f"default {usual}")
    within = "share of the space that keeps each device's limit (default 0.25)"
    parser.add_argument("--within", type=float, default=0.25, help=within)
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.budget < 20 or not 0 < given.within <= 1:
        parser.error("--seeds must be at least 1, --budget 20, --within above 0 and at most 1")
    from riwoa.bench.targets import Settings, bench_targets
    from riwoa.bench.tasks import data_folder, predictor_folder

    folder = predictor_folder() if given.on == "predictor" else data_folder()
    settings = Settings(given.on, given.seeds, given.budget, given.within)
    with bar("searching", "seed") as advance:
        return bench_targets(settings, folder, progress=lambda d, t: advance(d, t, ""))


def predictor(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Strategies on OFA's predictor."""
    parser.add_argument("--target", type=float, default=25.0, metavar="MS", help="latency on the Note10 (default 25)")
    after = "a search that remembers (riwoa-after, gp-after) has searched within this target before"
    parser.add_argument("--after", type=float, metavar="MS", help=after)
    given, settings = _contest(parser, arguments)
    if not 0 < min(given.target, given.after or 1.0) <= max(given.target, given.after or 1.0) < float("inf"):
        parser.error("--target and --after must be above 0")
    from riwoa.bench.predictor import bench_predictor
    from riwoa.bench.tasks import predictor_folder

    with bar("searching", "search") as advance:
        return bench_predictor(
            settings,
            predictor_folder(),
            given.target,
            after_ms=given.after,
            out=given.out,
            progress=lambda d, t: advance(d, t, ""),
        )


def functions(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Strategies on rotated functions."""
    parser.add_argument("--functions", default="ellipsoid,rosenbrock,rastrigin", help="separated by commas")
    parser.add_argument("--dimensions", default="10,40", help="separated by commas (default 10,40)")
    cells_help = "a coordinate is cut into so many; 0 = so finely that it counts as continuous (default 0,16)"
    parser.add_argument("--cells", default="0,16", help=cells_help)
    strategies = "riwoa-unscreened,woa,random,cma-es"
    given, settings = _contest(parser, arguments, budget=100, per=" and dimension", strategies=strategies)
    from riwoa.bench.functions import FINE_CELLS, FUNCTIONS, Ground, bench_functions

    if unknown := [name for name in given.functions.split(",") if name not in FUNCTIONS]:
        raise UsageError(f"--functions: {unknown[0]!r} is none of {', '.join(FUNCTIONS)}")
    dimensions = _whole(parser, "--dimensions", given.dimensions, 2, 1000)
    cells = [c or FINE_CELLS for c in _whole(parser, "--cells", given.cells, 0, FINE_CELLS)]
    if 1 in cells:
        parser.error("--cells: one cell is no choice")
    grounds = tuple(Ground(f, d, c) for c in cells for d in dimensions for f in given.functions.split(","))
    with bar("searching", "search") as advance:
        return bench_functions(settings, grounds, out=given.out, progress=lambda d, t: advance(d, t, ""))


def add_configuration(parser: Parser) -> None:
    """Options of a benchmark that runs what the daemon is configured to."""
    parser.add_argument("--table", type=Path, metavar="FILE", help="latency table (default: as the daemon's)")
    parser.add_argument("--config", type=Path, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")


def _add_table(parser: Parser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help=".npz or .csv, one row an architecture")
    parser.add_argument("--genes", required=True, help="an array of integers (rows, genes), or columns, by commas")
    order = parser.add_mutually_exclusive_group(required=True)
    order.add_argument("--nominal", dest="kind", action="store_const", const="nominal", help="genes without an order")
    order.add_argument("--ordered", dest="kind", action="store_const", const="ordered", help="genes in order, as sizes")
    parser.add_argument("--maximize", required=True, metavar="COLUMN")
    parser.add_argument("--report", metavar="COLUMN", help="what to tell of the winners, and no search looks at")
    parser.add_argument("--join", type=Path, metavar="FILE", help="another table with the same rows, for more columns")
    parser.add_argument("--seconds", metavar="COLUMN", help="what a query takes: search time is counted in it")
    parser.add_argument(
        "--epochs", type=float, metavar="N", help="what a query trains for, where no column has seconds"
    )


def _question(given: Namespace, **more: Any) -> Question:
    from riwoa.bench.table import Question

    if given.seconds is not None and given.epochs is not None:
        raise UsageError("--seconds and --epochs both say what a query takes; name one")
    if given.epochs is not None and not 0 < given.epochs < float("inf"):
        raise UsageError("--epochs must be above 0")
    named = {name: getattr(given, name) for name in ("genes", "kind", "maximize", "report", "seconds", "epochs")}
    return Question(**named, **more)


def _contest(
    parser: Parser,
    arguments: list[str],
    *,
    seeds: int = 30,
    budget: int = 200,
    per: str = "",
    strategies: str | None = None,
) -> tuple[Namespace, Settings]:
    """Options of every contest."""
    parser.add_argument("--seeds", type=int, default=seeds, help=f"default {seeds}")
    parser.add_argument(
        "--budget", type=int, default=budget, help=f"unique queries of a search{per} (default {budget})"
    )
    parser.add_argument("--strategies", default=strategies, help="separated by commas; settings after a colon")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="keep finished searches: run again, it goes on")
    given = parser.parse_args(arguments)
    if min(given.seeds, given.budget) < 1:
        parser.error("--seeds and --budget must be at least 1")
    from riwoa.bench.contest import DEFAULT_STRATEGIES, Settings
    from riwoa.bench.contestants import contestants

    configure("error", "auto")  # whole searches would tell of each generation
    named = tuple(c.name for c in contestants(given.strategies or DEFAULT_STRATEGIES))
    return given, Settings(seeds=given.seeds, budget=given.budget, strategies=named)


def _whole(parser: Parser, option: str, text: str, least: int, most: int) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(least <= n <= most for n in numbers):
        parser.error(f"{option} needs whole numbers from {least} to {most}, by commas, not {text!r}")
    return numbers


# -- in words ----------------------------------------------------------------------------------------------------------


def contest_words(found: dict[str, Any]) -> str:
    """The curves, where they end, and how the strategies compare."""
    return "\n".join([_head(found), *_summary_words(found)])


def functions_words(found: dict[str, Any]) -> str:
    """The same for each ground."""
    parts = [f"-log10 above the optimum, 8 at most; {found['settings']['seeds']} seeds"]
    for ground in found["grounds"]:
        parts += ["", f"{ground['ground']}, {ground['budget']} queries", *_summary_words(ground)]
    return "\n".join(parts)


def workers_words(found: dict[str, Any]) -> str:
    """How long both ways take."""
    settings = found["settings"]
    head = f"{settings['table']}: {settings['maximize']}, {settings['workers']} workers, {settings['seeds']} seeds"
    rows = [["asked by", "queries: mean (95 %)", "missed", "time: mean (95 %)", "workers busy"]]
    for row in found["rows"]:
        queries, time = (_with_interval(row[f"{n}_mean"], row[f"{n}_interval"]) for n in ("queries", "time"))
        rows.append([row["asked"], queries, str(row["missed"]), time, f"{100 * row['busy_mean']:.0f} %"])
    p = ", ".join(f"{what} p = {found[what]['wilcoxon_p_two_sided']:.2g}" for what in ("queries", "time"))
    return f"{head}\n{columns(rows)}\ngenerations take {found['ratio']:.2f} times as long; {p}"


def targets_words(found: dict[str, Any]) -> str:
    """What each way finds for each device."""
    s = found["settings"]
    head = f"{s['on']}: {s['budget']} queries together, {s['seeds']} seeds, limits that {100 * s['within']:g} % keep"
    rows = [["searched", "best: mean (95 %)", *s["devices"], *(["met the best"] if _met(found) else [])]]
    for row in found["rows"]:
        met = [f"{100 * row['met']:.0f} %"] if _met(found) else []
        low, high = row["interval"] or (row["mean"], row["mean"])
        mean = f"{row['mean']:.2f} ({low:.2f} to {high:.2f})"
        rows.append([row["way"], mean, *(f"{value:.2f}" for value in row["by_device"]), *met])
    pairs = [["together against", "won", "tied", "lost", "ahead by (95 %)", "effect", "p", "Holm"]]
    pairs += map(_pair, found["comparisons"])
    return f"{head}\n{columns(rows)}\n\n{columns(pairs)}"


def _met(found: dict[str, Any]) -> bool:
    return found["rows"][0]["met"] is not None


def _summary_words(found: dict[str, Any]) -> list[str]:
    ladder = [f"{queries}" for queries in found["ladder"]]
    curves, regrets = [["median (quartiles) after", *ladder]], [["regret: mean (95 %) after", *ladder]]
    reports = [["reported of the best: mean after", *ladder]]
    known = found["best_score"] is not None
    met = ["reported: mean", "sd", "met the best", "after (misses: all)"] if known else []
    ends = [["", "best: mean", "sd", *met, "own ms a query"]]
    for row in found["rows"]:
        steps = zip(row["curve_median"], row["curve_q25"], row["curve_q75"], strict=True)
        curves.append([row["strategy"], *(f"{_digits(m)} ({_digits(low)}-{_digits(high)})" for m, low, high in steps)])
        ends.append([row["strategy"], _digits(row["value_mean"]), _digits(row["value_sd"])])
        if any(value is not None for value in row["curve_report_mean"]):
            reports.append([row["strategy"], *map(_digits, row["curve_report_mean"])])
        if known:
            regret = zip(row["regret_mean"], row["regret_interval"], strict=True)
            regrets.append([row["strategy"], *(_with_interval(mean, interval) for mean, interval in regret)])
            ends[-1] += [_digits(row["report_mean"]), _digits(row["report_sd"])]
            ends[-1] += [f"{100 * row['reached_best_share']:.0f} %", f"{row['queries_to_best_mean']:.0f} (mean)"]
        ends[-1].append(f"{row['own_ms_a_query']:.1f}")
    parts = [columns(curves), *(columns(rows) for rows in (reports, regrets) if len(rows) > 1)]
    if found["time_unit"] == "s":
        parts.append(columns(_by_seconds(found)))
    parts.append(columns(ends))
    for what, pairs in (("best", found["comparisons"]), ("queries to the best", found["comparisons_to_best"])):
        head = [f"{what}: {found['compared']} against", "won", "tied", "lost", "ahead by (95 %)", "effect", "p", "Holm"]
        parts += [columns([head, *map(_pair, pairs)])] if pairs else []
    return [parts[0], *(f"\n{part}" for part in parts[1:])]


def _by_seconds(found: dict[str, Any]) -> list[list[str]]:
    """The curves against search time, and the time to the best where that is known."""
    known = found["best_score"] is not None
    head = ["median (quartiles) after seconds", *(f"{seconds:.3g}" for seconds in found["time_ladder"]), "a search"]
    rows = [[*head, "to the best: mean"] if known else head]
    for row in found["rows"]:
        steps = zip(*(row[f"time_curve_{which}"] for which in ("median", "q25", "q75")), strict=True)
        rows.append([row["strategy"], *(f"{_digits(m)} ({_digits(low)}-{_digits(high)})" for m, low, high in steps)])
        rows[-1] += [f"{row['time_mean']:.3g}", *([f"{row['time_to_best_mean']:.3g}"] if known else [])]
    return rows


def _with_interval(mean: float, interval: tuple[float, float] | None) -> str:
    return f"{mean:.3g}" + ("" if interval is None else f" ({interval[0]:.3g}-{interval[1]:.3g})")


def _pair(c: dict[str, Any]) -> list[str]:
    interval = c["mean_difference_interval"]
    between = "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
    return [
        c["against"],
        *(str(c[name]) for name in ("wins", "ties", "losses")),
        f"{c['mean_difference']:.3g}{between}",
        f"{c['rank_biserial']:+.2f}",
        f"{c['wilcoxon_p_two_sided']:.2g}",
        f"{c['wilcoxon_p_holm']:.2g}",
    ]


def _head(found: dict[str, Any]) -> str:
    settings, best = found["settings"], found.get("best")
    if found["bench"] == "front":
        return (
            f"{settings['table']}: {settings['maximize']} against {settings['against']}, share of the hypervolume of "
            f"its front of {len(found['front'])}; {settings['seeds']} seeds"
        )
    if best is None:
        return f"within {settings['target_ms']:g} ms on the {settings['device']}; {settings['seeds']} seeds"
    return (
        f"{settings['table']}: best {settings['maximize']} {best['value']:.4f} at row {best['row']}, of "
        f"{best['feasible_rows']} rows within the constraints; {settings['seeds']} seeds"
    )


def _digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
