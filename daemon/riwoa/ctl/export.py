"""``riwoactl export``: write the files of the winner, or of another network of its run."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.ctl.wanted import WEIGHTS, add_within, weighed
from riwoa.errors import InputError, UsageError
from riwoa.paths import StatePaths, client_state
from riwoa.run.front import chosen_run, fastest_equal, read_front, target_place
from riwoa.run.limits import journaled_objective
from riwoa.run.preference import Preference, chosen_network
from riwoa.text import against_float32, named_measure, printable
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """Write the winner of a run as files that need no riwoa: model.onnx (checked in onnxruntime against
torch), model.safetensors with model.py (plain PyTorch), labels.txt, preprocess.json, a README.md with a program that
uses them, architecture.json and provenance.json. Reads the journal; the daemon may run. An older export in the same
place is replaced, whole; other files that lie in it stay. riwoactl help export tells more."""
WINNER, FASTEST_EQUAL = "winner", "fastest-equal"
_INSIDE = ("preprocessing", "softmax")
_PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_MOST_NAME_CHARACTERS = 200


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Export, and say what was written.

    Raises:
        UsageError: what is asked for contradicts itself.
    """
    given = _parser(verb).parse_args(arguments)
    inside = [part for part in given.inside.split(",") if part]
    if unknown := set(inside) - set(_INSIDE):
        raise UsageError(f"--with takes {', '.join(_INSIDE)}, not {printable(min(unknown), _MOST_NAME_CHARACTERS)!r}")
    if given.no_onnx and (inside or given.int8):
        raise UsageError(f"--no-onnx leaves out what {'--with' if inside else '--int8'} is about; name one of them")
    weights = given.prefer if isinstance(given.prefer, dict) else {}
    wish = Preference(given.within, weights)
    if given.arch is not None and (wish or given.prefer != WINNER):
        raise UsageError("--arch, --within and --prefer all name a network; leave --arch out, or the others")
    if given.target is not None and (given.arch is not None or wish or given.prefer != WINNER):
        raise UsageError("--target names a network; leave out --arch, --within and --prefer, or it")
    if given.prefer == FASTEST_EQUAL and wish:
        raise UsageError(f"--prefer {FASTEST_EQUAL} is as good as the winner within the run's own target; no --within")
    paths = client_state(options.state)
    place = None if given.arch is None else _place(paths, given.run, given.arch)
    if given.prefer == FASTEST_EQUAL or wish:
        chose = fastest_equal(paths.journal, given.run) if not wish else chosen_network(paths.journal, given.run, wish)
        place = None if chose.is_winner else chose.point.origin
    if given.target is not None:
        place = target_place(paths.journal, given.run, given.target)
    own = "export" if place is None else f"export-{given.target or '{}-{}'.format(*place)}"
    out = given.out or paths.export.with_name(own)
    from riwoa.export import export_run  # torch: only once the command line is known to be right
    from riwoa.oracle.kind import ExportForm

    form = ExportForm(not given.no_onnx, "preprocessing" in inside, "softmax" in inside, given.int8)
    with bar("exporting"):
        done = export_run(paths.journal, out, given.run, form=form, place=place, inherited=given.inherited)
    files = [*done.provenance["files_sha256"], "provenance.json"]
    data: dict[str, Any] = {
        "directory": str(done.directory),
        "files": files,
        "winner": place is None,
        "onnx_left_out": done.onnx_left_out,
        "architecture": done.architecture,
        "provenance": done.provenance,
    }
    emit(options, data, render(data))
    return 0


def _parser(verb: str) -> Parser:
    parser = Parser(verb, description=_DESCRIPTION)
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="where to (default: export/ in the state directory)")
    add("--run", type=int, metavar="ID", help="the run (default: the latest)")
    add(
        "--arch",
        metavar="N|GENERATION/SLOT|KEY",
        help="another network than the winner: row N of riwoactl pareto, a place as its last column tells, or a key",
    )
    add("--target", metavar="NAME", help="the best network for this [[target]] of the run")
    add_within(parser)
    add(
        "--prefer",
        type=_preference,
        default=WINNER,
        metavar=f"{WINNER}|{FASTEST_EQUAL}|{WEIGHTS}",
        help=f"{FASTEST_EQUAL}: the fastest network that cannot be told from the winner on the test pictures; weights: "
        "the nearest to the best accuracy and the least latency",
    )
    add(
        "--with",
        dest="inside",
        default="",
        metavar=",".join(_INSIDE),
        help="inside model.onnx: preprocessing (it takes bytes), softmax (it gives probabilities), or both",
    )
    add("--int8", action="store_true", help="write model.int8.onnx too, calibrated and judged on your pictures")
    add("--inherited", action="store_true", help="with the supernet's weights, also where the winner was fine-tuned")
    add("--no-onnx", action="store_true", help="leave model.onnx out")
    return parser


def _preference(text: str) -> str | dict[str, float]:
    if text in (WINNER, FASTEST_EQUAL):
        return text
    try:
        return weighed(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"takes {WINNER}, {FASTEST_EQUAL} or weights: {error}") from None


def render(data: dict[str, Any]) -> str:
    """What was written and how good it is."""
    architecture = data["architecture"]
    journaled, exported = architecture["journaled"], architecture.get("exported", {})
    found, dtype = journaled["metrics"], f" ({journaled['dtype']})" if "dtype" in journaled else ""
    rows = [["exported to", data["directory"]], ["files", ", ".join(data["files"])]]
    if test := architecture.get("test"):
        error = f"{100 * test['accuracy']:.2f} % ± {100 * test['accuracy_error']:.2f}"
        rows.append(["test", f"{error} on {test['pictures']} pictures that chose nothing"])
    tries = f", the best of {architecture['tries']} tries" if architecture.get("tries") and data["winner"] else ""
    at = f", {found['latency_ms']:.3f} ms" if found["latency_ms"] else ""
    metric = journaled_objective(data["provenance"]["run"], None).raised
    rows.append(["searched", f"{named_measure(metric, found[metric])}{dtype}{tries}{at}"])
    if timed := architecture.get("timed"):
        between = f"{timed['low_ms']:.3f} to {timed['high_ms']:.3f}"
        rows.append(["measured", f"{timed['ms']:.3f} ms ({between}) in {timed['runtime']}"])
    for name, accuracies in (("this model", exported), ("in 8 bits", architecture.get("int8", {}))):
        if accuracies:
            rows.append(
                [name, ", ".join(f"{100 * m['accuracy']:.2f} % on {s}{_against(m)}" for s, m in accuracies.items())]
            )
    if not architecture["feasible"]:
        nearest = "no network met every limit; this is the nearest"
        rows.append(["note", nearest if data["winner"] else "it does not meet every limit"])
    if data["onnx_left_out"]:
        rows.append(["no model.onnx", data["onnx_left_out"]])
    return columns(rows)


def _against(found: dict[str, Any]) -> str:
    """How far 8 bits are from float32, where this is in 8 bits."""
    less = found.get("against_float32")
    return "" if less is None else f" ({against_float32(less)})"


def _place(paths: StatePaths, run_id: int | None, arch: str) -> tuple[int, int]:
    """(generation, slot) of the network that --arch names.

    Raises:
        InputError: the run holds none of this name.
    """
    if match := _PLACE.fullmatch(arch):
        return int(match[1]), int(match[2])
    if arch.isascii() and arch.isdigit():
        with JournalReader(paths.journal) as reader:
            front = read_front(reader, chosen_run(reader, run_id)).networks
        number = int(arch[:9])
        if not 0 < number <= len(front):
            raise InputError(f"--arch {printable(arch, 20)}: riwoactl pareto has the rows 1 to {len(front)}")
        return front[number - 1].point.origin
    with JournalReader(paths.journal) as reader:
        record = chosen_run(reader, run_id)
        for generation, individual in reader.individuals(record.run_id):
            if individual.status == "ok" and individual.architecture_key == arch:
                return generation, individual.slot
    raise InputError(
        f"run {record.run_id} evaluated no network of the key {printable(arch, _MOST_NAME_CHARACTERS)}; "
        "riwoactl pareto --json lists keys"
    )
