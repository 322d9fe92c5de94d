"""How well a table predicts whole networks that it has not seen, beside simpler predictors and what luck allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.process import ProgressCallback, run_child

LEVEL_NETWORKS = 7


@dataclass(frozen=True, slots=True)
class Agreement:
    """One predictor against the networks as measured; errors are None for one that gives no milliseconds."""

    predictor: str
    spearman: float
    kendall: float
    median_error_percent: float | None
    mean_error_percent: float | None


async def check_table_in_child(
    path: Path, networks: int, rounds: int, seed: int, progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """``check_table`` in a process of its own, for callers without torch.

    Raises:
        RiwoaError: as ``check_table``; OracleError when the child dies.
    """
    threads = LatencyTable.load(path).settings.threads
    options = ["--networks", str(networks), "--rounds", str(rounds), "--seed", str(seed)]
    return await run_child(["check", "--table", str(path), *options], threads, progress)


def check_table(
    table: LatencyTable, networks: int, rounds: int, seed: int = 0, progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Compare the table with random networks that it was not calibrated on, measured now.

    The *ceiling* is how half of this measurement agrees with its other half: no predictor can be seen to do better.
    ``level`` is how many times its known time a calibration network takes now (median of seven, measured among the
    others): how far the device has moved since the table was built. The second predictor is the table times that level.
    MACs and parameters get a line fitted on the calibration networks, as the table did.

    Raises:
        TableError: the table was measured on another device, or lacks an operator.
        UsageError: too few networks or rounds to correlate.
    """
    import numpy as np

    from riwoa.errors import UsageError
    from riwoa.hardware import fit
    from riwoa.hardware.bench import undisturbed_ms
    from riwoa.hardware.probe import notes
    from riwoa.hardware.remeasure import known_networks, remeasure, spread, unseen_configs

    if networks < 3 or rounds < 2:
        raise UsageError("a check needs at least 3 networks and 2 rounds")
    before = notes()["load_average"]
    configs = unseen_configs(table, networks, seed=f"check {seed}")
    known = known_networks(table)
    references = spread(known, LEVEL_NETWORKS)
    found = remeasure(table, [*configs, *(n.config for n in references)], rounds, progress)
    times = found.samples.networks[:networks]
    measured = undisturbed_ms(times)
    level = float(np.median(undisturbed_ms(found.samples.networks[networks:]) / [n.ms for n in references]))
    predicted = np.array([table.latency_ms(c) for c in configs])
    rows = [
        agreement("latency table", predicted, measured),
        agreement("latency table x level", predicted * level, measured),
        agreement("plain sum of operators", [table.sum_ms(c) for c in configs], measured),
        *(agreement(name, _line(name, known, table, configs), measured) for name in _COUNTS),
        agreement("ceiling: half against half", *fit.halves(times, undisturbed_ms)),
    ]
    return {
        "networks": networks,
        "rounds": found.samples.operators.shape[1],
        "calibration_networks": len(known),
        **_summary(rows),
        "disturbance": float(np.median(np.median(times, axis=1) / measured)),
        "level": level,
        "drift": found.operators_ratio(table),
        "interval": _coverage(table, predicted, measured, level),
        "load_average": [before, notes()["load_average"]],
        "table_sha256": table.sha256,
        "rows": [
            {"predicted_ms": float(p), "measured_ms": float(m), "architecture": c.to_json()}
            for p, m, c in zip(predicted, measured, configs, strict=True)
        ],
    }


def _summary(rows: Sequence[Agreement]) -> dict[str, Any]:
    """All predictors, and by name what is asked first: the table (the first of them) and the ceiling (the last)."""
    return {
        "predictors": [asdict(row) for row in rows],
        "spearman": rows[0].spearman,
        "kendall": rows[0].kendall,
        "median_abs_error_percent": rows[0].median_error_percent,
        "mean_abs_error_percent": rows[0].mean_error_percent,
        "repeatability": rows[-1].spearman,
    }


def agreement(name: str, predicted: Any, measured: Any) -> Agreement:
    """Ranks and relative errors of (n,) predictions against (n,) measurements, both in milliseconds."""
    import numpy as np

    from riwoa.hardware import fit

    error = np.abs(np.asarray(predicted) / np.asarray(measured) - 1) * 100
    return Agreement(
        name,
        fit.spearman(predicted, measured),
        fit.kendall(predicted, measured),
        float(np.median(error)),
        float(np.mean(error)),
    )


_COUNTS = ("MACs", "parameters")


def _line(name: str, known: Sequence[Any], table: LatencyTable, configs: Sequence[Any]) -> Any:
    """A line in a count, fitted on the known networks."""
    import numpy as np

    from riwoa.hardware import fit
    from riwoa.supernet.geometry import macs, parameters

    count = macs if name == "MACs" else parameters
    seen = np.array([float(count(n.config, table.backbone)) for n in known])
    model = fit.fit_line(seen, np.array([n.ms for n in known]), float(seen.min()))
    asked = np.array([float(count(c, table.backbone)) for c in configs])
    return model.intercept_ms + model.slope * asked


def _coverage(table: LatencyTable, predicted: Any, measured: Any, level: float) -> dict[str, Any] | None:
    import numpy as np

    if table.interval is None:
        return None

    def share(centre: Any, percent: float) -> float:
        return float(np.mean(np.abs(measured / centre - 1) * 100 <= percent))

    return {
        **asdict(table.interval),
        "coverage": share(predicted, table.interval.half_width_percent),
        "coverage_at_level": share(predicted * level, table.interval.within_percent),
    }
