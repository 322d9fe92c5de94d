"""``riwoactl bench gpu``: its command line, and what it found in words."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from riwoa.console.bar import say
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns
from riwoa.errors import InputError, UsageError


def measured(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Run the next slice, as the command line says, or tell how far all is."""
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(".gpu"),
        metavar="DIR",
        help="of small files: what was found, and what the next slice needs (default: .gpu)",
    )
    parser.add_argument("--status", action="store_true", help="tell what is done, next and not measured; run nothing")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page whose part on GPUs is to be written anew")
    parser.add_argument("--minutes", type=float, default=8.0, metavar="X", help="of a slice (default 8)")
    parser.add_argument("--data", type=Path, metavar="PATH", help="CIFAR-100 (default: of $RIWOA_DATA, ../shared/data)")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="the workplace, the same on every machine (default: in the system's folder for temporary files)",
    )
    parser.add_argument("--again", action="append", default=[], metavar="NAME", help="begin a measurement anew")
    parser.add_argument("--rehearse", action="store_true", help="all of it on a CPU, in a tiny setting: no results")
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        parser.error("--minutes must be more than 0")
    from riwoa.bench.gpu import Evidence, Places, due, run_slice
    from riwoa.bench.gpu_page import BEGIN, END, rendered, states
    from riwoa.bench.gpu_plan import measurements
    from riwoa.bench.page import write_page

    work = Path(os.path.realpath(given.work or Path(tempfile.gettempdir(), f"riwoa-gpu-{os.getuid()}")))
    card = "" if given.status else _card(given.rehearse)
    pictures = None if given.status or given.rehearse else _pictures(given.data)
    places = Places(given.results, work, pictures)
    plan = measurements(work, places.data, rehearsal=given.rehearse)
    if unknown := [name for name in given.again if name not in [m.name for m in plan]]:
        parser.error(f"--again: no measurement {unknown[0]!r}; there are {', '.join(m.name for m in plan)}")
    if given.status:
        evidence = Evidence.read(given.results, rehearsal=given.rehearse)
    else:
        evidence = run_slice(places, plan, card, 60 * given.minutes, say, given.again)
    text = rendered(plan, evidence)
    if given.page is not None:
        write_page(given.page, text, BEGIN, END)
    done = sum(evidence.record(m.name).done for m in plan)
    left = [m.name for m in due(plan, evidence)]
    return {
        "bench": "gpu",
        "ratio": done / len(plan),
        "slices": evidence.slices,
        "next": left[:1],
        "states": states(plan, evidence),
        "page": text,
    }


def _card(rehearsal: bool) -> str:
    """What is measured, in words.

    Raises:
        UsageError: there is no GPU, and it is no rehearsal.
    """
    from riwoa.hardware.accelerator import probe_accelerator

    if rehearsal:
        return "none"
    found = probe_accelerator()
    if found is None:
        raise UsageError(
            "bench gpu needs a CUDA GPU, and torch finds none here; run it where there is one, or try --rehearse"
        )
    return found.name


def _pictures(named: Path | None) -> Path:
    """Where CIFAR-100 lies.

    Raises:
        InputError: nowhere.
    """
    from riwoa.bench.tasks import data_with
    from riwoa.datasets.cifar import find_cifar100

    folder = named if named is not None else data_with("cifar-100")
    for place in [] if folder is None else [folder, folder / "cifar-100"]:
        if (found := find_cifar100(place)) is not None:
            return found
    raise InputError("CIFAR-100 is needed: --data names its archive, or $RIWOA_DATA the folder of cifar-100/")


def in_words(found: dict[str, Any]) -> str:
    """How far each measurement is."""
    return columns([["measurement", "state", ""], *found["states"]])
