"""``riwoactl supernet pull | train | check | rank``."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar, say
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, pixels, subverb
from riwoa.errors import InputError
from riwoa.files.ownership import json_object, output_file, safetensors_notes, unwritable

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask
    from riwoa.datasets.spec import DataSpec
    from riwoa.supernet.evaluator import SubnetEvaluator
    from riwoa.supernet.network import Supernet
    from riwoa.supernet.published import Published
    from riwoa.supernet.recipe import Recipe
    from riwoa.supernet.spec import SupernetSpec

_KNOWN = {
    "pull": "fetch a supernet that OFA's authors published; interrupted and run again, it continues",
    "train": "train a supernet on digits, cifar100 or your own pictures; killed and run again, it continues",
    "check": "accuracies of the largest, the median random and the smallest subnet",
    "rank": "whether inherited weights rank a few subnets as training each one alone does",
}
_DATA = "digits, cifar100 (looked for in $RIWOA_DATA and here), or the path of its archive, of pictures or an .npz file"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to pull, train, check or rank."""
    name = subverb(verb, arguments, _KNOWN)
    return {"pull": _pull, "train": _train, "check": _check, "rank": _rank}[name](arguments[1:], options)


def _pull(arguments: list[str], options: Options) -> int:
    from riwoa.supernet.fetch import pull
    from riwoa.supernet.published import PUBLISHED, sha256_of

    parser = Parser("supernet pull", description="Then set oracle.supernet.checkpoint to its name.")
    parser.add_argument("name", help=", ".join(PUBLISHED))
    parser.add_argument("--from", dest="url", metavar="URL", help="another place that has the same file")
    parser.add_argument("--sha256", metavar="HEX", help="what the file must be, if you know (none is published)")
    given = parser.parse_args(arguments)
    with bar("downloading", "KiB") as advance:
        path = pull(
            given.name,
            say,
            url=given.url,
            sha256=None if given.sha256 is None else given.sha256.lower(),
            check=_check_published,
            report=lambda done, total: advance(done >> 10, (total or done) >> 10, ""),
        )
    data = {"checkpoint": given.name, "file": str(path), "sha256": sha256_of(path)}
    emit(options, data, f"{path}: SHA-256 {data['sha256']}; set oracle.supernet.checkpoint = {given.name}")
    return 0


def _check_published(path: Path, net: Published) -> None:
    from riwoa.supernet.network import Supernet

    Supernet.load(path, net.width_mult, net.settings["n_classes"])


def _train(arguments: list[str], options: Options) -> int:
    description = "Sandwich rule with distillation; reproducible by seed at a fixed thread count and device."
    parser = Parser("supernet train", description=description)
    parser.add_argument("data", help=_DATA)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the weights (default: ./DATA_supernet.safetensors)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    length.add_argument("--epochs", type=int, help="instead: how often every image is met")
    length.add_argument("--minutes", type=float, help="instead: as many steps as fit, by the speed of the first")
    parser.add_argument("--width", type=float, help="width multiplier (default: the recipe's, as all that follow)")
    parser.add_argument("--resolutions", type=pixels, metavar="PX,PX", help="input sizes, such as 24,28,32")
    parser.add_argument("--stem", choices=["small", "imagenet"], help="strides: small is for pictures of some 32 px")
    parser.add_argument("--batch", type=int, metavar="N", help="images a step")
    parser.add_argument("--random", type=int, metavar="N", help="random subnets a step, besides the two extreme ones")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="of SGD, at its highest")
    precisions = ["auto", "float32", "bfloat16"]
    parser.add_argument("--precision", choices=precisions, default="auto", help="auto = bfloat16 on a GPU alone")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="try cuDNN's algorithms; not reproducible")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and subnets (default: 0)")
    _add_machine(parser)
    given = parser.parse_args(arguments)
    _check_numbers(parser, given)
    from riwoa.datasets.spec import DataSpec
    from riwoa.supernet.recipe import CIFAR100

    sizes = given.resolutions or CIFAR100.resolutions
    task = _task(given.data, parser, DataSpec(n_classes=0, resolutions=sizes, data_rules=2))
    device = _device(given)
    import torch

    from riwoa.supernet.recipe import read_recipe
    from riwoa.supernet.training import TrainingProgress, train_supernet

    torch.backends.cudnn.benchmark = given.cudnn_benchmark
    recipe = _recipe(task, given, device)
    if recipe.minutes and recipe.largest_only_steps:
        parser.error("--minutes needs steps that take alike, and the first of this recipe are cheaper; give --steps")
    name = given.data if given.data in ("digits", "cifar100") else Path(given.data).name.partition(".")[0]
    out = given.out or Path(f"{name}_supernet.safetensors")
    place = output_file(
        out,
        "a supernet that riwoa trained",
        lambda path: "recipe" in safetensors_notes(path),
        inputs=[given.data],
    )
    with bar("training", "step") as advance:

        def progress(p: TrainingProgress) -> None:
            words = f"loss {p.loss_largest:.3f}, distilled {p.loss_distilled:.3f}, {p.images_per_s:,.0f} images/s"
            advance(p.step, p.steps, words)  # with --minutes there are no steps to show before the pace is known

        try:
            train_supernet(recipe, place, task=task, device=device, progress=progress)
        except OSError as error:
            raise unwritable(out, error, "name another --out") from None
    steps = read_recipe(out).steps
    data = {"checkpoint": str(out), "steps": steps, "seed": recipe.seed}
    judge = f"riwoactl supernet check --data {given.data} --checkpoint {out}"
    emit(options, data, f"{out}: trained for {steps} steps; what its subnets reach: {judge}")
    return 0


def _recipe(task: ImageTask, given: Namespace, device: str) -> Recipe:
    """The task's own recipe with what the command line changes."""
    from riwoa.datasets.digits import DigitsTask
    from riwoa.supernet.batches import steps_per_epoch, training_labels
    from riwoa.supernet.recipe import CIFAR100, DIGITS

    recipe = DIGITS
    if not isinstance(task, DigitsTask):
        training_labels(task)  # whether there are any
        recipe = replace(CIFAR100, n_classes=len(task.class_names))
    named = {
        "steps": given.steps,
        "minutes": given.minutes,
        "width_mult": given.width,
        "resolutions": given.resolutions,
        "stem": given.stem,
        "batch_images": given.batch,
        "random_subnets": given.random,
        "learning_rate": given.learning_rate,
        "seed": given.seed,
    }
    recipe = replace(recipe, **{name: value for name, value in named.items() if value is not None})
    half = given.precision == "bfloat16" or (given.precision == "auto" and device == "cuda")
    recipe = replace(recipe, precision="bfloat16" if half else "float32")
    if given.epochs is not None:
        recipe = replace(recipe, steps=given.epochs * steps_per_epoch(task, recipe))
    return recipe


def _check(arguments: list[str], options: Options) -> int:
    description = "Recalibrated float32 accuracies: is there something to find for a search?"
    parser = Parser("supernet check", description=description)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the supernet inside the package")
    parser.add_argument("--data", default="digits", help=_DATA)
    parser.add_argument("--random", type=int, default=15, metavar="N", help="random subnets (default 15)")
    parser.add_argument("--seed", type=int, default=0, help="of the random subnets")
    parser.add_argument("--views", type=int, default=8, help="corrupted views of each digit (default 8, as a search)")
    _add_machine(parser)
    given = parser.parse_args(arguments)
    _check_numbers(parser, given)
    supernet, recipe = _supernet(given.checkpoint)
    from riwoa.supernet.lead import judged_lead
    from riwoa.supernet.ranking import known_agreement

    task = _task(given.data, parser, _judged_by(supernet, recipe))
    device = _device(given)
    with bar("evaluating", "subnet") as advance:
        evaluators = _evaluators(supernet, recipe.resolutions, task, given.views, device)
        data = judged_lead(evaluators, given.random, given.seed, lambda d, t: advance(d, t, ""))
    data = {"checkpoint": str(_path(given.checkpoint)), **data, "rank": known_agreement(_rank_file(given.checkpoint))}
    emit(options, data, render(data))
    return 0


def _supernet(checkpoint: Path | None) -> tuple[Supernet, Recipe]:
    path = _path(checkpoint)
    from riwoa.supernet.training import load_trained

    return load_trained(path)


def _path(checkpoint: Path | None) -> Path:
    from riwoa.oracle.supernet_oracle import checkpoint_path
    from riwoa.supernet.spec import SupernetSpec

    return checkpoint_path(SupernetSpec(checkpoint=str(checkpoint) if checkpoint else None))


def _rank_file(checkpoint: Path | None) -> Path:
    """Where ``rank`` writes what it found, and ``check`` looks for it."""
    return Path(f"{_path(checkpoint).stem}.rank.json")


def _judged_by(supernet: Supernet, recipe: Recipe) -> SupernetSpec:
    """What a data set must know of a supernet: a folder's classes are counted, its images decoded at these sizes."""
    from riwoa.supernet.spec import SupernetSpec

    return SupernetSpec(n_classes=supernet.backbone.n_classes, resolutions=recipe.resolutions, data_rules=2)


def _evaluators(
    supernet: Supernet, resolutions: Sequence[int], task: ImageTask, views: int, device: str
) -> Mapping[str, SubnetEvaluator]:
    """One a split with labels, and one of clean digits, at every resolution."""
    from riwoa.datasets.catalogue import check_every_split
    from riwoa.datasets.digits import DigitsTask
    from riwoa.supernet.evaluator import SubnetEvaluator
    from riwoa.supernet.spec import SupernetSpec

    check_every_split(task, SupernetSpec(n_classes=supernet.backbone.n_classes, data_rules=2))
    n_images = SupernetSpec().recalibration_images
    recalibration = {r: task.recalibration(r, n_images) for r in resolutions}
    pictures = {split: {r: task.views(split, r, views) for r in resolutions} for split in task.splits[1:]}
    if isinstance(task, DigitsTask):
        pictures = {**pictures, "clean": {r: task.clean("test", r) for r in resolutions}}  # type: ignore[dict-item]
    return {
        split: SubnetEvaluator(supernet, recalibration, images, prefix_cache_bytes=0, device=device)
        for split, images in pictures.items()
    }


def render(data: dict[str, Any]) -> str:
    """The accuracies as a table, and what they mean for a search."""
    splits = list(data["accuracy"]["largest"])
    from riwoa.supernet.lead import lead_line

    rows = [["", *splits]]
    for name, accuracies in data["accuracy"].items():
        rows.append([name.replace("_", " "), *(f"{100 * accuracies[split]:.2f} %" for split in splits)])
    ranks = f"\n{_rank_line(data['rank'])}" if data.get("rank") else ""
    return f"{data['checkpoint']}\n{columns(rows)}\n{lead_line(data)}{ranks}"


def _rank(arguments: list[str], options: Options) -> int:
    description = "Trains random subnets from scratch; killed and run again, it continues."
    parser = Parser("supernet rank", description=description)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the supernet inside the package")
    parser.add_argument("--data", default="digits", help=_DATA)
    parser.add_argument("--subnets", type=int, default=10, metavar="N", help="random subnets (default 10)")
    parser.add_argument("--epochs", type=int, default=10, help="of each one's training (default 10)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the results (default: ./CHECKPOINT.rank.json)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice, the weights and the training")
    _add_machine(parser)
    given = parser.parse_args(arguments)
    _check_numbers(parser, given)
    supernet, recipe = _supernet(given.checkpoint)
    task = _task(given.data, parser, _judged_by(supernet, recipe))
    device = _device(given)
    from riwoa.datasets.catalogue import check_task
    from riwoa.supernet.lead import drawn_subnets
    from riwoa.supernet.ranking import RankSettings, rank
    from riwoa.supernet.spec import SupernetSpec
    from riwoa.supernet.training import TrainingProgress

    check_task(task, SupernetSpec(n_classes=supernet.backbone.n_classes, data_rules=2))
    settings = RankSettings(
        recipe=recipe,
        weights_sha256=supernet.weights_sha256(),
        data_sha256=task.sha256,
        epochs=given.epochs,
        seed=given.seed,
        recalibration_images=SupernetSpec().recalibration_images,
        device=device,
    )
    configs = drawn_subnets(recipe.resolutions, given.subnets, given.seed)[2:]  # extremes would flatter the correlation
    out = given.out or _rank_file(given.checkpoint)
    place = output_file(
        out,
        "a rank check",
        lambda path: {"settings", "subnets"} <= json_object(path).keys(),
        inputs=[given.checkpoint, given.data],
    )
    with bar("training", "step") as advance:

        def progress(done: int, p: TrainingProgress) -> None:
            advance(done * p.steps + p.step, len(configs) * p.steps, f"subnet {done + 1}, loss {p.loss_largest:.3f}")

        try:
            found = rank(supernet, task, settings, configs, place, progress)
        except OSError as error:
            raise unwritable(out, error, "name another --out") from None
    data = {"checkpoint": str(_path(given.checkpoint)), "results": str(out), "epochs": given.epochs, **found}
    emit(options, data, render_rank(data))
    return 0


def render_rank(data: dict[str, Any]) -> str:
    """Both accuracies of every subnet, the best trained one first, and how alike they rank."""
    rows = [["resolution", "MACs", "inherited", "trained alone"]]
    for row in sorted(data["subnets"], key=lambda row: -row["standalone"]):
        accuracies = (f"{100 * row[name]:.2f} %" for name in ("inherited", "standalone"))
        rows.append([f"{row['r'][0]} px", f"{row['macs'] / 1e6:.1f} M", *accuracies])
    told = f"{data['checkpoint']}, epochs of each training: {data['epochs']}"
    return f"{told}\n{columns(rows)}\n{_rank_line(data)}"


def _rank_line(found: Mapping[str, Any]) -> str:
    if found["spearman"] is None:
        return "too few subnets, or accuracies all equal: no rank correlation"
    words = (f"{name.title()} {found[name]:.3f} (p = {found[name + '_p']:.2g})" for name in ("spearman", "kendall"))
    return f"rank correlation with training alone over {found['n']} subnets: {', '.join(words)}"


# --- what the verbs share --------------------------------------------------------------------------------------------


def _add_machine(parser: Parser) -> None:
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto = a GPU if there is one"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")


def _check_numbers(parser: Parser, given: Namespace) -> None:
    """Refuse counts below 1 and lengths of nothing before anything is loaded."""
    for name, value in vars(given).items():
        least = 0 if name in ("seed", "random") and not (name == "random" and "views" in given) else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            parser.error(f"--{name} must be at least {least}")
        if isinstance(value, float) and not 0 < value < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be more than 0")


def _task(data: str, parser: Parser, spec: DataSpec) -> ImageTask:
    """What the command line names, prepared for what ``spec`` says of it.

    Raises:
        UsageError: no known name and no path.
        InputError: nothing of that name is here, or it is damaged.
    """
    from riwoa.datasets.catalogue import load_task, task_of
    from riwoa.datasets.cifar import ARCHIVE, find_cifar100

    if data == "cifar100":
        folder = os.environ.get("RIWOA_DATA")
        places = [*([Path(folder), Path(folder, "cifar-100")] if folder else []), Path()]
        found = next((place for place in places if find_cifar100(place)), None)
        if found is None:
            raise InputError(f"{ARCHIVE} is neither in $RIWOA_DATA nor here; name its path instead of cifar100")
        return load_task(str(found))
    if data != "digits" and not Path(data).exists():
        parser.error(f"there is no data {data!r}; name {_DATA}")
    return task_of(replace(spec, data=data))


def _device(given: Namespace) -> str:
    """The device, and torch held to the threads.

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    import torch

    torch.set_num_threads(given.threads)
    present = torch.cuda.is_available()
    if given.device == "cuda" and not present:
        raise InputError("torch finds no CUDA GPU here; leave --device out")
    return "cuda" if present and given.device != "cpu" else "cpu"
