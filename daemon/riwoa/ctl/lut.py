"""``riwoactl lut build | check | show``: the latency table of this device."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.ask import holder
from riwoa.ctl.bar import bar
from riwoa.ctl.command import Parser, columns, emit, subverb
from riwoa.errors import StateDirectoryError, StateLockedError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.target import auto_target_ms
from riwoa.paths import StatePaths, client_state, daemon_state

_KNOWN = {
    "build": "time every operator of the space on this device; killed and run again, it continues",
    "check": "compare the table with whole networks measured now",
    "show": "print what the table holds",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to build, check or show."""
    name = subverb(verb, arguments, _KNOWN)
    return {"build": _build, "check": _check, "show": _show}[name](arguments[1:], options)


def _parser(name: str, description: str) -> Parser:
    parser = Parser(f"lut {name}", description=description)
    parser.add_argument("--table", type=Path, metavar="FILE", help="the table (default: the state directory's)")
    return parser


def _build(arguments: list[str], options: Options) -> int:
    from riwoa.config import load
    from riwoa.hardware.build import BuildProgress, build_table_in_child
    from riwoa.oracle.geometry import Backbone

    parser = _parser("build", "Measure this device, with the daemon stopped and the machine otherwise idle.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="where width, resolutions and repeats come from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    given = parser.parse_args(arguments)
    config = load(given.config, given.set).config
    path = given.table or daemon_state(options.state).latency_table
    _make_directory(path.parent)
    if given.table is None:
        _keep(daemon_state(options.state))
    with bar("timing", "round") as advance:

        def progress(p: BuildProgress) -> None:
            advance(p.done, p.total, "")

        backbone = Backbone(config.oracle.width_mult, config.oracle.n_classes, config.oracle.stem)
        work = build_table_in_child(
            path, backbone, config.oracle.resolutions, config.latency.threads, config.latency.repeats, progress
        )
        table = asyncio.run(work)
    emit(options, summary(path, table), render(summary(path, table)))
    return 0


def _keep(paths: StatePaths) -> None:
    """Set the present table aside: an unfinished run can only be continued with the one it was begun with.

    Raises:
        StateLockedError: a daemon is using it.
    """
    if (process := holder(paths)) is not None:
        raise StateLockedError(f"process {process or 'unknown'} serves {paths.state}; stop it first: riwoactl stop")
    if paths.latency_table.exists():
        kept = paths.latency_table.with_suffix(".previous.json")
        paths.latency_table.replace(kept)
        print(f"the table that was there is now {kept}", file=sys.stderr)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateDirectoryError(f"cannot create {path}: {error.strerror}; name another place with --table") from None


def _check(arguments: list[str], options: Options) -> int:
    from riwoa.hardware.build import BuildProgress, check_table_in_child

    parser = _parser("check", "Rank correlation and error of the table against whole networks; stop the daemon first.")
    path = _table_path(parser.parse_args(arguments), options)
    with bar("measuring", "round") as advance:

        def progress(p: BuildProgress) -> None:
            advance(p.done, p.total, "")

        found = asyncio.run(check_table_in_child(path, progress))
    emit(options, {"table": str(path), **found}, _render_check(path, found))
    return 0


def _render_check(path: Path, found: dict[str, Any]) -> str:
    rows = [
        ["rank correlation", f"Spearman {found['spearman']:.3f}, Kendall {found['kendall']:.3f}"],
        ["", f"{found['repeatability']:.3f} is what half the measurement reaches against the other half"],
        ["mean error", f"{found['mean_abs_error_percent']:.1f} %"],
        ["drift", f"operators take {found['drift']:.2f} times what the table says"],
        ["disturbance", f"{found['disturbance']:.2f} (1 on an idle device)"],
    ]
    return f"{path} against {found['networks']} networks, {found['rounds']} rounds each\n{columns(rows)}"


def _show(arguments: list[str], options: Options) -> int:
    parser = _parser("show", "The table's device, range and calibration; with --operators every operator's time.")
    parser.add_argument("--operators", action="store_true", help="list every operator")
    given = parser.parse_args(arguments)
    path = _table_path(given, options)
    table = LatencyTable.load(path)
    data = summary(path, table)
    text = render(data)
    if given.operators:
        entries = sorted(table.entries.items(), key=lambda item: -item[1].p10_ms)
        data["operators_ms"] = {key: timing.p10_ms for key, timing in entries}
        rows = [["operator", "p10 ms", "median ms", "p90 ms"]]
        rows += [[k, f"{t.p10_ms:.4f}", f"{t.p50_ms:.4f}", f"{t.p90_ms:.4f}"] for k, t in entries]
        text = f"{text}\n\n{columns(rows)}"
    emit(options, data, text)
    return 0


def _table_path(given: argparse.Namespace, options: Options) -> Path:
    path: Path = given.table or client_state(options.state).latency_table
    return path


def summary(path: Path, table: LatencyTable) -> dict[str, Any]:
    """What a table says of itself."""
    from riwoa.hardware.probe import probe

    content = table.to_json()
    least, greatest = table.range_ms()
    kept = ("device", "libraries", "settings", "backbone", "resolutions", "calibration")
    return {
        "table": str(path),
        "sha256": table.sha256,
        "operators": len(table.entries),
        "range_ms": [least, greatest],
        "auto_target_ms": auto_target_ms(table),
        "mismatches": table.mismatches(probe(), table.settings.threads),
        **{name: content[name] for name in kept},
    }


def render(data: dict[str, Any]) -> str:
    """The summary as aligned lines."""
    settings, calibration, device = data["settings"], data["calibration"], data["device"]
    least, greatest = data["range_ms"]
    here = "this one" if not data["mismatches"] else f"ANOTHER ONE: {'; '.join(data['mismatches'])}"
    rows = [
        ["table", f"{data['table']}, sha256 {data['sha256'][:16]}"],
        ["device", f"{device['cpu']}, {device['cores']} cores, {device['memory_gib']} GiB: {here}"],
        ["measured", f"{data['operators']} operators, {settings['repeats']} times, {settings['threads']} threads"],
        ["networks", f"from {least:.3f} to {greatest:.3f} ms; auto target {data['auto_target_ms']:.3f} ms"],
        [
            "calibration",
            f"{calibration['networks']} networks: rank correlation {calibration['spearman']:.3f}, "
            f"mean error {calibration['mean_abs_error_percent']:.1f} %",
        ],
    ]
    return columns(rows)
