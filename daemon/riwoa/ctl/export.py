"""``riwoactl export``: write the winner's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.paths import client_state

_DESCRIPTION = """Write the winner of a run: architecture.json, model.safetensors (the recalibrated float32 subnet),
model.onnx (checked in onnxruntime against torch) and provenance.json. Reads the journal; the daemon may run. An older
export in the same place is replaced, whole; other files that lie in it stay."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Export, and say what was written."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: export/ in the state directory)")
    parser.add_argument("--run", type=int, metavar="ID", help="the run (default: the latest)")
    parser.add_argument("--no-onnx", action="store_true", help="leave model.onnx out")
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    from riwoa.export import export_run  # torch: only once the command line is known to be right

    with bar("exporting"):
        done = export_run(paths.journal, given.out or paths.export, given.run, onnx=not given.no_onnx)
    files = [*done.provenance["files_sha256"], "provenance.json"]
    data: dict[str, Any] = {
        "directory": str(done.directory),
        "files": files,
        "onnx_left_out": done.onnx_left_out,
        "architecture": done.architecture,
        "provenance": done.provenance,
    }
    emit(options, data, render(data))
    return 0


def render(data: dict[str, Any]) -> str:
    """What was written and how good it is."""
    architecture = data["architecture"]
    journaled, exported = architecture["journaled"], architecture.get("exported", {})
    found, dtype = journaled["metrics"], f" ({journaled['dtype']})" if "dtype" in journaled else ""
    rows = [
        ["exported to", data["directory"]],
        ["files", ", ".join(data["files"])],
        ["searched", f"{100 * found['accuracy']:.2f} %{dtype}, {found['latency_ms']:.3f} ms"],
    ]
    if exported:
        of = ", ".join(f"{100 * m['accuracy']:.2f} % on {split}" for split, m in exported.items())
        rows.append(["this model", of])
    if not architecture["feasible"]:
        rows.append(["note", "no network met the latency target; this is the nearest"])
    if data["onnx_left_out"]:
        rows.append(["no model.onnx", data["onnx_left_out"]])
    return columns(rows)
