"""Build the latency table of this machine; also the command that the torch-free daemon runs as a child.

``python -m riwoa.hardware.build build|check|drift|remeasure --table FILE ...`` prints one JSON object a line: progress,
then either ``{"event": "done", ...}`` or ``{"event": "error", ...}``. Torch is imported only where something is
measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.errors import UsageError
from riwoa.files.ownership import unwritable
from riwoa.hardware.calibration import FEATURES, Calibration, KnownNetwork
from riwoa.hardware.drift import ROUNDS as DRIFT_ROUNDS
from riwoa.hardware.drift import TOLERANCE
from riwoa.hardware.lut import MOST_BATCH, LatencyTable
from riwoa.hardware.probe import library_versions, notes, probe, sensors
from riwoa.hardware.process import BuildProgress, ProgressCallback, run_child
from riwoa.hardware.remarks import INT8_WORTH
from riwoa.hardware.runtime import COMMAND, FLOAT32, INT8, ONNXRUNTIME, TORCH, Runtime, Settings
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.ipc.job import answer, report
from riwoa.supernet.geometry import STEMS, Backbone, Operator, all_operators, operators
from riwoa.supernet.space import OfaConfig
from riwoa_storage.durable import new_file

if TYPE_CHECKING:
    from riwoa.hardware.bench import FloatArray, PartialFile
    from riwoa.hardware.fit import Fitted, Model

CHECK_NETWORKS = 60
CHECK_ROUNDS = 100


LEAST_NETWORKS = 10
CALIBRATING = "calibrating the table on whole networks"
SESSIONS = 2  # processes that measure the calibration networks again
_SESSION_ROUNDS = 40
_PARTIAL_SCHEMA = 3
_MOST_WIDTH = 10.0
_MOST_PX = 1024


def build_table(
    path: Path,
    backbone: Backbone,
    resolutions: Sequence[int],
    runtime: Runtime,
    repeats: int = 500,
    progress: ProgressCallback | None = None,
    compute: str = "cpu",
    *,
    batch_size: int = 1,
    regime: str | None = None,
    sessions: int = SESSIONS,
) -> LatencyTable:
    """Time every operator of the space and a set of whole networks in a runtime, calibrate, and write the table.

    Killed at any moment and called again with the same arguments, it continues from the rounds saved beside ``path``.

    Where memory comes to lie is one process's luck: between processes, all networks together moved by 2 % up or down.
    So ``sessions`` more processes measure the networks again; the table is fitted on their medians, and its interval
    knows how far they lie apart.

    Raises:
        TableError: ``compute`` or ``regime`` is not available here.
        UsageError: too few repeats, or a space that is none or does not fit into memory.
        StateDirectoryError, FullDiskError: the table cannot be written.
    """
    from riwoa.hardware import bench
    from riwoa.hardware.remeasure import CALIBRATION_SEED
    from riwoa.hardware.stand import measure_here, network_every, rounds_of

    _check_runtime(runtime, compute, regime)
    settings = _settings(runtime, compute, rounds_of(runtime, repeats), batch_size, regime)
    every = network_every(runtime, bench.NETWORK_EVERY)
    if settings.repeats < 2 * every:
        raise UsageError(f"{repeats} repeats are too few to calibrate on; ask for at least {2 * every}")
    _check_space(backbone, resolutions, batch_size)
    ops = all_operators(resolutions, backbone)
    _check_memory(ops, batch_size)
    configs = bench.spread_configs(resolutions, runtime.networks, CALIBRATION_SEED)
    empty = _empty_table(settings, backbone, resolutions)
    saved = _partial_file(path, empty, configs)
    samples = saved.load(bench.Samples.empty(len(ops), len(configs), settings.repeats, every))
    try:
        saved.save(samples)  # a directory that cannot be written is noticed before the measurement, not after
        measure_here(settings, runtime, ops, configs, backbone, samples, saved, progress)
        raw = replace(
            empty,
            entries={op.key: bench.timing(row) for op, row in zip(ops, samples.operators, strict=True)},
            notes={**empty.notes, **_notes_after(settings, runtime, configs, backbone)},
        )
        again = [] if runtime.name == COMMAND else _sessions(path, raw, configs, sessions, progress)
        table = calibrated(raw, configs, samples.networks, again)
        table.save(path)
    except OSError as error:
        raise unwritable(path, error, "fix the directory") from error
    saved.remove()
    return table


def _notes_after(
    settings: Settings, runtime: Runtime, configs: Sequence[OfaConfig], backbone: Backbone
) -> dict[str, Any]:
    """Clocks and temperatures at the end, and what 8 bits are worth where the table is of them."""
    from riwoa.hardware import bench
    from riwoa.hardware.stand import int8_over_float32

    after: dict[str, Any] = {"sensors_after": sensors(card=bench.card(settings.compute))}
    if runtime.precision == INT8:
        after[INT8_WORTH] = round(int8_over_float32(configs, backbone, runtime, settings.batch_size), 3)
    return after


def _check_runtime(runtime: Runtime, compute: str, regime: str | None) -> None:
    """Refuse what no runtime can do.

    Raises:
        UsageError: says what to ask for instead.
    """
    if runtime.threads < 1:
        raise UsageError(f"a network runs with at least one thread, not {runtime.threads}")
    if runtime.networks < LEAST_NETWORKS:
        raise UsageError(f"{runtime.networks} networks are too few to calibrate on; ask for at least {LEAST_NETWORKS}")
    if runtime.name != TORCH and compute != "cpu":
        raise UsageError(f"{runtime.name} is measured on the CPU alone; {compute} is for --runtime torch")
    if runtime.name != TORCH and regime is not None:
        raise UsageError(f"a regime is torch's way to launch kernels, {runtime.name} has none; ask for --runtime torch")
    if runtime.precision != FLOAT32 and runtime.name != ONNXRUNTIME:
        raise UsageError(f"{runtime.precision} is measured in onnxruntime alone; ask for --runtime onnxruntime")
    if runtime.name == COMMAND and not runtime.command:
        raise UsageError("the runtime is a program, and none is named: set latency.command")


def _settings(runtime: Runtime, compute: str, repeats: int, batch_size: int, regime: str | None) -> Settings:
    from riwoa.hardware import bench

    of_torch = runtime.name == TORCH
    settings = Settings(
        compute,
        runtime.threads,
        repeats,
        dtype=runtime.precision,
        memory_format="contiguous" if compute == "cpu" else "channels_last",
        batch_size=batch_size,
        regime=(regime or ("graph" if compute == "cuda" else "eager")) if of_torch else "session",
        accelerator=bench.accelerator(compute),
        runtime=runtime.name,
        runtime_version=runtime.version,
        providers=runtime.providers,
        graph_level="" if of_torch else runtime.graph_level,
        command=runtime.command if runtime.name == COMMAND else "",
    )
    if of_torch:
        bench.clock_for(compute, runtime.threads, settings.regime)  # refuses a device or regime that is none
    return settings


def _empty_table(settings: Settings, backbone: Backbone, resolutions: Sequence[int]) -> LatencyTable:
    """The table of this device before anything is measured."""
    from riwoa.hardware import bench

    before = {"sensors_before": sensors(card=bench.card(settings.compute))}
    return LatencyTable(
        device=probe(),
        settings=settings,
        backbone=backbone,
        resolutions=tuple(resolutions),
        entries={},
        libraries=library_versions(),
        notes={**notes(), **bench.compute_notes(settings.compute), **before},
    )


def _partial_file(path: Path, empty: LatencyTable, configs: Sequence[OfaConfig]) -> PartialFile:
    """Where the rounds measured so far are saved, beside the table."""
    from riwoa.hardware.bench import PartialFile

    # The notes (load, kernel) may differ when a killed measurement continues; everything else must be the same.
    header = {**empty.to_json(), "notes": None, "partial": _PARTIAL_SCHEMA, "configs": [c.to_json() for c in configs]}
    return PartialFile(path, header)


def calibrated(
    raw: LatencyTable, configs: Sequence[OfaConfig], networks: FloatArray, again: Sequence[Sequence[float]] = ()
) -> LatencyTable:
    """The table with line, correction where it pays, and interval, from whole networks.

    Args:
        raw: the table of operators.
        configs: n networks.
        networks: (n, rounds) milliseconds, measured among the operators.
        again: (sessions, n) milliseconds of the same networks in other processes.
    """
    import numpy as np

    from riwoa.hardware import fit
    from riwoa.hardware.bench import undisturbed_ms

    sessions = np.vstack([undisturbed_ms(networks), *(np.asarray(row)[None] for row in again)])
    measured = np.median(sessions, axis=0)
    sums = np.array([raw.sum_ms(c) for c in configs])
    found = fit.choose(sums, _features(configs, raw.backbone), measured, raw.range_ms()[0], lambda m: _usable(raw, m))
    predicted = found.model.predict(sums, _features(configs, raw.backbone))
    even, odd = fit.halves(networks, undisturbed_ms)
    calibration = Calibration(
        intercept_ms=found.model.intercept_ms,
        slope=found.model.slope,
        networks=len(configs),
        repeats=networks.shape[1],
        spearman=fit.spearman(predicted, measured),
        mean_abs_error_percent=float(np.mean(np.abs(predicted / measured - 1)) * 100),
        repeatability=fit.spearman(even, odd),
        disturbance=float(np.median(np.median(networks, axis=1) / undisturbed_ms(networks))),
    )
    return replace(
        raw,
        calibration=calibration,
        correction=dict(found.model.correction),
        interval=fit.interval(found.left_out_ms, sessions),
        known=tuple(KnownNetwork(c, round(float(ms), 6)) for c, ms in zip(configs, measured, strict=True)),
        notes={**raw.notes, **_choice(found, sessions)},
    )


def _choice(found: Fitted, sessions: FloatArray) -> dict[str, Any]:
    """How the calibration was chosen: leave-one-out errors of both candidates, and the sessions' levels."""
    import numpy as np

    levels = np.median(sessions / np.median(sessions, axis=0), axis=1)
    return {
        "left_out_error_percent": {
            "line": round(found.line_error_percent, 4),
            "correction": round(found.correction_error_percent, 4),
        },
        "session_levels": [round(float(level), 4) for level in levels],
    }


def _features(configs: Sequence[OfaConfig], backbone: Backbone) -> FloatArray:
    import numpy as np

    rows = [
        [math.fsum(count(op) for op in operators(config, backbone)) for count in FEATURES.values()]
        for config in configs
    ]
    return np.array(rows)


def _usable(raw: LatencyTable, model: Model) -> bool:
    line = replace(raw.calibration, intercept_ms=model.intercept_ms, slope=model.slope)
    table = replace(raw, calibration=line, correction=dict(model.correction))
    return table.adds_up() and table.range_ms()[0] > 0


def _sessions(
    path: Path, raw: LatencyTable, configs: Sequence[OfaConfig], count: int, progress: ProgressCallback | None
) -> list[list[float]]:
    """Milliseconds of the networks in ``count`` processes of their own, one after another."""
    if count == 0:
        return []
    began_s, found = time.monotonic(), list[list[float]]()

    def tell(p: BuildProgress) -> None:
        """Of all these processes together."""
        done, total = len(found) * p.total + p.done, count * p.total
        left_s = (time.monotonic() - began_s) / done * (total - done) if done else None
        if progress is not None:
            progress(BuildProgress(done, total, left_s, words=CALIBRATING))

    tell(BuildProgress(0, 0, None))
    # The child reads which networks and which operators from a table: this one, not calibrated yet.
    unfinished = new_file(path)
    replace(raw, known=tuple(KnownNetwork(config, 1.0) for config in configs)).save(unfinished)
    arguments = ["remeasure", "--table", str(unfinished), "--rounds", str(_SESSION_ROUNDS)]
    try:
        while len(found) < count:
            found.append(asyncio.run(run_child(arguments, raw.settings.threads, tell))["networks_ms"])
        return found
    finally:
        unfinished.unlink(missing_ok=True)


def _check_space(backbone: Backbone, resolutions: Sequence[int], batch_size: int) -> None:
    if not resolutions or not all(1 <= r <= _MOST_PX for r in resolutions):
        raise UsageError(f"resolutions need 1 to {_MOST_PX} pixels each, not {list(resolutions)}")
    if not 0 < backbone.width_mult <= _MOST_WIDTH or not 1 <= backbone.n_classes <= 10**6:
        raise UsageError(f"the width needs to be within 0 and {_MOST_WIDTH:g}, the classes at least one: {backbone}")
    if not 1 <= batch_size <= MOST_BATCH:
        raise UsageError(f"the batch size needs to be from 1 to {MOST_BATCH}, not {batch_size}")


def _check_memory(ops: Sequence[Operator], batch_size: int) -> None:
    """Refuse a space whose operators do not fit into memory together: each keeps an input and weights of its own."""
    needed = 4 * sum(op.parameters + batch_size * op.in_c * op.in_h * op.in_w for op in ops) / 2**30
    room = probe().memory_gib / 2
    if room and needed > room:
        raise UsageError(
            f"the operators of this space need {needed:.0f} GiB at batch {batch_size}, half of this device's memory is "
            f"{room:g}; take fewer resolutions or a smaller batch"
        )


# --- as a child ------------------------------------------------------------------------------------------------------


async def build_table_in_child(
    path: Path,
    backbone: Backbone,
    resolutions: Sequence[int],
    runtime: Runtime,
    repeats: int = 500,
    progress: ProgressCallback | None = None,
    compute: str = "cpu",
    *,
    batch_size: int = 1,
    regime: str | None = None,
    sessions: int = SESSIONS,
) -> LatencyTable:
    """``build_table`` in a process of its own, for callers without torch; cancelling kills it, and nothing is lost.

    Raises:
        RiwoaError: as ``build_table``; OracleError when the child dies.
    """
    arguments = [
        "build", "--table", str(path), "--width-mult", repr(backbone.width_mult),
        "--classes", str(backbone.n_classes), "--stem", backbone.stem, "--resolutions", ",".join(map(str, resolutions)),
        "--runtime", json.dumps(asdict(runtime)), "--repeats", str(repeats), "--compute", compute,
        "--batch-size", str(batch_size), "--sessions", str(sessions), *(["--regime", regime] if regime else []),
    ]  # fmt: skip
    await run_child(arguments, runtime.threads, progress)
    return LatencyTable.load(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands and return the exit code."""
    options = _parser().parse_args(argv)
    if options.child:
        die_with_parent()
        watch_stdin()

    def told(p: BuildProgress) -> None:
        report("progress", done=p.done, total=p.total, left_s=p.left_s, words=p.words)

    return answer(lambda: _COMMANDS[options.command](options, progress=told))


def _build(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    try:
        resolutions = [int(r) for r in options.resolutions.split(",")]
    except ValueError:
        raise UsageError(f"--resolutions needs pixels such as 24,32,40, not {options.resolutions!r}") from None
    table = build_table(
        options.table,
        Backbone(options.width_mult, options.classes, options.stem),
        resolutions,
        Runtime(**json.loads(options.runtime)),
        options.repeats,
        progress,
        options.compute,
        batch_size=options.batch_size,
        regime=options.regime,
        sessions=options.sessions,
    )
    return {"table": str(options.table), "sha256": table.sha256, "operators": len(table.entries)}


def _check(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    from riwoa.hardware.check import check_table

    table = LatencyTable.load(options.table)
    return check_table(table, options.networks, options.rounds, options.seed, progress)


def _drift(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    from riwoa.hardware.drift import measure_drift

    return measure_drift(LatencyTable.load(options.table), options.rounds, options.tolerance, progress).to_json()


def _remeasure(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    from riwoa.hardware.bench import undisturbed_ms
    from riwoa.hardware.remeasure import known_networks, remeasure

    table = LatencyTable.load(options.table)
    configs = [network.config for network in known_networks(table)]
    found = remeasure(table, configs, options.rounds, progress)
    return {"networks_ms": [float(ms) for ms in undisturbed_ms(found.samples.networks)]}


_COMMANDS = {"build": _build, "check": _check, "drift": _drift, "remeasure": _remeasure}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m riwoa.hardware.build", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    verbs = parser.add_subparsers(dest="command", required=True)
    build = verbs.add_parser("build", help="measure this machine and write its table")
    build.add_argument("--width-mult", type=float, required=True)
    build.add_argument("--classes", type=int, required=True)
    build.add_argument("--stem", default=STEMS[0], choices=STEMS)
    build.add_argument("--resolutions", required=True, help="pixels, separated by commas")
    build.add_argument("--runtime", default="{}", help="fields of hardware.runtime.Runtime, as JSON")
    build.add_argument("--repeats", type=int, default=500)
    build.add_argument("--compute", default="cpu", choices=("cpu", "cuda"))
    build.add_argument("--batch-size", type=int, default=1)
    build.add_argument("--regime", choices=("eager", "graph"))
    build.add_argument("--sessions", type=int, default=SESSIONS)
    check = verbs.add_parser("check", help="compare a table with whole networks measured now")
    check.add_argument("--networks", type=int, default=CHECK_NETWORKS)
    check.add_argument("--rounds", type=int, default=CHECK_ROUNDS)
    check.add_argument("--seed", type=int, default=0)
    drift = verbs.add_parser("drift", help="measure sentinels again")
    drift.add_argument("--rounds", type=int, default=DRIFT_ROUNDS)
    drift.add_argument("--tolerance", type=float, default=TOLERANCE)
    remeasure = verbs.add_parser("remeasure", help="measure the calibration networks again")
    remeasure.add_argument("--rounds", type=int, default=_SESSION_ROUNDS)
    for verb in (build, check, drift, remeasure):
        verb.add_argument("--table", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
