"""``riwoactl validate``: what the found network is worth when it is trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, pixels, subverb
from riwoa.limits import whole_cores
from riwoa.parsing import parse_json
from riwoa.paths import client_state

if TYPE_CHECKING:
    from argparse import Namespace

    from riwoa.supernet.geometry import Stem
    from riwoa.validate.recipes import Retraining
    from riwoa.validate.settings import Settings

_CIFAR100 = "cifar100"
_DESCRIPTION = """Takes the winner of the finished search in --state (or searches on --data, or takes --architecture),
retrains it from scratch on all its training pictures, and judges it on the test pictures and on fifteen corruptions of
them. Beside it, as controls: the largest subnet and a random one as slow as the winner, retrained alike, and the winner
with the supernet's own weights. `riwoactl validate cifar100` searches on CIFAR-100, by a protocol of its own. Killed at
any moment and run again, it continues."""
# All of it in some minutes on two cores; what it reaches is no result.
_SMOKE_EPOCHS, _SMOKE_TRAINING_IMAGES, _SMOKE_RECALIBRATION_IMAGES, _SMOKE_IMAGES = 4, 20_000, 2000, 200
_SMOKE_TRAINING = ("--minutes", "1.5", "--batch", "64", "--random", "1", "--threads", "2")
_SMOKE_SEARCH: dict[str, Any] = {
    "run.generations": 8,
    "run.polish_evaluations": 8,
    "search.riwoa.first": 16,
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
    named = bool(arguments) and not arguments[0].startswith("-")
    if named:
        subverb(verb, arguments, {_CIFAR100: ""})
    parser = _parser(named)
    given = parser.parse_args(arguments[named:])
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


def _parser(cifar100: bool) -> Parser:
    parser = Parser("validate cifar100" if cifar100 else "validate", description=_DESCRIPTION)
    parser.set_defaults(cifar100=cifar100)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the work directory; the same one goes on")
    if cifar100:
        add("--data", type=Path, required=True, metavar="FILE", help="cifar-100-python.tar.gz")
    else:
        add("--data", type=Path, metavar="PATH", help="search on these pictures: a folder, an .npz, digits")
    add("--supernet", type=Path, metavar="FILE", help="a trained checkpoint (default: the search's, else trained here)")
    add("--architecture", type=Path, metavar="FILE.json", help="skip the search; the export's file, or bare")
    add("--table", type=Path, metavar="FILE", help="latency table (default: the search's); none: equal multiply-adds")
    add("--preset", choices=["full", "smoke"], default="full", help="smoke: minutes on two cores, no results")
    add("--width", type=float, metavar="W", help="width multiplier (default: the checkpoint's, or as trained)")
    add("--stem", choices=["small", "imagenet"], help="strides (default: as the width's)")
    add("--resolutions", type=pixels, metavar="PX,PX", help="in pixels (default: as the width's)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a configuration key of the search")
    add("--controls", action="store_true", default=True, help="with the controls (default)")
    add("--no-controls", action="store_false", dest="controls", help="the winner alone")
    add("--corrupted", type=Path, metavar="DIR", help="the published CIFAR-100-C: <corruption>.npy and labels.npy")
    add("--frost", type=Path, metavar="DIR", help="frost1.png to frost5.jpg of the published set (default: made here)")
    add("--images", type=int, metavar="N", help="corrupt N of the test images (default all; smoke 200)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto = a GPU if there is one")
    add("--threads", type=int, metavar="N", help="of a training, whose last bits they decide (default 1; GPU 4)")
    jobs = whole_cores()
    add("--jobs", type=int, default=jobs, metavar="N", help="processes that make corruptions; on a GPU, retrain")
    add("--seed", type=int, default=0)
    add(
        "--only", metavar="STAGE", help="supernet, search, choose, retrain:winner, retrain:largest, retrain:random, ..."
    )
    recipe = parser.add_argument_group("retraining (defaults: as suit the pictures; in brackets CIFAR-100's)")
    recipe.add_argument("--epochs", type=int, metavar="N", help="default 100; smoke 4")
    recipe.add_argument("--warmup-epochs", type=float, metavar="N", help="[3]")
    for name, (kind, words) in _RECIPE.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=words)
    recipe.add_argument("--no-flip", action="store_false", dest="flip", default=None, help="never mirror images")
    return parser


_RECIPE: dict[str, tuple[type, str]] = {
    "batch_images": (int, "[512]"),
    "learning_rate": (float, "[0.2; SGD, Nesterov, a cosine to zero]"),
    "weight_decay": (float, "[5e-4]"),
    "label_smoothing": (float, "[0.1]"),
    "crop_px": (int, "[4]: shifted by at most so many, the edge mirrored"),
    "cutout_px": (int, "[0]: side of a square that is blanked"),
    "ema": (float, "[0.999], of the weights"),
}


def _check(parser: Parser, given: Namespace) -> None:
    """Refuse numbers that mean nothing, before anything is read."""
    least = {"epochs": 1, "batch_images": 2, "crop_px": 0, "cutout_px": 0, "images": 1, "threads": 1, "jobs": 1}
    least |= {"seed": 0, "warmup_epochs": 0, "weight_decay": 0, "label_smoothing": 0, "ema": 0}
    for name, bound in least.items():
        value = getattr(given, name)
        if value is not None and not value >= bound:
            parser.error(f"--{name.replace('_', '-')} must be at least {bound}")
    for name in ("label_smoothing", "ema"):
        if (value := getattr(given, name)) is not None and not value < 1:
            parser.error(f"--{name.replace('_', '-')} must be less than 1")
    for name in ("learning_rate", "width"):
        if (value := getattr(given, name)) is not None and not 0 < value <= 100:
            parser.error(f"--{name.replace('_', '-')} must be positive, at most 100")
    if given.resolutions is not None and not 8 <= min(given.resolutions) <= max(given.resolutions) <= 256:
        parser.error("--resolutions must be of 8 to 256 pixels")
    if given.architecture is not None and given.set:
        parser.error("--set is of the search, which --architecture skips")
    if given.architecture is not None and given.data is None:
        parser.error("--architecture needs --data, the pictures to train it on")


def settings(given: Namespace, options: Options) -> Settings:
    """What the job is to do, paths made absolute and "auto" resolved.

    Raises:
        InputError: a file that was named is not there, or not what it should be.
    """
    from riwoa.validate.job import read_architecture
    from riwoa.validate.settings import Settings

    smoke, device, data = given.preset == "smoke", _device(given.device), _data(given.data)
    state = options.state
    if state is None and data is None:
        state = client_state(None).directory
    width, stem, resolutions = given.width, given.stem, given.resolutions
    training: tuple[str, ...] = ()
    if given.cifar100 and (state is None or given.architecture is not None):  # else as the search has them
        width, stem, resolutions = sizes = _supernet(given, smoke)
        if given.architecture is None and given.supernet is None:
            training = _training_options(*sizes, given.seed, smoke)
    return Settings(
        protocol="cifar100" if given.cifar100 else "own",
        data=data,
        supernet=_checkpoint(given.supernet),
        **{name: _absolute(getattr(given, name)) for name in ("table", "corrupted", "frost")},
        supernet_options=training,
        architecture=None if given.architecture is None else read_architecture(given.architecture),
        state=_absolute(state),
        width_mult=width,
        stem=stem,
        resolutions=resolutions,
        search={**(_smoke_search(given) if smoke else {}), **_search_keys(given.set)},
        retraining=_retraining(given, smoke),
        controls=given.controls,
        images=given.images or (_SMOKE_IMAGES if smoke else None),
        device=device,
        threads=given.threads or (_GPU_THREADS if device == "cuda" else 1),
        seed=given.seed,
    )


def _retraining(given: Namespace, smoke: bool) -> Retraining:
    from riwoa.validate.recipes import Retraining

    named = {name: getattr(given, name) for name in (*_RECIPE, "flip") if getattr(given, name) is not None}
    usual = Retraining(protocol="cifar100" if given.cifar100 else "own", seed=given.seed)
    if smoke:
        usual = replace(
            usual,
            epochs=_SMOKE_EPOCHS,
            training_images=_SMOKE_TRAINING_IMAGES,
            recalibration_images=_SMOKE_RECALIBRATION_IMAGES,
            smoke=True,
        )
    schedule = {name: getattr(given, name) for name in ("epochs", "warmup_epochs") if getattr(given, name) is not None}
    return replace(usual, **schedule, changes=named)


def _smoke_search(given: Namespace) -> dict[str, Any]:
    return {**_SMOKE_SEARCH, **({} if given.cifar100 else {"train.minutes": 1.5})}


def _supernet(given: Namespace, smoke: bool) -> tuple[float, Stem, tuple[int, ...]]:
    """Width, strides and resolutions for CIFAR-100: as the command line says, else as the checkpoint's recipe does."""
    from riwoa.validate.settings import backbone_of

    width, stem, resolutions = _SMOKE_SUPERNET if smoke else _SUPERNET
    backbone, found = backbone_of(_checkpoint(given.supernet))
    if found is not None:
        width, stem, resolutions = backbone.width_mult, backbone.stem, found
    return given.width or width, given.stem or stem, given.resolutions or resolutions


def _training_options(
    width: float, stem: Stem, resolutions: tuple[int, ...], seed: int, smoke: bool
) -> tuple[str, ...]:
    """Options of ``riwoactl supernet train cifar100``."""
    sizes = ("--width", str(width), "--stem", stem, "--resolutions", ",".join(map(str, resolutions)))
    return (*sizes, "--seed", str(seed), *(_SMOKE_TRAINING if smoke else ()))


def _data(given: Path | None) -> str | None:
    return "digits" if str(given) == "digits" else _absolute(given)


def _checkpoint(given: Path | None) -> str | None:
    """A published supernet by its name, any other by its absolute path."""
    from riwoa.supernet.published import PUBLISHED

    return str(given) if str(given) in PUBLISHED else _absolute(given)


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
        test = f"{_percent(network['test']['accuracy'])} ± {100 * network['test_error']:.2f}"
        sizes.append([name, network["role"], test, _percent(network["mce"]), *cost])
    rows = [["accuracy", *networks]]
    rows += [[c, *(_percent(n["corruption_accuracy"][c]) for n in networks.values())] for c in CORRUPTIONS]
    rows += [["all fifteen", *(_percent(n["mean_corruption_accuracy"]) for n in networks.values())]]
    rows += [
        [f"severity {s}", *(_percent(n["severity_accuracy"][s - 1]) for n in networks.values())] for s in SEVERITIES
    ]
    return f"{columns(sizes)}\n\n{columns(rows)}\n\n{told_source(data)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
