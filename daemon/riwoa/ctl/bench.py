"""``riwoactl bench NAME``: each prints one JSON object with a top-level ``ratio``, or what it says in words."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar, say
from riwoa.ctl import Options, bench_runtime
from riwoa.ctl.command import Parser, columns, loaded, subverb
from riwoa.errors import UsageError
from riwoa.limits import whole_cores
from riwoa.paths import client_state, daemon_state

if TYPE_CHECKING:
    from riwoa.bench.contest import Settings as ContestSettings

_KNOWN = {
    "journal": "committed evaluations a second against Optuna's storages",
    "eval": "subnet evaluations a second against OFA's own way",
    "status": "riwoactl status against the start of a bare interpreter",
    "resume": "from SIGKILL to the first new evaluation",
    "growth": "room that a long search takes: bytes of journal a generation, memory of the searching side",
    "embedded": "RI-IWOA against the baselines on the embedded task",
    "table": "strategies on any table, NAS-Bench-201's or your own",
    "predictor": "strategies on OFA's accuracy predictor and its Note10 latency tables",
    "cognition": "the language model's proposals before and after training, beside placebo and spiral",
    "overlap": "evaluation and generation at the same time against alternating them",
    "runtime": "searches with onnxruntime's latencies against searches with eager torch's",
    "transfer": "a supernet for new classes, from one of other classes against from scratch",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Run one benchmark and print what it found."""
    name = subverb(verb, arguments, _KNOWN)
    runs = {
        "journal": _journal,
        "eval": _evaluation,
        "status": _status,
        "resume": _resume,
        "growth": _growth,
        "embedded": _embedded,
        "table": _table,
        "predictor": _predictor,
        "cognition": _cognition,
        "overlap": _overlap,
        "runtime": bench_runtime.measured,
        "transfer": _transfer,
    }
    found = runs[name](Parser(f"bench {name}", description=_DESCRIPTIONS[name]), arguments[1:], options)
    words = _IN_WORDS.get(name)
    print(json.dumps(found, allow_nan=False) if options.json or words is None else words(found))
    return 0


_DESCRIPTIONS = {
    "journal": "46 genes, 20 evaluations a generation, every commit on the disk. ratio: against Optuna's RDB (SQLite).",
    "eval": "ratio: the fastest setting against OFA's extraction, recalibration and evaluation.",
    "status": "ratio: the slower of running and stopped, against `python -c pass`.",
    "resume": "A search is killed and started again. ratio: start to first new evaluation by the imports' own time.",
    "growth": "46 genes, population 20, a landscape in place of the workers. ratio: the worse of journal and memory by "
    "its target; at most 1 where both are met.",
    "embedded": "Best feasible fitness after a budget of unique evaluations, paired over seeds. ratio: the median over "
    "seeds of riwoa's best by random search's. Evaluations are kept in --out: killed and run again, it continues.",
    "table": "Best value within the constraints after a budget of unique queries, population 20, paired over seeds. "
    "A column may be FILE:COLUMN of a file beside the table. ratio: the median over seeds of riwoa's best by random's.",
    "predictor": "Best predicted accuracy within the target after a budget of unique queries, population 20, paired "
    "over seeds. RIWOA_DATA names the folder of OFA's files. ratio: the median over seeds of riwoa's best by random's.",
    "cognition": "Proposals at the same parents. ratio: win rate over the parent after training by the placebo's. "
    "Steps are kept in --out: killed and run again, it continues.",
    "runtime": "Paired over seeds, on the embedded task; all is timed in onnxruntime. ratio: how many times as long "
    "the network of torch's table takes at equal accuracy, the geometric mean over seeds.",
    "overlap": "`make run`'s own generations at one thread a worker. ratio: seconds alternating by seconds overlapped, "
    "the median over rounds; its bound is (Te + Tm) / max(Te, Tm).",
    "transfer": "Twenty classes of CIFAR-100, 50 pictures each, from a supernet of the other eighty against from "
    "scratch, at equal steps. ratio: the largest subnet's mean test accuracy by that from scratch.",
}


def _journal(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path, metavar="DIR", help="on the disk to measure (default: the state's)")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error("--repeats must be at least 1")
    from riwoa.bench.journal import bench_journal

    with bar("writing", "round") as advance:
        place = given.directory or daemon_state(options.state).state
        return bench_journal(place, given.repeats, progress=lambda done, total: advance(done, total, ""))


def _evaluation(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the supernet inside the package")
    parser.add_argument("--data", default="digits", help="as oracle.supernet.data: digits, or the path of a data set")
    parser.add_argument("--subnets", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if min(given.subnets, given.threads) < 1:
        parser.error("--subnets and --threads must be at least 1")
    from riwoa.bench.evaluation import bench_evaluation

    with bar("evaluating"):
        return bench_evaluation(given.checkpoint, given.data, subnets=given.subnets, threads=given.threads)


def _status(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--runs", type=int, default=31, help="interleaved starts of each (default 31)")
    given = parser.parse_args(arguments)
    if given.runs < 1:
        parser.error("--runs must be at least 1")
    from riwoa.bench.status import bench_status

    with bar("starting", "round") as advance:
        return bench_status(given.runs, progress=lambda done, total: advance(done, total, ""))


def _resume(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", type=Path, metavar="FILE", help="latency table (default: the state's, else shipped)")
    parser.add_argument("--generations", type=int, default=0, metavar="N", help="make the run's past so long first")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.generations < 0:
        parser.error("--rounds must be at least 1, --generations at least 0")
    from riwoa.bench.resume import bench_resume
    from riwoa.hardware.obtain import shipped_table

    own = client_state(options.state).latency_table
    table = given.table or (own if own.exists() else shipped_table())
    with bar("killing", "round") as advance:
        return bench_resume(
            table,
            given.rounds,
            progress=lambda done, total: advance(done, total, ""),
            generations=given.generations,
        )


def _growth(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--evaluations", type=int, default=50_000, metavar="N", help="of the search (default 50000)")
    given = parser.parse_args(arguments)
    if given.evaluations < 200:
        parser.error("--evaluations must be at least 200")
    from riwoa.bench.growth import bench_growth

    with bar("searching", "evaluation") as advance:
        return bench_growth(given.evaluations, progress=lambda done, total: advance(done, total, ""))


def _growth_words(found: dict[str, Any]) -> str:
    """How both grow, and their targets."""
    rows = [["evaluations", "generations", "journal, KB a generation", "resident, MB", "seconds"]]
    for r in found["rows"]:
        sizes = (f"{r['kb_a_generation']:.1f}", f"{r['resident_mb']:.0f}", f"{r['seconds']:.0f}")
        rows.append([str(r["evaluations"]), str(r["generations"]), *sizes])
    target = (
        f"targets: {found['target_kb_a_generation']:g} KB a generation, {found['target_resident_mb']:g} MB resident"
    )
    return f"{columns(rows)}\n{target}"


def _add_configuration(parser: Parser) -> None:
    """Options of a benchmark that runs what the daemon is configured to."""
    parser.add_argument("--table", type=Path, metavar="FILE", help="latency table (default: as the daemon's)")
    parser.add_argument("--config", type=Path, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")


def _embedded(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=200, help="unique evaluations of a search (default 200)")
    parser.add_argument("--workers", type=int, default=whole_cores())
    parser.add_argument("--strategies", default="riwoa,woa,random", help="separated by commas")
    out_help = "where evaluations are kept (default: bench_embedded.jsonl in the state directory)"
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help=out_help)
    _add_configuration(parser)
    given = parser.parse_args(arguments)
    if min(given.seeds, given.budget, given.workers) < 1:
        parser.error("--seeds, --budget and --workers must be at least 1")
    from riwoa.bench.embedded import Settings, bench_embedded, load_table

    config = loaded(given.config, given.set).config
    paths = client_state(options.state)
    strategies = tuple(given.strategies.split(","))
    if unknown := set(strategies) - {"riwoa", "riwoa-unscreened", "woa", "random"}:
        raise UsageError(f"--strategies: {sorted(unknown)[0]!r} is none of riwoa, riwoa-unscreened, woa, random")
    settings = Settings(seeds=given.seeds, budget=given.budget, workers=given.workers, strategies=strategies)
    out = given.out or paths.state / "bench_embedded.jsonl"

    async def measure() -> dict[str, Any]:
        table = await load_table(given.table, paths.latency_table, config)
        with bar("evaluating", "subnet") as advance:
            return await bench_embedded(settings, config, table, out, lambda done, total: advance(done, total, ""))

    return asyncio.run(measure())


def _table(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("file", type=Path, metavar="FILE", help=".npz or .csv, one row an architecture")
    parser.add_argument("--genes", required=True, help="an array of integers (rows, genes), or columns, by commas")
    order = parser.add_mutually_exclusive_group(required=True)
    order.add_argument("--nominal", dest="kind", action="store_const", const="nominal", help="genes without an order")
    order.add_argument("--ordered", dest="kind", action="store_const", const="ordered", help="genes in order, as sizes")
    parser.add_argument("--maximize", required=True, metavar="COLUMN")
    parser.add_argument("--report", metavar="COLUMN", help="what to tell of the winners, and no search looks at")
    parser.add_argument("--constraint", action="append", default=[], metavar="COLUMN<=X", help="may be repeated")
    parser.add_argument("--join", type=Path, metavar="FILE", help="another table with the same rows, for more columns")
    parser.add_argument("--low-fidelity", metavar="COLUMN", help="cheap measurements, for strategies that race")
    parser.add_argument("--low-fidelity-cost", type=float, metavar="X", help="what one costs, in queries")
    given, settings = _contest(parser, arguments)
    if (given.low_fidelity is None) != (given.low_fidelity_cost is None):
        parser.error("--low-fidelity and --low-fidelity-cost belong together")
    if given.low_fidelity_cost is not None and not 0 < given.low_fidelity_cost <= 1:
        parser.error("--low-fidelity-cost must be above 0 and at most 1")
    from riwoa.bench.table import Constraint, Question, bench_table

    limits = tuple(Constraint.parse(text) for text in given.constraint)
    question = Question(
        given.genes, given.kind, given.maximize, given.report, limits, given.low_fidelity, given.low_fidelity_cost
    )
    with bar("searching", "search") as advance:
        return bench_table(
            settings, given.file, question, join=given.join, out=given.out, progress=lambda d, t: advance(d, t, "")
        )


def _predictor(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--target", type=float, default=25.0, metavar="MS", help="latency on the Note10 (default 25)")
    given, settings = _contest(parser, arguments)
    if not 0 < given.target < float("inf"):
        parser.error("--target must be above 0")
    from riwoa.bench.predictor import bench_predictor
    from riwoa.bench.tasks import predictor_folder

    with bar("searching", "search") as advance:
        return bench_predictor(
            settings, predictor_folder(), given.target, out=given.out, progress=lambda d, t: advance(d, t, "")
        )


def _contest(parser: Parser, arguments: list[str]) -> tuple[Namespace, ContestSettings]:
    """Options of a benchmark whose searches cost next to nothing."""
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budget", type=int, default=200, help="unique queries of a search (default 200)")
    parser.add_argument("--strategies", default="riwoa,woa,random", help="separated by commas")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="keep finished searches: run again, it goes on")
    given = parser.parse_args(arguments)
    if min(given.seeds, given.budget) < 1:
        parser.error("--seeds and --budget must be at least 1")
    from riwoa.bench.contest import CONTESTANTS, Settings

    strategies = tuple(dict.fromkeys(given.strategies.split(",")))
    if unknown := [name for name in strategies if name not in CONTESTANTS]:
        raise UsageError(f"--strategies: {unknown[0]!r} is none of {', '.join(CONTESTANTS)}")
    return given, Settings(seeds=given.seeds, budget=given.budget, strategies=strategies)


def _contest_words(found: dict[str, Any]) -> str:
    """The curves, where they end, and how the strategies compare."""
    curves = [["median (quartiles) after", *(f"{queries}" for queries in found["ladder"])]]
    known = found.get("best") is not None
    ends = [["", "best: mean", "sd", *(["reported: mean", "sd", "met the best row", "after"] if known else [])]]
    for row in found["rows"]:
        steps = zip(row["curve_median"], row["curve_q25"], row["curve_q75"], strict=True)
        curves.append([row["strategy"], *(f"{_digits(m)} ({_digits(low)}-{_digits(high)})" for m, low, high in steps)])
        ends.append([row["strategy"], _digits(row["value_mean"]), _digits(row["value_sd"])])
        if known:
            after = row["queries_to_best_median"]
            ends[-1] += [_digits(row["report_mean"]), _digits(row["report_sd"])]
            ends[-1] += [f"{100 * row['reached_best_share']:.0f} %", "" if after is None else f"{after:.0f} (median)"]
    pairs = [
        f"riwoa against {c['against']}: {c['wins']} wins, {c['ties']} ties, {c['losses']} losses, "
        f"two-sided Wilcoxon p = {c['wilcoxon_p_two_sided']:.2g}"
        for c in found["comparisons"]
    ]
    return "\n".join([_contest_head(found), columns(curves), columns(ends), *pairs])


def _contest_head(found: dict[str, Any]) -> str:
    settings, best = found["settings"], found.get("best")
    if best is None:
        return f"within {settings['target_ms']:g} ms on the {settings['device']}; {settings['seeds']} seeds"
    return (
        f"{settings['table']}: best {settings['maximize']} {best['value']:.4f} at row {best['row']}, of "
        f"{best['feasible_rows']} rows within the constraints; {settings['seeds']} seeds"
    )


def _digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _cognition(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--tasks", default="predictor,embedded", help="separated by commas (default: both)")
    parser.add_argument("--proposals", type=int, default=500, help="of each operator (default 500)")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--round", type=int, default=96, help="proposals before each training (default 96)")
    out_help = "where steps are kept (default: bench_cognition in the state directory)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    _add_configuration(parser)
    given = parser.parse_args(arguments)
    if min(given.proposals, given.trainings, given.round) < 1:
        parser.error("--proposals, --trainings and --round must be at least 1")
    from riwoa.bench.cognition import Settings, bench_cognition
    from riwoa.bench.embedded import load_table

    config, paths = loaded(given.config, given.set).config, client_state(options.state)
    settings = Settings(proposals=given.proposals, trainings=given.trainings, round_proposals=given.round)
    out, tasks = given.out or paths.state / "bench_cognition", tuple(given.tasks.split(","))

    async def measure() -> dict[str, Any]:
        table = await load_table(given.table, paths.latency_table, config)
        with bar("measuring"):
            return await bench_cognition(config, table, out, tasks=tasks, settings=settings, say=say)

    return asyncio.run(measure())


def _overlap(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--generations", type=int, default=8, help="timed, after the first (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the three ways (default 3)")
    _add_configuration(parser)
    given = parser.parse_args(arguments)
    if min(given.generations, given.repeats) < 1:
        parser.error("--generations and --repeats must be at least 1")
    from riwoa.bench.embedded import load_table
    from riwoa.bench.overlap import bench_overlap
    from riwoa.log import configure

    configure("warning", "auto")  # a line a generation would bury the bar
    config, own = loaded(given.config, given.set).config, client_state(options.state).latency_table

    async def measure() -> dict[str, Any]:
        table = await load_table(given.table, own, config)
        with bar("searching", "way") as advance:
            return await bench_overlap(
                table,
                generations=given.generations,
                repeats=given.repeats,
                file=given.config,
                overrides=given.set,
                progress=advance,
            )

    return asyncio.run(measure())


def _transfer(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("data", type=Path, metavar="CIFAR-100", help="cifar-100-python.tar.gz, or its folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: bench_transfer in the state directory")
    sizes = {"seeds": "3", "epochs": "20, of 15 steps", "source-epochs": "2", "pictures": "50 a class"}
    for name, usual in sizes.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"default {usual}")
    given = parser.parse_args(arguments)
    from dataclasses import replace

    from riwoa.bench.transfer import Settings, bench_transfer

    named = {name.replace("-", "_"): getattr(given, name.replace("-", "_")) for name in sizes}
    settings = replace(Settings(), **{name: value for name, value in named.items() if value is not None})
    if min(settings.seeds, settings.epochs, settings.source_epochs, settings.pictures) < 1:
        parser.error("--seeds, --epochs, --source-epochs and --pictures must be at least 1")
    with bar("training", "step") as advance:
        return bench_transfer(
            given.data, given.out or client_state(options.state).state / "bench_transfer", settings, advance
        )


def _transfer_words(found: dict[str, Any]) -> str:
    from riwoa.bench.transfer import words

    return words(found)


_IN_WORDS = {
    "table": _contest_words,
    "predictor": _contest_words,
    "growth": _growth_words,
    "runtime": bench_runtime.in_words,
    "transfer": _transfer_words,
}
