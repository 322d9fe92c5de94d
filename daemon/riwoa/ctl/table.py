"""``riwoactl table import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, subverb
from riwoa.files.ownership import output_file

_KNOWN = {"import": "make a compact table of a benchmark's official file"}
_DESCRIPTION = (
    "NAS-Bench-201-v1_1-096897.pth (4.7 GB) as a table of about 1 MB. Once: it takes tens of GB of memory and a "
    "quarter of an hour. The table serves oracle.kind = table and riwoactl bench table."
)


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to import."""
    subverb(verb, arguments, _KNOWN)
    parser = Parser("table import", description=_DESCRIPTION)
    parser.add_argument("benchmark", choices=["nas-bench-201"])
    parser.add_argument("file", type=Path, metavar="FILE", help="the official .pth")
    out_help = "the table (default: ./nas-bench-201.npz)"
    parser.add_argument("--out", type=Path, default=Path("nas-bench-201.npz"), metavar="FILE.npz", help=out_help)
    given = parser.parse_args(arguments[1:])
    if given.out.suffix != ".npz":
        parser.error(f"--out {given.out} must end in .npz")
    from riwoa.oracle.nas_bench_201 import convert, is_converted

    out = output_file(given.out, "an imported table", is_converted, inputs=[given.file])
    steps = {"reading": 0, "converting": 1}  # one bar for both: each is about half of the time
    with bar("importing", "%") as advance:
        facts = convert(
            given.file,
            out,
            lambda what, done, total: advance(50 * steps[what] + 50 * done // max(1, total), 100, what),
        )
    data: dict[str, Any] = {"table": str(given.out), **facts}
    emit(options, data, render(data))
    return 0


def render(data: dict[str, Any]) -> str:
    """What was written, and what to do with it."""
    seeds = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in data["seeds"].items())
    rows = [
        ["table", f"{data['table']}: {data['cells']} cells of {data['benchmark']}, genes ops"],
        ["columns", ", ".join(data["columns"])],
        ["accuracies", data["accuracies"]],
        ["seeds", seeds],
        ["try", f"riwoactl bench table {data['table']} --genes ops --nominal --maximize {data['columns'][-1]}"],
    ]
    return columns(rows)
