"""``riwoactl init FOLDER``: looks at a folder of pictures and at this device, and writes a short configuration."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from argparse import ArgumentTypeError, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit, milliseconds
from riwoa.errors import InputError, UsageError
from riwoa.files.ownership import irregular, unwritable
from riwoa.limits import memory, usable_cores
from riwoa.paths import LOCAL_STATE, PROJECT
from riwoa.text import duration, printable
from riwoa_storage.durable import replace_durably

if TYPE_CHECKING:
    from riwoa.datasets.survey import Survey

RUNTIMES = ("onnxruntime", "torch")  # what else there is needs a program: [latency] is edited then
_MARK = "# Written by `riwoactl init` "  # and a hash of what follows, so that an edited file is told from it
_SHOWN = 5
_TABLE_S = 180.0  # to measure this device
# Of runs on the embedded digits: pixels that a core judges a second at width 0.25, and how many subnets a search tries.
_PIXELS_PER_S, _EVALUATIONS = 6e6, 860
_LARGEST_PX, _JUDGING, _RECALIBRATING = 96, 2000, 400


@dataclass(frozen=True, slots=True)
class Machine:
    """What the search will run on."""

    cores: float
    memory_gib: float
    gpu: str | None

    def line(self) -> str:
        """In words."""
        return f"{self.cores:g} cores, {self.memory_gib:.0f} GiB, {self.gpu or 'no GPU'}"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Look, and write the file."""
    given = _parser().parse_args(arguments)
    folder = Path(os.path.abspath(given.folder))
    if given.precision == "int8" and given.runtime == "torch":
        raise UsageError("--precision int8 is for onnxruntime; leave --runtime torch out")
    place = _place(given.out)
    text_of_folder = _as_toml(str(folder))
    with bar("looking at the pictures", "file") as advance:
        survey = _survey(folder, given.seed, lambda done, total: advance(done, total, ""))
    machine = _machine()
    content = _file(given, text_of_folder, survey)
    data = {
        "file": str(given.out),
        "data": survey.to_json(),
        "device": {"cores": machine.cores, "memory_gib": round(machine.memory_gib, 1), "gpu": machine.gpu},
        "supernets": _supernets(),
        "latency_ms": given.latency,
        "minutes": {name: round(seconds / 60, 1) for name, seconds in _times(given, survey, machine).items()},
        "next": _next_commands(given.out),
    }
    told = _told(folder, survey, machine, data)
    if not _agreed(given, options, told):
        return 1
    _write(place, content, given.out)
    _mark_project(place, data)
    emit(options, data, (told if given.yes or not _asks(options) else "") + _ending(given, survey, machine))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "init",
        description="Looks at a folder of pictures, one folder a class, and writes a short riwoa.toml for a search on "
        "them. Nothing in the folder is changed.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="FOLDER/CLASS/*, or FOLDER/{train,val,test}/CLASS/*")
    parser.add_argument(
        "--latency", type=latency_ms, default="auto", metavar="TIME", help="of one picture: 20ms, 0.5ms, auto"
    )
    parser.add_argument(
        "--runtime", choices=RUNTIMES, help="what will run the network (default: what suits the device)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8: for a network in 8 bits, in onnxruntime",
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=10.0, metavar="N", help="to train the supernet (default 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits that are held out (default 0)")
    parser.add_argument("--out", type=Path, default=Path("riwoa.toml"), metavar="FILE", help="default: ./riwoa.toml")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    return parser


def latency_ms(text: str) -> float | str:
    """Milliseconds of a time with its unit, or "auto": an argument's type.

    Raises:
        ArgumentTypeError: it is neither.
    """
    return text if text == "auto" else milliseconds(text)


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1e6:
        raise ArgumentTypeError(f"needs a number of minutes, such as 10, not {printable(text)!r}")
    return found


# -- what is there -----------------------------------------------------------------------------------------------------


def _survey(folder: Path, seed: int, report: Any) -> Survey:
    from riwoa.datasets.cifar import find_cifar100
    from riwoa.datasets.spec import DataSpec
    from riwoa.datasets.survey import survey_folder, survey_task

    if not os.path.lexists(folder):
        raise InputError(f"there is no folder {folder}; name the one that holds a folder of pictures for each class")
    spec = DataSpec(data=str(folder), n_classes=0, data_seed=seed, data_rules=2)
    if os.path.isdir(folder) and find_cifar100(folder) is None:
        return survey_folder(spec, report)
    return survey_task(spec)


def _machine() -> Machine:
    from riwoa.hardware.accelerator import probe_accelerator

    gpu = probe_accelerator()
    return Machine(usable_cores(), memory().total_bytes / 2**30, gpu.name if gpu is not None else None)


def _supernets() -> list[str]:
    """Names of the published supernets that are here, to start from."""
    from riwoa.supernet.published import PUBLISHED

    return [net.name for net in PUBLISHED.values() if net.path.is_file()]


def _times(given: Namespace, survey: Survey, machine: Machine) -> dict[str, float]:
    """Seconds that each step will take, roughly."""
    judging = min(sum(survey.counts.get("validation", ())), _JUDGING) + min(sum(survey.counts["train"]), _RECALIBRATING)
    pixels = judging * min(max(survey.sides_px[1], 1), _LARGEST_PX) ** 2
    search_s = _EVALUATIONS * pixels / (_PIXELS_PER_S * max(1.0, machine.cores))
    return {"train": 60 * given.minutes, "measure": _TABLE_S, "search": search_s}


# -- what is written ---------------------------------------------------------------------------------------------------


def _place(out: Path) -> Path:
    """Where the file goes, which does not exist, or is as ``init`` wrote it.

    Raises:
        UsageError: something else lies there.
    """
    place = Path(os.path.realpath(out))
    if (kind := irregular(place)) is not None:
        raise UsageError(f"--out {out} is {kind}; name a file")
    if not place.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {place.parent}; make it first")
    try:
        present = place.read_bytes()
    except FileNotFoundError:
        return place
    except OSError as error:
        raise UsageError(f"--out {out} cannot be read ({error.strerror}); name another file") from None
    head, _, rest = present.partition(b"\n")
    if present and head != (_MARK + _hash(rest)).encode():
        ours = head.startswith(_MARK.encode())
        what = "was edited since `riwoactl init` wrote it" if ours else "was not written by `riwoactl init`"
        raise UsageError(f"{out} {what}, and stays as it is; move it away, or name another --out")
    return place


def _hash(rest: bytes) -> str:
    return hashlib.sha256(rest).hexdigest()[:12]


def _as_toml(text: str) -> str:
    """A string of TOML.

    Raises:
        UsageError: it is not text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name of the folder {printable(text)} is no UTF-8; link to it by another name") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _file(given: Namespace, folder: str, survey: Survey) -> str:
    target = f'"{given.latency}"' if given.latency == "auto" else f"{given.latency!r}"
    goal = "auto = the middle of what this space attains here" if given.latency == "auto" else "of one picture"
    seed = f"data_seed = {given.seed}\n" if given.seed else ""
    latency = "" if given.runtime is None else f'runtime = "{given.runtime}"  # that will run the network\n'
    latency += "" if given.precision == "float32" else f'precision = "{given.precision}"  # of its weights, deployed\n'
    latency = latency and f"\n[latency]\n{latency}"
    held_out = " and ".join(survey.held_out)
    splits = f"; {held_out} pictures are held out" if held_out else ""
    body = f"""\
# Every key: riwoactl help configuration. What is not here follows from the pictures and the supernet.

[oracle.supernet]
data = {folder}  # {len(survey.class_names)} classes{splits}
checkpoint = "trained"  # the supernet is trained on these pictures first
{seed}
[objective]
latency_ms = {target}  # {goal}

[train]
minutes = {given.minutes:g}  # of training the supernet; more is better
{latency}
[cognition]
provider = "none"  # "model": a small language model proposes too; it brings little (riwoactl help results)
"""
    return f"{_MARK}{_hash(body.encode())}\n{body}"


def _write(place: Path, content: str, out: Path) -> None:
    try:
        replace_durably(place, content.encode())
    except OSError as error:
        raise unwritable(out, error, "name another --out") from None


def _mark_project(place: Path, data: dict[str, Any]) -> None:
    """Keep what was seen in ./.riwoa, so that what follows keeps its state here."""
    if place.parent != Path(os.path.realpath(".")):
        return
    try:
        os.makedirs(LOCAL_STATE, exist_ok=True)
        replace_durably(Path(LOCAL_STATE, PROJECT), json.dumps(data, indent=1).encode())
    except OSError as error:
        raise unwritable(LOCAL_STATE, error, "work in another directory") from None


# -- what is said ------------------------------------------------------------------------------------------------------


def _asks(options: Options) -> bool:
    return not options.json and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _agreed(given: Namespace, options: Options, told: str) -> bool:
    if given.yes or not _asks(options):
        return True
    print(told, end="")
    return input(f"Write {given.out}? [Y/n] ").strip().lower() in ("", "y", "yes")


def _told(folder: Path, survey: Survey, machine: Machine, data: dict[str, Any]) -> str:
    lines = [
        f"{folder}: {survey.pictures:,} pictures in {len(survey.class_names)} classes: {_classes(survey)}",
        f"  {_formats(survey)}",
        f"  splits: {_splits(survey)}",
    ]
    if survey.odd:
        lines.append(f"  converted: {', '.join(f'{count} {what}' for what, count in survey.odd.items())}")
    if survey.broken:
        lines.append(f"  unreadable, left out: {_some([f'{name} ({why})' for name, why in survey.broken.items()])}")
    lines += [f"  {printable(remark, 300)}" for remark in survey.remarks]
    if survey.copies:
        pairs = [f"{one} = {other}" for one, other in survey.copies]
        lines.append(f"  exact copies in two splits or two classes, {len(pairs)}: {_some(pairs)}")
    looked, of = survey.looked_at
    if looked < of:
        lines.append(f"  {looked:,} of {of:,} files were opened; the others are when they are needed")
    lines += [f"  {warning}" for warning in _warnings(survey)]
    lines.append(f"device: {machine.line()}")
    lines.append(f"supernets to start from: {', '.join(data['supernets']) or 'none; it begins from scratch'}")
    return "\n".join(lines) + "\n"


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name, 120) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _classes(survey: Survey) -> str:
    totals = [sum(counts) for counts in zip(*survey.counts.values(), strict=True)]
    shown = _some(list(survey.class_names))
    each = f"{totals[0]} each" if len(set(totals)) == 1 else f"{min(totals)} to {max(totals)} each"
    return f"{shown}; {each}"


def _formats(survey: Survey) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in survey.kinds.items()) or "arrays"
    least, median, greatest = survey.sides_px
    return f"{kinds}; shorter side {median} px" + (f" ({least} to {greatest})" if least != greatest else "")


def _splits(survey: Survey) -> str:
    words = []
    for split in ("train", "validation", "test"):
        if split in survey.counts:
            held = " held out" if split in survey.held_out else ""
            words.append(f"{sum(survey.counts[split]):,} {split}{held}")
    return ", ".join(words)


def _warnings(survey: Survey) -> list[str]:
    found = []
    thin = [n for n, c in zip(survey.class_names, survey.counts.get("test", ()), strict=False) if not c]
    if thin:
        found.append(f"no test picture of {len(thin)} classes: {_some(thin)}; three pictures are one for each split")
    tested = sum(survey.counts.get("test", ()))
    if tested:
        found.append(f"{tested} test pictures tell an accuracy to about ± {100 * math.sqrt(0.25 / tested):.1f} points")
    return found


def _next_commands(out: Path) -> list[str]:
    config = "" if out == Path("riwoa.toml") else f" --config {out}"
    return [f"riwoactl train{config}", f"riwoactl run{config}"]


def _ending(given: Namespace, survey: Survey, machine: Machine) -> str:
    times = _times(given, survey, machine)
    train, search = _next_commands(given.out)
    wide = max(len(train), len(search))
    doubt = (
        "\n8 bits make large networks faster and small ones slower; `riwoactl lut build` measures which these are here"
        if given.precision == "int8"
        else ""
    )
    return (
        f"wrote {given.out}. Next:\n"
        f"  {train:<{wide}}  the supernet for these pictures, {duration(times['train'])}\n"
        f"  {search:<{wide}}  measures this device (about {duration(times['measure'])}) and searches (about "
        f"{duration(times['search'])});\n"
        f"  {'':<{wide}}  trains first where you did not; killed and run again, both go on"
        f"{doubt}"
    )
