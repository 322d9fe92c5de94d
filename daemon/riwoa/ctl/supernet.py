"""``riwoactl supernet pull | train | check``."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.ctl import Options
from riwoa.ctl.bar import bar
from riwoa.ctl.command import Parser, columns, emit, subverb
from riwoa.errors import StateDirectoryError

if TYPE_CHECKING:
    from riwoa.oracle.evaluator import SubnetEvaluator
    from riwoa.oracle.published import Published
    from riwoa.oracle.supernet import Supernet

_KNOWN = {
    "pull": "fetch a supernet that OFA's authors published; interrupted and run again, it continues",
    "train": "train the supernet of the embedded digits; killed and run again, it continues",
    "check": "accuracies of the largest, the median random and the smallest subnet",
}
Report = Callable[[int, int], None]
_SPLITS = ("validation", "test", "clean")


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to pull, train or check."""
    name = subverb(verb, arguments, _KNOWN)
    return {"pull": _pull, "train": _train, "check": _check}[name](arguments[1:], options)


def _pull(arguments: list[str], options: Options) -> int:
    from riwoa.oracle.fetch import pull
    from riwoa.oracle.published import PUBLISHED, sha256_of

    parser = Parser("supernet pull", description="Then set oracle.checkpoint to its name.")
    parser.add_argument("name", help=", ".join(PUBLISHED))
    parser.add_argument("--from", dest="url", metavar="URL", help="another place that has the same file")
    parser.add_argument("--sha256", metavar="HEX", help="what the file must be, if you know (none is published)")
    given = parser.parse_args(arguments)
    with bar("downloading", "KiB") as advance:
        path = pull(
            given.name,
            lambda line: print(line, file=sys.stderr, flush=True),
            url=given.url,
            sha256=None if given.sha256 is None else given.sha256.lower(),
            check=_check_published,
            report=lambda done, total: advance(done >> 10, (total or done) >> 10, ""),
        )
    data = {"checkpoint": given.name, "file": str(path), "sha256": sha256_of(path)}
    emit(options, data, f"{path}: SHA-256 {data['sha256']}; set oracle.checkpoint = {given.name}")
    return 0


def _check_published(path: Path, net: Published) -> None:
    from riwoa.oracle.supernet import Supernet

    Supernet.load(path, net.width_mult, net.settings["n_classes"])


def _train(arguments: list[str], options: Options) -> int:
    description = "Sandwich rule with distillation; reproducible by seed at a fixed thread count."
    parser = Parser("supernet train", description=description)
    parser.add_argument("data", choices=["digits"], help="the task")
    out_help = "the weights (default: ./digits_supernet.safetensors)"
    parser.add_argument("--out", type=Path, default=Path("digits_supernet.safetensors"), metavar="FILE", help=out_help)
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    for name in ("steps", "threads"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if given.seed < 0:
        parser.error("--seed must not be negative")
    import torch

    from riwoa.oracle.training import Progress, Recipe, train_supernet

    torch.set_num_threads(given.threads)
    recipe = Recipe(seed=given.seed) if given.steps is None else Recipe(seed=given.seed, steps=given.steps)
    with bar("training", "step") as advance:

        def progress(p: Progress) -> None:
            advance(p.step, p.steps, f"loss {p.loss_largest:.3f}, distilled {p.loss_distilled:.3f}")

        try:
            train_supernet(recipe, given.out, progress=progress)
        except OSError as error:
            raise StateDirectoryError(f"cannot write {given.out} ({error.strerror}); name another --out") from None
    data = {"checkpoint": str(given.out), "steps": recipe.steps, "seed": recipe.seed}
    emit(options, data, f"{given.out}: trained for {recipe.steps} steps; riwoactl supernet check --checkpoint it")
    return 0


def _check(arguments: list[str], options: Options) -> int:
    description = "Recalibrated float32 accuracies: is there something to find for a search?"
    parser = Parser("supernet check", description=description)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the supernet inside the package")
    parser.add_argument("--random", type=int, default=15, metavar="N", help="random subnets (default 15)")
    parser.add_argument("--seed", type=int, default=0, help="of the random subnets")
    parser.add_argument("--views", type=int, default=8, help="corrupted views of each image (default 8, as a search)")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if min(given.random, given.views, given.threads) < 1:
        parser.error("--random, --views and --threads must be at least 1")
    import torch

    torch.set_num_threads(given.threads)
    with bar("evaluating", "subnet") as advance:
        data = check(given.checkpoint, given.random, given.seed, given.views, lambda d, t: advance(d, t, ""))
    emit(options, data, render(data))
    return 0


def check(
    checkpoint: Path | None, count: int, seed: int, views: int, progress: Report = lambda done, total: None
) -> dict[str, Any]:
    """Accuracies of the largest, the smallest and ``count`` random subnets on every split.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    import numpy as np

    from riwoa.oracle.build import checkpoint_path
    from riwoa.oracle.mobilenet import mobilenet_space, ofa_config
    from riwoa.oracle.protocol import SupernetSpec
    from riwoa.oracle.supernet import Supernet
    from riwoa.search.codec import Codec
    from riwoa.search.rng import generator

    spec = SupernetSpec(checkpoint=str(checkpoint) if checkpoint else None)
    path = checkpoint_path(spec)
    evaluators = _evaluators(Supernet.load(path, spec.width_mult, spec.n_classes), views)
    space = mobilenet_space(evaluators["validation"].resolutions)
    codec = Codec(space, seed)
    extremes = np.array([[len(g.choices) - 1 for g in space.genes], [0 for _ in space.genes]])
    vectors = generator(seed, 0, "supernet.check").random((count, codec.dimension))
    rows = [*extremes, *codec.decode(vectors)]
    found: list[dict[str, float]] = []
    for i, indices in enumerate(rows):
        config = ofa_config(space.architecture(indices))
        evaluations = {split: evaluators[split].evaluate(config) for split in _SPLITS}
        found.append({split: evaluation["accuracy"] for split, evaluation in evaluations.items()})
        progress(i + 1, len(rows))
    images = evaluations["validation"]["images"]
    largest = found[0]
    median = {split: statistics.median(row[split] for row in found[2:]) for split in _SPLITS}
    lead = largest["validation"] - median["validation"]
    error = (sum(a * (1 - a) for a in (largest["validation"], median["validation"])) / images) ** 0.5
    return {
        "checkpoint": str(path),
        "random_subnets": count,
        "accuracy": {"largest": largest, "median_random": median, "smallest": found[1]},
        "random": found[2:],
        "lead": lead,
        "lead_standard_errors": lead / error if error else None,
    }


def _evaluators(supernet: Supernet, views: int) -> Mapping[str, SubnetEvaluator]:
    """One a split, at every resolution."""
    from riwoa.oracle.data import load_digits_task
    from riwoa.oracle.evaluator import SubnetEvaluator

    task = load_digits_task()
    recalibration = {r: task.recalibration(r) for r in task.resolutions}
    pictures = {
        "validation": {r: task.views("validation", r, views) for r in task.resolutions},
        "test": {r: task.views("test", r, views) for r in task.resolutions},
        "clean": {r: task.clean("test", r) for r in task.resolutions},
    }
    return {
        split: SubnetEvaluator(supernet, recalibration, images, prefix_cache_bytes=0)
        for split, images in pictures.items()
    }


def render(data: dict[str, Any]) -> str:
    """The accuracies as a table, and what they mean for a search."""
    rows = [["", *(_SPLITS)]]
    for name, accuracies in data["accuracy"].items():
        rows.append([name.replace("_", " "), *(f"{100 * accuracies[split]:.2f} %" for split in _SPLITS)])
    errors = data["lead_standard_errors"]
    lead = f"the largest leads the median of {data['random_subnets']} random subnets by {100 * data['lead']:.2f} points"
    return f"{data['checkpoint']}\n{columns(rows)}\n{lead}" + (f", {errors:.1f} standard errors" if errors else "")
