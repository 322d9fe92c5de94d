"""The experiments that ``make bench`` runs, declared: what is asked, who takes part, how often, what is aimed at.

``WHOLE`` are those of ``riwoactl bench cognition --whole``: searches with a writer beside, which take hours. To add an
experiment, add an ``Experiment`` to one of both; its section of the results page shows it. ``{data}`` in an
argument is the folder that RIWOA_DATA names, else ``../shared/data``; ``{table}`` the latency table of the reference
machine; ``{results}`` the folder of the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from riwoa.bench.whole import BASE, GREEDY, NONE, PAIRS, PLACEBO, SECOND, SEMANTIC
from riwoa.search.strategies import STRATEGIES

Kind = Literal["contest", "grounds", "functions", "writers"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: each experiment by itself ("contest"), or one table of all of its experiments ("grounds").

    "writers" is a contest of what writers bring.

    Attributes:
        title: of it.
        short: before a ground's name, where it stands alone; empty where that says enough.
        kind: how it is shown.
        says: what its numbers are.
    """

    title: str
    short: str
    kind: Kind
    says: str


@dataclass(frozen=True, slots=True)
class Target:
    """What riwoa's row is to reach: a measure of it within a bound, or (``ahead``) comparisons won.

    Attributes:
        words: the target, as the page says it.
        measure: of riwoa's row.
        at_most: the bound.
        at_least: the bound.
        ahead: Holm's p that every comparison must be below, with a difference above 0.
        against: whom these are with; empty for everybody.
    """

    words: str
    measure: str = ""
    at_most: float | None = None
    at_least: float | None = None
    ahead: float | None = None
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Experiment:
    """One command with the seeds and the budget of each of its searches.

    Attributes:
        name: of its files.
        section: where the page shows it.
        title: of its table, or of its column.
        bench: the benchmark.
        arguments: of it, besides the following.
        strategies: who takes part.
        seeds: of each.
        budget: queries of a search.
        quick_seeds: in the quick share; 0 where it is not in it.
        targets: what riwoa is to reach.
        picture: what is drawn of it: "progress", "fronts", "ablation".
        ranked: whether it is a ground of the mean ranks.
    """

    name: str
    section: Section
    title: str
    bench: str
    arguments: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: int
    budget: int
    quick_seeds: int = 0
    targets: tuple[Target, ...] = ()
    picture: str | None = None
    ranked: bool = False

    def command(self, places: Mapping[str, str], seeds: int) -> list[str]:
        """What stands behind ``riwoactl bench`` for so many seeds, with the places filled in."""
        counts = ("--seeds", str(seeds), "--budget", str(self.budget))
        given = [argument.format_map(places) for argument in self.arguments]
        return [self.bench, *given, *counts, "--strategies", ",".join(self.strategies)]


_OWN = tuple(STRATEGIES)
_FEASIBLE = tuple(name for name in STRATEGIES if name != "woa")  # it looks at no limit, and repeats itself
_PREDICTOR_RIVALS = ("random", "evolution", "local", "catcma", "cma-es", "nsga2", "ofa-evolution")
_PEERS = ("optuna-tpe", "catcma", "nsga2")
_ABLATED = ("joint=false", "offspring=1", "offspring=20", "first=20", "learned_shares=true")
_REAL = ("--table", "{table}", "--evaluations", "{results}/evaluations.jsonl", "--workers", "1")
_DEVICES = {"raspi4": "raspi4_ms", "2080ti": "2080ti_1_ms", "eyeriss": "eyeriss_ms", "samsung": "samsung_s7_ms"}
_DATASETS = {"CIFAR-100": ("c100_val200", "c100_test200"), "CIFAR-10": ("c10v_val200", "c10v_test200")}

NB201 = Section(
    "NAS-Bench-201",
    "",
    "contest",
    "Queries of 15,625 cells until the best by validation is met; a miss counts as the whole budget.",
)
LIMITS = Section(
    "NAS-Bench-201 within a device's latency",
    "",
    "grounds",
    "Mean queries to the best cell within a latency, and in brackets how many searches missed it within 200 queries "
    "(which then count as 200). The latency is what 25 or 50 per cent of all cells keep to.",
)
FRONT = Section(
    "Fronts",
    "front",
    "contest",
    "Share of the true front's hypervolume after 300 queries: CIFAR-100 validation accuracy against latency on a "
    "Raspberry Pi 4, up to 80.4 ms and down to 60 %.",
)
PREDICTOR = Section(
    "OFA's predictor on the Note10",
    "OFA,",
    "grounds",
    "Mean best accuracy in per cent within a latency, after 1,000 queries.",
)
FUNCTIONS = Section(
    "Rotated functions",
    "",
    "functions",
    "Mean of -log10 of what is left above the optimum (more is better, 8 at most) after 100 queries a dimension. This "
    "is where rotation matters; RI-IWOA is without its predictor here, so that its moves are compared. "
    "16: a coordinate has 16 cells.",
)
EMBEDDED = Section(
    "The embedded task",
    "",
    "contest",
    "Best accuracy in per cent within the target of the package's supernet on the embedded digits, 200 unique "
    "evaluations, made for real; test is of the winners, on pictures that chose nothing. Nothing of riwoa's own was "
    "ever tuned on it; gumbel's steps and learning rate were, on two seeds. "
    "The time of a search is what its evaluations took, each as measured when it was first made, and what the search "
    "itself computed. gumbel is DARTS-like: it trains the choices by gradients through the supernet, which are no "
    "queries, and then queries what it learnt.",
)
ABLATION = Section(
    "What each part is worth",
    "ablation",
    "contest",
    "RI-IWOA with one setting changed, on NAS-Bench-201, CIFAR-100; gp is RI-IWOA without whale moves.",
)
MEMORY = Section(
    "A second task after a first",
    "",
    "contest",
    "With what a search of the same budget found before: another data set's accuracies, or the same predictor's within "
    "another limit (`-after`). The earlier search's queries are not counted.",
)
WRITTEN = Section(
    "Whole searches with a writer beside",
    "",
    "writers",
    "The daemon's own loop. A writer is asked for 16 patches a generation, of one to four genes, which join what the "
    "search chooses from: nobody (none), random draws from what is offered (placebo), random pairs of genes (pairs), "
    "the changes that leave least of the limit unused (greedy), the language model without training (base), learning "
    "(semantic), and learning on from an adapter of another search (second). Of nobody the mean best after so many "
    "queries, of the others the difference from that, paired by seed, with its 95 % interval (Student's). picked: "
    "networks evaluated, of the patches that joined, as written or what they led to. CPU: seconds of all processors a "
    "search, the model's included and evaluations not. trained: adapters accepted in all searches.",
)
SECTIONS = (NB201, LIMITS, FRONT, PREDICTOR, MEMORY, EMBEDDED, ABLATION, FUNCTIONS, WRITTEN)


def _cells(dataset: str, *more: str) -> tuple[str, ...]:
    value, report = _DATASETS[dataset]
    asked = ("--genes", "ops", "--nominal", "--maximize", value, "--report", report, "--epochs", "200")
    return ("{data}/nas-bench-201/accuracy.npz", *asked, *more)


def _free(dataset: str, most_queries: int, picture: str | None = None) -> Experiment:
    targets = (
        Target(f"{most_queries} queries to the best", "queries_to_best_mean", at_most=most_queries),
        Target("none missed", "missed", at_most=0),
    )
    return Experiment(
        f"nb201-{dataset.lower()}",
        NB201,
        dataset,
        "table",
        _cells(dataset),
        (*_OWN, *_PEERS),
        seeds=30,
        budget=300,
        quick_seeds=3,
        targets=targets,
        picture=picture,
        ranked=True,
    )


def _limited(dataset: str, device: str, per_cent: int) -> Experiment:
    joined = ("--join", "{data}/nas-bench-201/latency.npz", "--constraint", f"{_DEVICES[device]}<={per_cent}%")
    return Experiment(
        f"limit-{dataset.lower()}-{device}-{per_cent}",
        LIMITS,
        f"{dataset}, {device} {per_cent} %",
        "table",
        _cells(dataset, *joined),
        (*_FEASIBLE, *_PEERS),
        seeds=30,
        budget=200,
        quick_seeds=3 if (dataset, device) == ("CIFAR-100", "raspi4") else 0,
        targets=(Target("1 missed", "missed", at_most=1),),
        ranked=True,
    )


def _within(target_ms: int) -> Experiment:
    return Experiment(
        f"predictor-{target_ms}",
        PREDICTOR,
        f"{target_ms} ms",
        "predictor",
        ("--target", str(target_ms)),
        ("riwoa", "gp", *_PREDICTOR_RIVALS),
        seeds=10,
        budget=1000,
        quick_seeds=1 if target_ms == 25 else 0,
        targets=(
            # Ten seeds can show no less than 0.016, after Holm among eight.
            Target("ahead of all but gp, p < 0.02", ahead=0.02, against=_PREDICTOR_RIVALS),
            Target("20 s a search", "own_s_mean", at_most=20.0),
        ),
        ranked=True,
    )


def _after(dataset: str, first: str) -> Experiment:
    return Experiment(
        f"memory-{dataset.lower()}",
        MEMORY,
        f"{dataset} after {first}",
        "table",
        _cells(dataset, "--after", _DATASETS[first][0]),
        ("riwoa", "riwoa-after", "gp", "gp-after"),
        seeds=12,
        budget=300,
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(  # first, for it takes longest
        "embedded",
        EMBEDDED,
        "digits",
        "embedded",
        _REAL,
        ("riwoa", "riwoa:joint=false", "gp", "random", "evolution", "optuna-tpe", "gumbel"),
        seeds=20,
        budget=200,
        targets=(Target("ahead of its former self, p < 0.05", ahead=0.05, against=("riwoa:joint=false",)),),
        picture="progress",
    ),
    *(_within(target_ms) for target_ms in (15, 20, 25, 30, 35)),
    _free("CIFAR-100", 35, "progress"),
    _free("CIFAR-10", 40),
    Experiment(
        "nb201-optuna-gp",
        NB201,
        "CIFAR-100, beside Optuna's Gaussian process",
        "table",
        _cells("CIFAR-100"),
        ("riwoa", "optuna-gp"),
        seeds=10,
        budget=300,
    ),
    *(_limited(dataset, device, q) for dataset in _DATASETS for device in _DEVICES for q in (25, 50)),
    Experiment(
        "front",
        FRONT,
        "CIFAR-100, raspi4",
        "front",
        _cells(
            "CIFAR-100",
            *("--join", "{data}/nas-bench-201/latency.npz", "--against", "raspi4_ms", "--reference", "80.4,60"),
        ),
        (*_OWN, "nsga2"),  # Optuna's TPE of two aims takes half a minute a search
        seeds=30,
        budget=300,
        quick_seeds=3,
        targets=(Target("a share of 0.98", "value_mean", at_least=0.98),),
        picture="fronts",
    ),
    Experiment(
        "ablation",
        ABLATION,
        "CIFAR-100",
        "table",
        _cells("CIFAR-100"),
        ("riwoa", "gp", *(f"riwoa:{setting}" for setting in _ABLATED)),
        seeds=30,
        budget=300,
        quick_seeds=3,
        picture="ablation",
    ),
    _after("CIFAR-100", "CIFAR-10"),
    _after("CIFAR-10", "CIFAR-100"),
    Experiment(
        "memory-predictor-20",
        MEMORY,
        "OFA's predictor, 20 ms after 25 ms",
        "predictor",
        ("--target", "20", "--after", "25"),
        ("riwoa", "riwoa-after"),
        seeds=10,
        budget=200,
    ),
    Experiment(
        "functions",
        FUNCTIONS,
        "functions",
        "functions",
        (),
        ("riwoa-unscreened", "woa", "random", "cma-es"),
        seeds=15,
        budget=100,
        quick_seeds=1,
    ),
)


LOOKS = (60, 100, 250)  # queries after which writers are compared
_RULES = tuple(f"riwoa{writer}" for writer in (NONE, PLACEBO, PAIRS, GREEDY))
_MODELS = tuple(f"riwoa{writer}" for writer in (NONE, PAIRS, BASE))
_LEARNING = tuple(f"riwoa{writer}" for writer in (NONE, SEMANTIC, SECOND))
_PREDICTOR_25 = ("predictor", ("--target", "25"))
_CELLS_WITHIN = (
    "table",
    _cells(
        "CIFAR-100",
        *("--join", "{data}/nas-bench-201/latency.npz", "--constraint", f"{_DEVICES['samsung']}<=50%"),
    ),
)
_DIGITS = ("embedded", _REAL)


def _written(name: str, title: str, ground: tuple[str, tuple[str, ...]], by: tuple[str, ...], seeds: int) -> Experiment:
    bench, arguments = ground
    return Experiment(name, WRITTEN, title, bench, arguments, by, seeds, budget=LOOKS[-1])


WHOLE: tuple[Experiment, ...] = (
    _written("rules-predictor", "OFA's predictor within 25 ms", _PREDICTOR_25, _RULES, 53),
    _written("rules-cells", "NAS-Bench-201, CIFAR-100 within samsung 50 %", _CELLS_WITHIN, _RULES, 53),
    _written("rules-digits", "The embedded task", _DIGITS, _RULES, 10),
    _written("model-predictor", "OFA's predictor within 25 ms, with the language model", _PREDICTOR_25, _MODELS, 53),
    _written("model-cells", "NAS-Bench-201 with names, with the language model", _CELLS_WITHIN, _MODELS, 53),
    _written("model-digits", "The embedded task, with the language model", _DIGITS, _MODELS, 10),
    _written("learning-predictor", "OFA's predictor within 25 ms, learning", _PREDICTOR_25, _LEARNING, 53),
    _written("learning-cells", "NAS-Bench-201 with names, learning", _CELLS_WITHIN, _LEARNING, 53),
    _written("learning-digits", "The embedded task, learning", _DIGITS, _LEARNING, 10),
)


def reached(target: Target, result: Mapping[str, Any]) -> tuple[str, bool]:
    """What was reached of a target, in words, and whether it was met."""
    if target.ahead is not None:
        pairs = [c for c in result["comparisons"] if not target.against or c["against"] in target.against]
        ahead = sum(c["mean_difference"] > 0 and c["wilcoxon_p_holm"] < target.ahead for c in pairs)
        return f"{ahead} of {len(pairs)}", 0 < ahead == len(pairs)
    row = next(row for row in result["rows"] if row["strategy"] == "riwoa")
    value = float(row[target.measure])
    met = (target.at_most is None or value <= target.at_most) and (target.at_least is None or value >= target.at_least)
    return f"{value:.4g}", met
