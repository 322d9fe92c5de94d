"""``riwoactl lut build | check | drift | show``: the latency table of this device."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from riwoa.console.bar import Advance, bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, loaded, pixels, subverb
from riwoa.errors import StateLockedError, TableError, UsageError
from riwoa.files.lock import holder
from riwoa.files.ownership import output_file, same_place, unwritable
from riwoa.hardware.build import SESSIONS, build_table_in_child
from riwoa.hardware.drift import Drift
from riwoa.hardware.interval import advice
from riwoa.hardware.lut import LatencyTable, is_table
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.remarks import remarks
from riwoa.hardware.runtime import PRECISIONS, RUNTIMES, TORCH, Settings, configured_runtime, spoken
from riwoa.hardware.target import auto_target_ms
from riwoa.paths import StatePaths, client_state, daemon_state

_Value = TypeVar("_Value")
_KNOWN = {
    "build": "time every operator of the space in the network's runtime; killed and run again, it continues",
    "check": "compare the table with whole networks measured now",
    "drift": "measure a few operators and networks again: does the table still hold?",
    "show": "print what the table holds",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to build, check, drift or show."""
    name = subverb(verb, arguments, _KNOWN)
    return {"build": _build, "check": _check, "drift": _drift, "show": _show}[name](arguments[1:], options)


def _parser(name: str, description: str) -> Parser:
    parser = Parser(f"lut {name}", description=description)
    parser.add_argument("--table", type=Path, metavar="FILE", help="the table (default: the state directory's)")
    return parser


def _build_parser() -> Parser:
    from riwoa.supernet.geometry import STEMS

    parser = _parser("build", "Measure this device, with the daemon stopped and the machine otherwise idle.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="where space, threads and repeats come from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--width", type=float, metavar="X", help="width multiplier of the backbone")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs of the classifier")
    parser.add_argument("--stem", choices=STEMS, help="strides of the backbone; small is for pictures of some 32 px")
    parser.add_argument("--resolutions", type=pixels, metavar="PX,PX", help="input resolutions")
    parser.add_argument("--runtime", choices=RUNTIMES, help="what runs the network (default: latency.runtime)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the network (default: latency.precision)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that the network will run with")
    parser.add_argument("--repeats", type=int, metavar="N", help="timed repeats of every operator")
    parser.add_argument("--networks", type=int, metavar="N", help="whole networks to calibrate on")
    parser.add_argument("--compute", choices=("cpu", "cuda"), default="cpu", help="what to measure (default: cpu)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument(
        "--regime", choices=("eager", "graph"), help="how kernels are launched; graph is CUDA's default"
    )
    parser.add_argument(
        "--sessions",
        type=int,
        default=SESSIONS,
        metavar="N",
        help=f"processes that measure again (default: {SESSIONS})",
    )
    return parser


def _build(arguments: list[str], options: Options) -> int:
    from riwoa.supernet.geometry import Backbone

    parser = _build_parser()
    given = parser.parse_args(arguments)
    config = loaded(given.config, given.set).config
    paths = daemon_state(options.state)
    named = given.table or paths.latency_table
    own = same_place(named, paths.latency_table)  # is set aside, whatever it holds
    made = (lambda _: True) if own else is_table
    path = output_file(named, "a latency table", made, inputs=[given.config], option="--table")
    _make_directory(path.parent)
    if own:
        _keep(paths, path)
    configured = configured_runtime(config.latency)
    with bar("timing", "round") as advance:
        backbone = Backbone(
            _given(given.width, config.oracle.supernet.width_mult),
            _given(given.classes, config.oracle.supernet.n_classes),
            _given(given.stem, config.oracle.supernet.stem),
        )
        work = build_table_in_child(
            path,
            backbone,
            _given(given.resolutions, config.oracle.supernet.resolutions),
            replace(
                configured,
                name=_given(given.runtime, TORCH if given.compute == "cuda" else configured.name),
                threads=_given(given.threads, configured.threads),
                networks=_given(given.networks, configured.networks),
                precision=_given(given.precision, configured.precision),
            ),
            _given(given.repeats, config.latency.repeats),
            _shown(advance),
            given.compute,
            batch_size=given.batch_size,
            regime=given.regime,
            sessions=given.sessions,
        )
        table = asyncio.run(work)
    emit(options, summary(named, table), render(summary(named, table)))
    return 0


def _given(value: _Value | None, otherwise: _Value) -> _Value:
    return otherwise if value is None else value


def _shown(advance: Advance) -> ProgressCallback:
    return lambda p: advance(p.done, p.total, p.words)


def _keep(paths: StatePaths, table: Path) -> None:
    """Set the present table aside: an unfinished run can only be continued with the one it was begun with.

    Raises:
        StateLockedError: a daemon is using it.
        UsageError: where it would go lies a file that is not riwoa's.
    """
    if (process := holder(paths)) is not None:
        raise StateLockedError(f"process {process or 'unknown'} serves {paths.state}; stop it first: riwoactl stop")
    if table.exists():
        kept = table.with_suffix(".previous.json")
        if kept.exists() and not is_table(kept):
            raise UsageError(f"{kept} is no latency table, and the present one would take its place; move it away")
        table.replace(kept)
        print(f"the table that was there is now {kept}", file=sys.stderr)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error, "name another place with --table") from None


def _check(arguments: list[str], options: Options) -> int:
    from riwoa.hardware.build import CHECK_NETWORKS, CHECK_ROUNDS
    from riwoa.hardware.check import check_table_in_child

    parser = _parser("check", "The table against random networks that it has not seen; stop the daemon first.")
    parser.add_argument("--networks", type=int, default=CHECK_NETWORKS, metavar="N", help="how many (default: 60)")
    parser.add_argument("--rounds", type=int, default=CHECK_ROUNDS, metavar="N", help="times each (default: 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones are drawn")
    given = parser.parse_args(arguments)
    path = _table_path(given, options)
    with bar("measuring", "round") as advance:
        work = check_table_in_child(path, given.networks, given.rounds, given.seed, _shown(advance))
        found = asyncio.run(work)
    said = remarks(LatencyTable.load(path))
    emit(options, {"table": str(path), **found, "remarks": said}, "\n".join([_render_check(path, found), *said]))
    return 0


def _render_check(path: Path, found: dict[str, Any]) -> str:
    rows = [["predictor", "Spearman", "Kendall", "median error"]]
    rows += [
        [p["predictor"], f"{p['spearman']:.3f}", f"{p['kendall']:.3f}", f"{p['median_error_percent']:.1f} %"]
        for p in found["predictors"]
    ]
    before, after = found["load_average"] if None not in found["load_average"] else (math.nan, math.nan)
    lines = [
        f"{path} against {found['networks']} networks that none of its {found['calibration_networks']} is, "
        f"{found['rounds']} rounds each",
        columns(rows),
        f"level {found['level']:.3f}: calibration networks take that many times what they took; operators "
        f"{found['drift']:.3f}",
        _render_interval(found["interval"]),
        f"disturbance {found['disturbance']:.2f} (1 on an idle device), load {before:.1f} to {after:.1f}",
    ]
    return "\n".join(lines)


def _render_interval(interval: dict[str, Any] | None) -> str:
    if interval is None:
        return "no interval: the table is of format 1"
    return (
        f"interval ±{interval['half_width_percent']:.1f} %, meant for {interval['level']:.0%}: holds "
        f"{interval['coverage']:.0%} of them; at today's level ±{interval['within_percent']:.1f} % holds "
        f"{interval['coverage_at_level']:.0%}"
    )


def _drift(arguments: list[str], options: Options) -> int:
    from riwoa.hardware.drift import ROUNDS, TOLERANCE, check_drift_in_child

    parser = _parser("drift", "Does the table still hold? Exits with 72 where it does not.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"times each (default: {ROUNDS})")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, metavar="X", help=f"of a ratio (default: {TOLERANCE})"
    )
    given = parser.parse_args(arguments)
    path = _table_path(given, options)
    with bar("measuring", "round") as advance:
        work = check_drift_in_child(path, rounds=given.rounds, tolerance=given.tolerance, progress=_shown(advance))
        found = asyncio.run(work)
    emit(options, {"table": str(path), **found.to_json()}, _render_drift(path, found))
    return TableError.exit_code if found.verdict == "drifted" else 0


def _render_drift(path: Path, found: Drift) -> str:
    rows = [["sentinel", "times the table", "from", "to", ""]]
    rows += [[s.name, f"{s.ratio:.3f}", f"{s.low:.3f}", f"{s.high:.3f}", s.verdict] for s in found.sentinels]
    lines = [
        f"{path}: {found.verdict} (tolerance {found.tolerance:.0%}, {found.rounds} rounds, {found.passes} "
        f"{'pass' if found.passes == 1 else 'passes'})",
        columns(rows),
        f"networks {found.networks:.3f}, operators {found.operators:.3f}; an operator is judged against the latter",
        *(f"affects {what}" for what in found.affects),
    ]
    return "\n".join(lines)


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
    kept = ("schema", "device", "libraries", "settings", "backbone", "resolutions", "calibration")
    return {
        "table": str(path),
        "sha256": table.sha256,
        "operators": len(table.entries),
        "range_ms": [least, greatest],
        "auto_target_ms": auto_target_ms(table),
        "correction": dict(table.correction),
        "interval": content.get("interval"),
        "notes": content["notes"],
        "remarks": remarks(table),
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
        ["measured", _render_settings(data["operators"], settings)],
        ["networks", f"from {least:.3f} to {greatest:.3f} ms; auto target {data['auto_target_ms']:.3f} ms"],
        [
            "calibration",
            f"{calibration['networks']} networks: rank correlation {calibration['spearman']:.3f}, "
            f"mean error {calibration['mean_abs_error_percent']:.1f} %",
        ],
        ["", f"a line and a correction for {', '.join(data['correction'])}" if data["correction"] else "a line"],
    ]
    if (interval := data["interval"]) is not None:
        rows.append(["interval", f"±{interval['half_width_percent']:.1f} % at {interval['level']:.0%}"])
        rows += [["", wide]] if (wide := advice(interval["half_width_percent"] / 100)) else []
    rows += [["note", remark] for remark in data["remarks"]]
    return columns(rows)


def _render_settings(operators: int, settings: dict[str, Any]) -> str:
    words = [f"{operators} operators", f"{settings['repeats']} times", spoken(Settings(**settings))]
    if settings["compute"] != "cpu":
        words.append(settings.get("accelerator", "cuda"))
    if settings.get("batch_size", 1) > 1:
        words.append(f"batches of {settings['batch_size']}")
    return ", ".join(words)
