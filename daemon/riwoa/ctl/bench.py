"""``riwoactl bench NAME``: each prints one JSON object with a top-level ``ratio``, or what it says in words."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from riwoa.console.bar import bar, say
from riwoa.ctl import Options, bench_gpu, bench_runtime, contest
from riwoa.ctl.command import Parser, columns, loaded, subverb
from riwoa.limits import whole_cores
from riwoa.paths import client_state, daemon_state

_KNOWN = {
    "journal": "committed evaluations a second against Optuna's storages",
    "eval": "subnet evaluations a second against OFA's own way",
    "status": "riwoactl status against the start of a bare interpreter",
    "resume": "from SIGKILL to the first new evaluation",
    "growth": "room that a long search takes: bytes of journal a generation, memory of the searching side",
    "embedded": "RI-IWOA against the baselines on the embedded task",
    "table": "strategies on any table, NAS-Bench-201's or your own",
    "front": "strategies on a table with two aims: the share of its hypervolume that they find",
    "workers": "search.asynchronous on a table, in simulated time: asking at each arrival against whole generations",
    "targets": "one search for several devices ([[target]]) against a search a device, on a table or OFA's predictor",
    "predictor": "strategies on OFA's accuracy predictor and its Note10 latency tables",
    "functions": "strategies on rotated functions of real numbers: RI-IWOA's moves against WOA's and CMA-ES",
    "suite": "every declared experiment, then the generated part of the results page (make bench)",
    "plot": "pictures of a contest's JSON: progress, fronts, ablation, ranks",
    "cognition": "the language model's proposals before and after training, beside placebo and spiral",
    "overlap": "evaluation and generation at the same time against alternating them",
    "runtime": "searches with onnxruntime's latencies against searches with eager torch's",
    "transfer": "a supernet for new classes, from one of other classes against from scratch",
    "gpu": "the next minutes of what only a GPU can show (make gpu-evidence)",
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
        "embedded": contest.embedded,
        "table": contest.table,
        "front": contest.front,
        "workers": contest.workers,
        "targets": contest.targets,
        "predictor": contest.predictor,
        "functions": contest.functions,
        "suite": _suite,
        "plot": _plot,
        "cognition": _cognition,
        "overlap": _overlap,
        "runtime": bench_runtime.measured,
        "transfer": _transfer,
        "gpu": bench_gpu.measured,
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
    "growth": "46 genes, 20 evaluations a generation, a landscape in place of the workers. ratio: the worse of journal "
    "and memory by its target; at most 1 where both are met.",
    "embedded": "Best feasible fitness after a budget of unique evaluations, paired over seeds. ratio: the median over "
    "seeds of riwoa's best by random search's. Evaluations are kept in --out: killed and run again, it continues.",
    "table": "Best value within the constraints after a budget of unique queries, population 20, paired over seeds. "
    "A column may be FILE:COLUMN of a file beside the table. ratio: the median over seeds of riwoa's best by random's.",
    "front": "Share of the hypervolume of the table's true front, up to --reference, after a budget of unique queries.",
    "workers": "Until the best is met or the budget spent, paired over seeds. A query takes 1 on average, log-normal; "
    "the search's own time does not count. ratio: how many times as long generations take.",
    "targets": "The mean over devices of the best accuracy within each one's limit, after as many queries together, "
    "paired over seeds. RIWOA_DATA names the folder of the files. ratio: what is lacking of 100 % apart by together.",
    "functions": "Rotated, shifted ellipsoid, Rosenbrock and Rastrigin; a score of 8 is the optimum. The budget is a "
    "dimension's. ratio: how many times as far above the optimum random's best is, the median over seeds and grounds.",
    "predictor": "Best predicted accuracy within the target after a budget of unique queries, population 20, paired "
    "over seeds. RIWOA_DATA names the folder of OFA's files. ratio: the median over seeds of riwoa's best by random's.",
    "suite": "Experiments run as commands of their own; what was finished is kept in --results and not repeated. "
    "ratio: the share of the targets that were met.",
    "plot": "SVG and PNG. ratio: pictures by results.",
    "cognition": "Proposals at the same parents. ratio: win rate over the parent after training by the placebo's. "
    "Steps are kept in --out: killed and run again, it continues. With --whole: searches, and what writers bring them.",
    "runtime": "Paired over seeds, on the embedded task; all is timed in onnxruntime. ratio: how many times as long "
    "the network of torch's table takes at equal accuracy, the geometric mean over seeds.",
    "overlap": "`make run`'s own generations at one thread a worker. ratio: seconds alternating by seconds overlapped, "
    "the median over rounds; its bound is (Te + Tm) / max(Te, Tm).",
    "transfer": "Twenty classes of CIFAR-100, 50 pictures each, from a supernet of the other eighty against from "
    "scratch, at equal steps. ratio: the largest subnet's mean test accuracy by that from scratch.",
    "gpu": "riwoa's own commands on CIFAR-100, a slice of minutes at a time; each takes up what the one before left. "
    "ratio: the share of the measurements that are done.",
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


def _suite(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="where results are kept, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page whose generated part is to be written anew")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="where to draw the pictures")
    parser.add_argument("--quick", action="store_true", help="a few seeds of a part, in five minutes")
    parser.add_argument("--only", default="", metavar="NAMES", help="these experiments alone, by commas")
    parser.add_argument("--jobs", type=int, default=whole_cores(), help="experiments at once (default: the cores)")
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error("--jobs must be at least 1")
    from riwoa.bench.experiments import reached
    from riwoa.bench.page import draw, rendered, write_page
    from riwoa.bench.plots import require_matplotlib
    from riwoa.bench.suite import Share, results, run_suite

    share = Share(given.results, given.quick, tuple(filter(None, given.only.split(","))))
    if given.figures is not None:
        require_matplotlib()
    with bar("measuring", "experiment") as advance:
        failed = run_suite(share, given.jobs, advance)
    whole = Share(given.results, given.quick)
    found = results(whole)
    text = rendered(whole.experiments, found, failed, quick=given.quick)
    if given.page is not None:
        write_page(given.page, text)
    drawn = draw(whole.experiments, found, given.figures) if given.figures is not None else []
    targets = [reached(t, found[e.name]) for e in whole.experiments if e.name in found for t in e.targets]
    return {
        "bench": "suite",
        "ratio": sum(met for _, met in targets) / len(targets) if targets else None,
        "failed": failed,
        "page": text,
        "pictures": [str(path) for path in drawn],
    }


def _whole(given: argparse.Namespace) -> dict[str, Any]:
    from riwoa.bench.page import WHOLE_BEGIN, WHOLE_END, rendered, write_page
    from riwoa.bench.suite import Share, results, run_suite

    share = Share(given.results, only=tuple(filter(None, given.only.split(","))), whole=True, seeds=given.seeds)
    with bar("measuring", "experiment") as advance:
        failed = run_suite(share, given.jobs, advance)
    whole = Share(given.results, whole=True)
    found = results(whole)
    command = "riwoactl bench cognition --whole"
    text = rendered(whole.experiments, found, failed, quick=False, command=command)
    if given.page is not None:
        write_page(given.page, text, WHOLE_BEGIN, WHOLE_END)
    return {"bench": "cognition", "ratio": None, "failed": failed, "page": text, "pictures": []}


def _suite_words(found: dict[str, Any]) -> str:
    """The generated part, the pictures, and what failed."""
    drawn = [f"drawn: {', '.join(found['pictures'])}"] if found["pictures"] else []
    return "\n".join([found["page"], *drawn, *(f"FAILED {name}: {said}" for name, said in found["failed"].items())])


def _plot(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("files", type=Path, nargs="+", metavar="RESULT.json", help="of riwoactl --json bench ...")
    kinds = ("progress", "fronts", "ablation", "ranks")
    parser.add_argument("--kind", choices=kinds, default="progress", help="ranks takes several results, the others one")
    parser.add_argument("--out", type=Path, required=True, metavar="NAME", help="NAME.svg and NAME.png")
    given = parser.parse_args(arguments)
    if given.kind != "ranks" and len(given.files) != 1:
        parser.error(f"--kind {given.kind} takes one result")
    from riwoa.bench import plots

    found = [plots.read_result(path) for path in given.files]
    if given.kind == "ranks":
        drawn = plots.plot_ranks(found, given.out)
    else:
        drawn = getattr(plots, f"plot_{given.kind}")(found[0], given.out)
    return {"bench": "plot", "ratio": len(drawn) / len(found), "pictures": [str(path) for path in drawn]}


def _plot_words(found: dict[str, Any]) -> str:
    return "\n".join(found["pictures"])


def _cognition(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--tasks", default="predictor,embedded", help="separated by commas (default: both)")
    parser.add_argument("--proposals", type=int, default=500, help="of each operator (default 500)")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--round", type=int, default=96, help="proposals before each training (default 96)")
    out_help = "where steps are kept (default: bench_cognition in the state directory)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    contest.add_configuration(parser)
    whole = parser.add_argument_group("--whole", "Whole searches with a writer beside, hours of them, resumable.")
    whole.add_argument("--whole", action="store_true", help="measure these instead")
    whole.add_argument("--results", type=Path, metavar="DIR", default=Path(".bench"), help="default: .bench")
    whole.add_argument("--page", type=Path, metavar="FILE", help="the page whose generated part is to be written anew")
    whole.add_argument("--only", default="", metavar="NAMES", help="these experiments alone, by commas")
    whole.add_argument("--seeds", type=int, metavar="N", help="at most so many of each (default: 53, 10 on digits)")
    whole.add_argument("--jobs", type=int, default=whole_cores(), help="experiments at once (default: the cores)")
    given = parser.parse_args(arguments)
    counts = (given.proposals, given.trainings, given.round, given.jobs, 1 if given.seeds is None else given.seeds)
    if min(counts) < 1:
        parser.error("--proposals, --trainings, --round, --seeds and --jobs must be at least 1")
    if given.whole:
        return _whole(given)
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


def _cognition_words(found: dict[str, Any]) -> str:
    """The generated part of whole searches; else the JSON object."""
    return _suite_words(found) if "page" in found else json.dumps(found, allow_nan=False)


def _overlap(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    parser.add_argument("--generations", type=int, default=40, help="timed, after the first (default 40)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the three ways (default 3)")
    contest.add_configuration(parser)
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
    **dict.fromkeys(("embedded", "table", "front", "predictor"), contest.contest_words),
    "functions": contest.functions_words,
    "workers": contest.workers_words,
    "targets": contest.targets_words,
    "growth": _growth_words,
    "suite": _suite_words,
    "cognition": _cognition_words,
    "plot": _plot_words,
    "runtime": bench_runtime.in_words,
    "transfer": _transfer_words,
    "gpu": bench_gpu.in_words,
}
