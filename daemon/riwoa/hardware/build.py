"""Build and check the latency table of this machine; also a command that the torch-free daemon runs as a child.

``python -m riwoa.hardware.build build|check --table FILE ...`` prints one JSON object a line: progress, then either
``{"event": "done", ...}`` or ``{"event": "error", ...}``. Torch is imported only where something is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.child import child_environment, die_with_parent, error_from_json, error_to_json, watch_stdin
from riwoa.errors import OracleError, RiwoaError, StateDirectoryError, UsageError
from riwoa.hardware.lut import Calibration, LatencyTable, Settings
from riwoa.hardware.probe import library_versions, notes, probe
from riwoa.oracle.geometry import STEMS, Backbone, all_operators, operators
from riwoa.oracle.mobilenet import OfaConfig

if TYPE_CHECKING:
    from riwoa.hardware.bench import FloatArray, Samples

CALIBRATION_NETWORKS = 24
CHECK_NETWORKS = 25
CHECK_ROUNDS = 100
_PARTIAL_SCHEMA = 2
_REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a measurement is. ``left_s`` extrapolates from the rounds of this process."""

    done: int
    total: int
    left_s: float | None


ProgressCallback = Callable[[BuildProgress], None]


def build_table(
    path: Path,
    backbone: Backbone,
    resolutions: Sequence[int],
    threads: int,
    repeats: int = 500,
    progress: ProgressCallback | None = None,
    compute: str = "cpu",
) -> LatencyTable:
    """Time every operator of the space and a set of whole networks here, calibrate, and write the table.

    Killed at any moment and called again with the same arguments, it continues from the rounds saved beside ``path``.

    Raises:
        TableError: ``compute`` is not available here.
        UsageError: too few repeats.
        StateDirectoryError: the table cannot be written.
    """
    from riwoa.hardware import bench

    clock = bench.clock_for(compute, threads)
    if repeats < 2 * bench.NETWORK_EVERY:
        raise UsageError(f"{repeats} repeats are too few to calibrate on; ask for at least {2 * bench.NETWORK_EVERY}")
    ops = all_operators(resolutions, backbone)
    configs = bench.spread_configs(resolutions, CALIBRATION_NETWORKS, seed="calibration")
    empty = LatencyTable(
        device=probe(),
        settings=Settings(
            compute, threads, repeats, memory_format="contiguous" if compute == "cpu" else "channels_last"
        ),
        backbone=backbone,
        resolutions=tuple(resolutions),
        entries={},
        libraries=library_versions(),
        notes=notes(),
    )
    # The notes (load, kernel) may differ when a killed measurement continues; everything else must be the same.
    header = {**empty.to_json(), "notes": None, "partial": _PARTIAL_SCHEMA, "configs": [c.to_json() for c in configs]}
    saved = bench.PartialFile(path, header)
    samples = saved.load(bench.Samples.empty(len(ops), len(configs), repeats))
    try:
        saved.save(samples)  # a directory that cannot be written is noticed before the measurement, not after
        with bench.thread_count(threads):
            operator_items = bench.operator_items(ops, compute)
            network_items = bench.network_items(configs, backbone, compute)
            bench.measure(operator_items, network_items, samples, clock, saved, _throttled(progress))
        table = _calibrated(empty, [op.key for op in ops], configs, samples)
        table.save(path)
    except OSError as error:
        message = f"cannot write the latency table {path}: {error.strerror}; free or fix the directory"
        raise StateDirectoryError(message) from error
    saved.remove()
    return table


def check_table(
    table: LatencyTable,
    networks: int = CHECK_NETWORKS,
    rounds: int = CHECK_ROUNDS,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Compare the table with whole networks that it was not calibrated on, measured now.

    ``drift`` is how much slower (above 1) operators are now than when the table was built: it moves the error, not the
    ranking. ``repeatability`` bounds the correlations that any table could show against this measurement.

    Raises:
        TableError: the table was measured on another device, or lacks an operator.
    """
    from riwoa.hardware import bench

    table.require(probe(), table.settings.threads)
    clock = bench.clock_for(table.settings.compute, table.settings.threads)
    configs = bench.random_configs(table.resolutions, networks, seed=f"check {seed}")
    ops = operators(configs[0], table.backbone)
    predicted = [table.latency_ms(c) for c in configs]
    compute = table.settings.compute
    samples = bench.Samples.empty(len(ops), networks, rounds * bench.NETWORK_EVERY)
    with bench.thread_count(table.settings.threads):
        operator_items = bench.operator_items(ops, compute)
        network_items = bench.network_items(configs, table.backbone, compute)
        bench.measure(operator_items, network_items, samples, clock, progress=_throttled(progress))
    expected = [table.operator_ms(op) for op in ops]
    drift = float(sum(bench.undisturbed_ms(samples.operators)) / sum(expected))
    return {
        **_agreement(predicted, samples.networks),
        "networks": networks,
        "rounds": rounds,
        "drift": drift,
        "table_sha256": table.sha256,
        "rows": [
            {"predicted_ms": p, "measured_ms": float(m), "architecture": c.to_json()}
            for p, m, c in zip(predicted, bench.undisturbed_ms(samples.networks), configs, strict=True)
        ],
    }


def _calibrated(
    empty: LatencyTable, keys: Sequence[str], configs: Sequence[OfaConfig], samples: Samples
) -> LatencyTable:
    from dataclasses import replace

    from riwoa.hardware import bench

    raw = replace(empty, entries={k: bench.timing(row) for k, row in zip(keys, samples.operators, strict=True)})
    sums = [raw.sum_ms(c) for c in configs]
    intercept_ms, slope = _fit(sums, bench.undisturbed_ms(samples.networks), raw.range_ms()[0])
    agreement = _agreement([intercept_ms + slope * s for s in sums], samples.networks)
    calibration = Calibration(
        intercept_ms=intercept_ms,
        slope=slope,
        networks=len(configs),
        repeats=samples.networks.shape[1],
        spearman=agreement["spearman"],
        mean_abs_error_percent=agreement["mean_abs_error_percent"],
        repeatability=agreement["repeatability"],
        disturbance=agreement["disturbance"],
    )
    return replace(raw, calibration=calibration)


def _fit(sums: Sequence[float], measured: FloatArray, least_sum_ms: float) -> tuple[float, float]:
    """Theil-Sen: a few disturbed networks cannot tilt it. Through the origin where that would be no latency at all."""
    import numpy as np
    from scipy import stats

    line = stats.theilslopes(measured, sums)
    if line.slope > 0 and line.intercept + line.slope * least_sum_ms > 0:
        return float(line.intercept), float(line.slope)
    return 0.0, float(np.median(measured / np.asarray(sums)))


def _agreement(predicted: Sequence[float], networks: FloatArray) -> dict[str, float]:
    """Ranks and errors of predictions against (networks, rounds) milliseconds."""
    import numpy as np
    from scipy import stats

    from riwoa.hardware.bench import undisturbed_ms

    measured = undisturbed_ms(networks)
    even, odd = undisturbed_ms(networks[:, ::2]), undisturbed_ms(networks[:, 1::2])
    return {
        "spearman": float(stats.spearmanr(predicted, measured).statistic),
        "kendall": float(stats.kendalltau(predicted, measured).statistic),
        "mean_abs_error_percent": float(np.mean(np.abs(np.asarray(predicted) - measured) / measured) * 100),
        "repeatability": float(stats.spearmanr(even, odd).statistic),
        "disturbance": float(np.median(np.median(networks, axis=1) / measured)),
    }


def _throttled(progress: ProgressCallback | None) -> Callable[[int, int], None] | None:
    """A few reports a second, with the time left."""
    if progress is None:
        return None
    start_s, first, last_s = time.monotonic(), -1, 0.0

    def report(done: int, total: int) -> None:
        nonlocal first, last_s
        now_s = time.monotonic()
        first = done if first < 0 else first
        if done < total and now_s - last_s < _REPORT_EVERY_S:
            return
        last_s = now_s
        taken = done - first
        progress(BuildProgress(done, total, (now_s - start_s) / taken * (total - done) if taken else None))

    return report


# --- as a child ------------------------------------------------------------------------------------------------------


async def build_table_in_child(
    path: Path,
    backbone: Backbone,
    resolutions: Sequence[int],
    threads: int,
    repeats: int = 500,
    progress: ProgressCallback | None = None,
    compute: str = "cpu",
) -> LatencyTable:
    """``build_table`` in a process of its own, for callers without torch; cancelling kills it, and nothing is lost.

    Raises:
        RiwoaError: as ``build_table``; OracleError when the child dies.
    """
    arguments = [
        "--child", "build", "--table", str(path), "--width-mult", repr(backbone.width_mult),
        "--classes", str(backbone.n_classes), "--stem", backbone.stem, "--resolutions", ",".join(map(str, resolutions)),
        "--threads", str(threads), "--repeats", str(repeats), "--compute", compute,
    ]  # fmt: skip
    await _run_child(arguments, threads, progress)
    return LatencyTable.load(path)


async def check_table_in_child(path: Path, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """``check_table`` in a process of its own, for callers without torch.

    Raises:
        RiwoaError: as ``check_table``; OracleError when the child dies.
    """
    threads = LatencyTable.load(path).settings.threads
    return await _run_child(["--child", "check", "--table", str(path)], threads, progress)


async def _run_child(arguments: list[str], threads: int, progress: ProgressCallback | None) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "riwoa.hardware.build", *arguments),
        stdin=asyncio.subprocess.PIPE,  # held open: its end is how the child learns that we are gone
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(threads),
        start_new_session=True,
        limit=2**20,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and progress is not None:
                progress(BuildProgress(event["done"], event["total"], event["left_s"]))
            elif event["event"] == "error":
                raise error_from_json(event)
            elif event["event"] == "done":
                return dict(event["result"])
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    raise OracleError(f"the latency measurement died with status {code}; run it again, it continues where it was")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see the module's first lines."""
    options = _parser().parse_args(argv)
    if options.child:
        die_with_parent()
        watch_stdin()

    def report(p: BuildProgress) -> None:
        _print({"event": "progress", "done": p.done, "total": p.total, "left_s": p.left_s})

    try:
        result = _COMMANDS[options.command](options, progress=report)
    except RiwoaError as error:
        _print({"event": "error", **error_to_json(error), "exit_code": error.exit_code})
        return error.exit_code
    _print({"event": "done", "result": result})
    return 0


def _build(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    try:
        resolutions = [int(r) for r in options.resolutions.split(",")]
    except ValueError:
        raise UsageError(f"--resolutions needs pixels such as 24,32,40, not {options.resolutions!r}") from None
    backbone = Backbone(options.width_mult, options.classes, options.stem)
    table = build_table(
        options.table, backbone, resolutions, options.threads, options.repeats, progress, compute=options.compute
    )
    return {"table": str(options.table), "sha256": table.sha256, "operators": len(table.entries)}


def _check(options: argparse.Namespace, progress: ProgressCallback) -> dict[str, Any]:
    return check_table(
        LatencyTable.load(options.table), options.networks, options.rounds, options.seed, progress=progress
    )


_COMMANDS = {"build": _build, "check": _check}


def _print(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m riwoa.hardware.build", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    verbs = parser.add_subparsers(dest="command", required=True)
    build = verbs.add_parser("build", help="measure this machine and write its table")
    build.add_argument("--width-mult", type=float, required=True)
    build.add_argument("--classes", type=int, required=True)
    build.add_argument("--stem", default=STEMS[0], choices=STEMS)
    build.add_argument("--resolutions", required=True, help="pixels, separated by commas")
    build.add_argument("--threads", type=int, required=True)
    build.add_argument("--repeats", type=int, default=500)
    build.add_argument("--compute", default="cpu", choices=("cpu", "cuda"))
    check = verbs.add_parser("check", help="compare a table with whole networks measured now")
    check.add_argument("--networks", type=int, default=CHECK_NETWORKS)
    check.add_argument("--rounds", type=int, default=CHECK_ROUNDS)
    check.add_argument("--seed", type=int, default=0)
    for verb in (build, check):
        verb.add_argument("--table", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
