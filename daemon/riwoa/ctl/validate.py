"""``riwoactl validate cifar100``: what the found network is worth when it is trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, pixels, subverb
from riwoa.limits import whole_cores
from riwoa.parsing import parse_json

if TYPE_CHECKING:
    from argparse import Namespace

    from riwoa.supernet.geometry import Backbone, Stem
    from riwoa.validate.settings import Settings

_KNOWN = {"cifar100": "test accuracy, and accuracy on CIFAR-100-C"}
_DESCRIPTION = """Search on CIFAR-100 (or take the winner of --state, or --architecture), retrain the winner from
scratch on all training images, and judge it on the test images and on CIFAR-100-C: the published archive, or the same
fifteen corruptions made here. Beside it, as controls: the largest subnet and a random one as slow as the winner,
retrained alike, and the winner with the supernet's own weights. Killed at any moment and run again, it continues."""
# The whole protocol in some minutes on two cores; what it reaches is no result.
_SMOKE_RECIPE: dict[str, Any] = {
    "epochs": 4,
    "training_images": 20_000,
    "batch_images": 64,
    "learning_rate": 0.1,
    "warmup_epochs": 0.2,
    "label_smoothing": 0.0,
    "padding_px": 2,
    "ema": 0.99,
    "recalibration_images": 2000,
}
_SMOKE_IMAGES = 200
_SMOKE_TRAINING = ("--minutes", "1.5", "--batch", "64", "--random", "1", "--threads", "2")
_SMOKE_SEARCH: dict[str, Any] = {
    "run.generations": 3,
    "run.polish_evaluations": 8,
    "search.population": 10,
    "oracle.recalibration_images": 400,
    "latency.repeats": 60,
    "cognition.provider": "none",
}
# Width, strides and resolutions of a supernet that is trained here. In a short training OFA's own strides at 32 px are
# worth more than small ones at 16 px: after 20,000 images both are at 10.3 %, after 29 and 46 s of one core.
_SUPERNET: tuple[float, Stem, tuple[int, ...]] = (0.5, "small", (24, 28, 32))
_SMOKE_SUPERNET: tuple[float, Stem, tuple[int, ...]] = (0.25, "imagenet", (28, 32))
_GPU_THREADS = 4  # of a process that only feeds a GPU


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Run the protocol, or go on with it."""
    subverb(verb, arguments, _KNOWN)
    parser = _parser()
    given = parser.parse_args(arguments[1:])
    _check(parser, given)
    from riwoa.validate.job import STAGES, Job

    if given.only is not None and given.only not in STAGES:
        parser.error(f"--only {given.only}: choose from {', '.join(STAGES)}")
    data = Job(given.out, settings(given, options), given.jobs, bar).run(given.only)
    if data is None:
        emit(options, {"out": str(given.out), "only": given.only}, f"{given.out}: {given.only} is done")
    else:
        emit(options, data, f"{render(data)}\n\n{given.out}/report.json, report.svg")
    return 0


def _parser() -> Parser:
    parser = Parser("validate cifar100", description=_DESCRIPTION)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the work directory; the same one goes on")
    add("--data", type=Path, required=True, metavar="FILE", help="cifar-100-python.tar.gz")
    add("--supernet", type=Path, metavar="FILE", help="a trained checkpoint (default: trains one in --out)")
    add("--architecture", type=Path, metavar="FILE.json", help="skip the search; the export's file, or bare")
    add("--table", type=Path, metavar="FILE", help="latency table (default: the search's); none: equal multiply-adds")
    add("--preset", choices=["full", "smoke"], default="full", help="smoke: minutes on two cores, no results")
    add("--width", type=float, metavar="W", help="width multiplier (default: the checkpoint's, else 0.5; smoke 0.25)")
    add("--stem", choices=["small", "imagenet"], help="strides (default: the checkpoint's, else small; smoke imagenet)")
    add(
        "--resolutions",
        type=pixels,
        metavar="PX,PX",
        help="in pixels (default: the checkpoint's, else 24,28,32; smoke 28,32)",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a configuration key of the search")
    add("--controls", action="store_true", default=True, help="with the controls (default)")
    add("--no-controls", action="store_false", dest="controls", help="the winner alone")
    add("--corrupted", type=Path, metavar="DIR", help="the published CIFAR-100-C: <corruption>.npy and labels.npy")
    add("--frost", type=Path, metavar="DIR", help="frost1.png to frost5.jpg of the published set (default: made here)")
    add("--images", type=int, metavar="N", help="corrupt the first N test images (default all; smoke 200)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, metavar="N", help="of a training, whose last bits they decide (default 1; GPU 4)")
    jobs = whole_cores()
    add("--jobs", type=int, default=jobs, metavar="N", help="processes that make corruptions; on a GPU, retrain")
    add("--seed", type=int, default=0)
    add(
        "--only", metavar="STAGE", help="supernet, search, choose, retrain:winner, retrain:largest, retrain:random, ..."
    )
    recipe = parser.add_argument_group("retraining")
    for name, (kind, words) in _RECIPE.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=words)
    recipe.add_argument("--no-flip", action="store_false", dest="flip", default=None, help="never mirror images")
    return parser


_RECIPE: dict[str, tuple[type, str]] = {
    "epochs": (int, "default 100"),
    "batch_images": (int, "default 512"),
    "learning_rate": (float, "default 0.2; SGD, Nesterov, a cosine to zero"),
    "warmup_epochs": (float, "default 3"),
    "momentum": (float, "default 0.9"),
    "weight_decay": (float, "default 5e-4"),
    "label_smoothing": (float, "default 0.1"),
    "padding_px": (int, "default 4, cropped to 32 px again"),
    "cutout_px": (int, "default 0: none"),
    "ema": (float, "default 0.999, of the weights"),
}


def _check(parser: Parser, given: Namespace) -> None:
    """Refuse numbers that mean nothing, before anything is read."""
    least = {"epochs": 1, "batch_images": 2, "padding_px": 0, "cutout_px": 0, "images": 1, "threads": 1, "jobs": 1}
    least |= {"seed": 0, "warmup_epochs": 0, "momentum": 0, "weight_decay": 0, "label_smoothing": 0, "ema": 0}
    for name, bound in least.items():
        value = getattr(given, name)
        if value is not None and not value >= bound:
            parser.error(f"--{name.replace('_', '-')} must be at least {bound}")
    for name in ("momentum", "label_smoothing", "ema"):
        if (value := getattr(given, name)) is not None and not value < 1:
            parser.error(f"--{name.replace('_', '-')} must be less than 1")
    for name in ("learning_rate", "width"):
        if (value := getattr(given, name)) is not None and not 0 < value <= 100:
            parser.error(f"--{name.replace('_', '-')} must be positive, at most 100")
    if given.resolutions is not None and not 8 <= min(given.resolutions) <= max(given.resolutions) <= 256:
        parser.error("--resolutions must be of 8 to 256 pixels")
    if given.architecture is not None and given.set:
        parser.error("--set is of the search, which --architecture skips")


def settings(given: Namespace, options: Options) -> Settings:
    """What the job is to do, paths made absolute and "auto" resolved.

    Raises:
        InputError: a file that was named is not there, or not what it should be.
    """
    from riwoa.validate.job import read_architecture
    from riwoa.validate.retrain import Recipe
    from riwoa.validate.settings import Settings

    smoke = given.preset == "smoke"
    device = _device(given.device)
    backbone, resolutions = _supernet(given, smoke)
    seeds = {"seed": given.seed}
    changed = {f.name: getattr(given, f.name, None) for f in fields(Recipe)} | seeds
    recipe = replace(Recipe(), **(_SMOKE_RECIPE if smoke else {}))
    sizes = ["--width", str(backbone.width_mult), "--stem", backbone.stem]
    sizes += ["--resolutions", ",".join(map(str, resolutions))]
    paths = ("supernet", "table", "corrupted", "frost")
    return Settings(
        data=str(given.data.absolute()),
        **{name: _absolute(getattr(given, name)) for name in paths},
        supernet_options=(*sizes, "--seed", str(given.seed), *(_SMOKE_TRAINING if smoke else ())),
        architecture=None if given.architecture is None else read_architecture(given.architecture),
        state=_absolute(options.state),
        backbone=backbone,
        resolutions=resolutions,
        search={**(_SMOKE_SEARCH if smoke else {}), **_search_keys(given.set)},
        recipe=replace(recipe, **{name: value for name, value in changed.items() if value is not None}),
        controls=given.controls,
        images=given.images or (_SMOKE_IMAGES if smoke else None),
        device=device,
        threads=given.threads or (_GPU_THREADS if device == "cuda" else 1),
        seed=given.seed,
    )


def _supernet(given: Namespace, smoke: bool) -> tuple[Backbone, tuple[int, ...]]:
    """Widths, strides and resolutions: as the command line says, else as the checkpoint's recipe does."""
    from riwoa.errors import InputError
    from riwoa.supernet.checkpoint import is_safetensors
    from riwoa.supernet.geometry import Backbone
    from riwoa.supernet.recipe import read_recipe

    width, stem, resolutions = _SMOKE_SUPERNET if smoke else _SUPERNET
    backbone = Backbone(width, 100, stem)
    if given.supernet is not None and is_safetensors(given.supernet):
        try:
            recipe = read_recipe(given.supernet)
            backbone, resolutions = Backbone(recipe.width_mult, 100, recipe.stem), recipe.resolutions
        except InputError as error:
            if "carries no" not in str(error):
                raise
    named = {"width_mult": given.width, "stem": given.stem}
    backbone = replace(backbone, **{name: value for name, value in named.items() if value is not None})
    return backbone, given.resolutions or resolutions


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _search_keys(given: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as the daemon takes them: a value that is no JSON is a string."""
    found: dict[str, Any] = {}
    for pair in given:
        key, _, value = pair.partition("=")
        try:
            found[key] = parse_json(value)
        except ValueError:
            found[key] = value
    return found


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def render(data: Mapping[str, Any]) -> str:
    """The tables, and where the corrupted images come from."""
    from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES
    from riwoa.validate.report import told_source

    networks = data["networks"]
    sizes = [["network", "what it is", "test", "mCE", "latency", "multiply-adds", "parameters", "input"]]
    for name, network in networks.items():
        latency = "" if network["latency_ms"] is None else f"{network['latency_ms']:.3f} ms"
        cost = [latency, f"{network['macs']:,}", f"{network['parameters']:,}", f"{network['resolution']} px"]
        sizes.append([name, network["role"], _percent(network["test"]["accuracy"]), _percent(network["mce"]), *cost])
    rows = [["accuracy", *networks]]
    rows += [[c, *(_percent(n["corruption_accuracy"][c]) for n in networks.values())] for c in CORRUPTIONS]
    rows += [["all fifteen", *(_percent(n["mean_corruption_accuracy"]) for n in networks.values())]]
    rows += [
        [f"severity {s}", *(_percent(n["severity_accuracy"][s - 1]) for n in networks.values())] for s in SEVERITIES
    ]
    return f"{columns(sizes)}\n\n{columns(rows)}\n\n{told_source(data)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
