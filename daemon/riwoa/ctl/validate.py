"""``riwoactl validate cifar100``: what the found network is worth when it is trained from scratch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.ctl import Options
from riwoa.ctl.bar import bar
from riwoa.ctl.command import Parser, columns, emit, subverb

if TYPE_CHECKING:
    from argparse import Namespace

    from riwoa.validate.job import Settings

_KNOWN = {"cifar100": "test accuracy, and accuracy on CIFAR-100-C"}
_DESCRIPTION = """Search on CIFAR-100 (or take the winner of --state, or --architecture), retrain the winner from scratch
on all 50,000 training images, and judge it on the test images and on CIFAR-100-C: the published archive, or the same
fifteen corruptions made here. Beside it, as controls: the largest subnet and a random one as slow as the winner,
retrained alike, and the winner with the supernet's own weights. Killed at any moment and run again, it continues."""
# What `smoke` changes: the whole protocol in minutes on two cores. Its accuracies are no results.
_SMOKE_RECIPE: dict[str, Any] = {}


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
    add("--width", type=float, metavar="W", help="width multiplier of the supernet (default 1; smoke 0.35)")
    add("--stem", choices=["small", "imagenet"], default="small", help="strides of the supernet (default small)")
    add("--resolutions", metavar="LIST", help="input resolutions in pixels, by commas (default 24,28,32; smoke 32)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a configuration key of the search")
    add("--controls", action="store_true", default=True, help="with the controls (default)")
    add("--no-controls", action="store_false", dest="controls", help="the winner alone")
    add("--corrupted", type=Path, metavar="DIR", help="the published CIFAR-100-C: <corruption>.npy and labels.npy")
    add("--frost", type=Path, metavar="DIR", help="frost1.png to frost5.jpg of the published set (default: made here)")
    add("--images", type=int, metavar="N", help="corrupt the first N test images (default all; smoke 200)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, metavar="N", help="of a training on a CPU; decides its last bits (default: all cores)")
    jobs = len(os.sched_getaffinity(0))
    add("--jobs", type=int, default=jobs, metavar="N", help="processes that make corruptions; on a GPU, retrain")
    add("--seed", type=int, default=0)
    add("--only", metavar="STAGE", help="supernet, search, choose, retrain:winner, retrain:largest, retrain:random, ...")
    recipe = parser.add_argument_group("retraining")
    for name, (kind, words) in _RECIPE.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=words)
    recipe.add_argument("--no-flip", action="store_false", dest="flip", default=None, help="never mirror images")
    return parser


_RECIPE: dict[str, tuple[type, str]] = {
    "epochs": (int, "default 100"),
    "batch_images": (int, "default 256"),
    "learning_rate": (float, "default 0.1; SGD, Nesterov, a cosine to zero"),
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
    if given.architecture is not None and given.set:
        parser.error("--set is of the search, which --architecture skips")


def settings(given: Namespace, options: Options) -> Settings:
    """What the job is to do, paths made absolute and "auto" resolved.

    Raises:
        InputError: a file that was named is not there, or not what it should be.
    """
    from riwoa.validate.job import Settings, read_architecture

    smoke = given.preset == "smoke"
    device = given.device if given.device != "auto" else _device()
    cores = len(os.sched_getaffinity(0))
    named = {name: _absolute(getattr(given, name)) for name in ("supernet", "table", "corrupted", "frost")}
    return Settings(
        data=str(given.data.absolute()),
        **named,
        supernet_options=_supernet_options(given, device, smoke),
        architecture=None if given.architecture is None else read_architecture(given.architecture),
        state=_absolute(options.state),
        backbone=_backbone(given, smoke),
        resolutions=_resolutions(given, smoke),
        search=_search_keys(given, smoke),
        recipe=_recipe(given, smoke),
        controls=given.controls,
        images=given.images if given.images is not None else 200 if smoke else None,
        device=device,
        threads=given.threads or (4 if device == "cuda" else cores),
        seed=given.seed,
    )
