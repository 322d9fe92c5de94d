"""The latency table: measured operators of one device, summed and calibrated into a network's latency. No torch.

A table is one JSON file. It says on which device, with which libraries and settings it was measured, holds statistics
of every operator of a space, and how to get from the sum of operators to the time of a whole network, fitted on whole
networks that were measured among the operators (ruling 6): a straight line, where that is not enough a correction
beside it, and how far off the result may be.

What is summed and predicted is the tenth percentile: the time on the device left to itself. Beside other busy
processes the wall-time sum over 237 operators wandered between 60 and 85 ms in medians, and between 56 and 58 in tenth
percentiles. The table keeps both, and the spread.

Format 2 added to format 1: batch size, regime and accelerator in the settings; correction, interval and the calibration
networks with their times. Format 3 added the runtime, its version, providers and graph level, or the program that is
one; what came before is torch's. An older table keeps its format, so that its hash stays the one that runs recorded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from riwoa.errors import InputError, TableError
from riwoa.files.ownership import begins_with, irregular, json_object, opened_file
from riwoa.hardware.calibration import FEATURES, IDENTITY, Calibration, Interval, KnownNetwork, correction_ms
from riwoa.hardware.probe import Device
from riwoa.hardware.runtime import GRAPH_LEVELS, ONNXRUNTIME, PRECISIONS, RUNTIMES, TORCH, Settings
from riwoa.supernet.geometry import STEMS, Backbone, Operator, all_operators, block_operator, fixed_operators
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig
from riwoa_storage.durable import replace_durably

SCHEMA = 3
_KIND = "riwoa-latency-table"
_OLD_SCHEMA = 1
_OLD_SETTINGS: Mapping[int, tuple[str, ...]] = {
    1: ("compute", "threads", "repeats", "dtype", "memory_format"),
    2: ("compute", "threads", "repeats", "dtype", "memory_format", "batch_size", "regime", "accelerator"),
}
MOST_BATCH = 4096
_MAX_FILE_BYTES = 16 * 2**20
_MAX_KNOWN = 4096
_MOST_RESOLUTIONS = 256
_MAX_MS = 1e7  # near three hours for one operator: not a latency
_REBUILD = "run `riwoactl lut build`"
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Timing:
    """Statistics of one operator's repeats, in milliseconds; ``p10_ms`` is what gets summed."""

    count: int
    mean_ms: float
    std_ms: float
    p10_ms: float
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of every subnet of a backbone on one device."""

    device: Device
    settings: Settings
    backbone: Backbone
    resolutions: tuple[int, ...]
    entries: Mapping[str, Timing]
    calibration: Calibration = IDENTITY
    libraries: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    correction: Mapping[str, float] = field(default_factory=dict)  # milliseconds by feature; empty for a line alone
    interval: Interval | None = None
    known: tuple[KnownNetwork, ...] = ()
    schema: int = SCHEMA

    def operator_ms(self, operator: Operator) -> float:
        """Undisturbed time of one operator, not calibrated.

        Raises:
            TableError: the operator was not measured.
        """
        timing = self.entries.get(operator.key)
        if timing is None:
            raise TableError(f"the latency table lacks the operator {operator.key}; {_REBUILD} to measure it")
        return timing.p10_ms

    def sum_ms(self, config: OfaConfig) -> float:
        """The plain sum of a subnet's operators, not calibrated.

        Raises:
            TableError: an operator was not measured.
        """
        # Two dictionary look-ups a block, no Operator is built: a search asks this for every candidate.
        tables = self._blocks(config.r)
        total = self._fixed_ms(config.r)
        for stage, depth in enumerate(config.d):
            start = stage * BLOCKS
            first, later = tables[stage]
            total += first[config.ks[start], config.e[start]]
            for i in range(start + 1, start + depth):
                total += later[config.ks[i], config.e[i]]
        return total

    def latency_ms(self, config: OfaConfig) -> float:
        """Predicted time of one batch (of one image, unless the settings say more) through the subnet on this device.

        Raises:
            TableError: an operator was not measured.
        """
        line_ms = self.calibration.intercept_ms + self.calibration.slope * self.sum_ms(config)
        return line_ms + self.correction_ms(config) if self.correction else line_ms

    def interval_ms(self, config: OfaConfig) -> tuple[float, float] | None:
        """Where the measured time is expected at the interval's level; None for a table without one.

        Raises:
            TableError: an operator was not measured.
        """
        if self.interval is None:
            return None
        predicted, share = self.latency_ms(config), self.interval.half_width_percent / 100
        return predicted * max(0.0, 1 - share), predicted * (1 + share)

    def correction_ms(self, config: OfaConfig) -> float:
        """The part of ``latency_ms`` that the correction makes; 0 where there is none."""
        if not self.correction:
            return 0.0
        tables, total = self._extra(config.r)
        for stage, depth in enumerate(config.d):
            for block in range(depth):
                i = stage * BLOCKS + block
                total += tables[stage][min(block, 1)][config.ks[i], config.e[i]]
        return total

    def layers_ms(self, config: OfaConfig) -> dict[str, float]:
        """What each block ("stage1.block2") adds to ``latency_ms``, correction included.

        Stem, head and intercept belong to no block; with them the blocks make up ``latency_ms``.

        Raises:
            TableError: an operator was not measured.
        """
        tables = self._shares(config.r)
        found = {}
        for stage, depth in enumerate(config.d):
            for block in range(depth):
                i = stage * BLOCKS + block
                found[f"stage{stage + 1}.block{block + 1}"] = tables[stage][min(block, 1)][config.ks[i], config.e[i]]
        return found

    def extremes(self, resolutions: Sequence[int] | None = None) -> tuple[OfaConfig, OfaConfig]:
        """The fastest and the slowest subnet. Exact: blocks add up, so each is chosen by itself and then the depth.

        Raises:
            TableError: an operator was not measured.
        """
        candidates = [(self._extreme(r, min), self._extreme(r, max)) for r in resolutions or self.resolutions]
        return min((c[0] for c in candidates), key=self.latency_ms), max(
            (c[1] for c in candidates), key=self.latency_ms
        )

    def range_ms(self, resolutions: Sequence[int] | None = None) -> tuple[float, float]:
        """Least and greatest attainable latency over the whole space.

        Raises:
            TableError: an operator was not measured.
        """
        fastest, slowest = self.extremes(resolutions)
        return self.latency_ms(fastest), self.latency_ms(slowest)

    def missing(self, resolutions: Sequence[int], backbone: Backbone) -> list[str]:
        """Keys of the space's operators that the table does not hold."""
        return [op.key for op in all_operators(resolutions, backbone) if op.key not in self.entries]

    def adds_up(self) -> bool:
        """Whether every measured operator of the space still takes time once calibrated and corrected."""
        ops = all_operators(self.resolutions, self.backbone)
        return all(self._share_ms(op) > 0 for op in ops if op.key in self.entries)

    def mismatches(self, device: Device, threads: int) -> list[str]:
        """Why the table does not speak for this device and thread count; empty when it does."""
        found = self.device.differences(device)
        if self.settings.threads != threads:
            found.append(f"threads: {self.settings.threads} is not {threads}")
        return found

    def require(self, device: Device, threads: int) -> None:
        """Raise where the table does not speak for this device.

        Raises:
            TableError: the table was measured on another device or with another number of threads.
        """
        found = self.mismatches(device, threads)
        if found:
            raise TableError(
                f"the latency table was measured elsewhere ({'; '.join(found)}); {_REBUILD} on this device"
            )

    @cached_property
    def sha256(self) -> str:
        """Identity of the content; a search's latencies, and so its digest, depend on it."""
        return _content_hash(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The file's content, without its hash."""
        settings = asdict(self.settings)
        newer = {
            "correction": dict(self.correction),
            "interval": None if self.interval is None else asdict(self.interval),
            "known": [{"architecture": n.config.to_json(), "ms": n.ms} for n in self.known],
        }
        if self.schema == _OLD_SCHEMA:
            newer = {}
        if self.schema in _OLD_SETTINGS:
            settings = {name: settings[name] for name in _OLD_SETTINGS[self.schema]}
        return {
            "kind": _KIND,
            "schema": self.schema,
            "device": self.device.to_json(),
            "device_hash": self.device.hash,
            "libraries": dict(self.libraries),
            "notes": dict(self.notes),
            "settings": settings,
            "backbone": self.backbone.to_json(),
            "resolutions": list(self.resolutions),
            "calibration": asdict(self.calibration),
            **newer,
            "entries": {key: asdict(timing) for key, timing in sorted(self.entries.items())},
        }

    def save(self, path: Path) -> None:
        """Replace the file whole: a reader, or a power cut, sees the old table or the new one, never a part.

        Raises:
            OSError: the directory is missing, full or not writable; an old file is then untouched.
        """
        text = json.dumps({**self.to_json(), "sha256": self.sha256}, indent=1, allow_nan=False)
        replace_durably(path.resolve(), text.encode())

    @staticmethod
    def load(path: Path) -> LatencyTable:
        """Read and check a table.

        Raises:
            TableError: the file is missing, not a table, damaged, of a newer schema, or holds impossible numbers.
        """
        try:
            return _parse(_read(path))
        except _Invalid as error:
            raise TableError(f"latency table {path}: {error}; {_REBUILD}") from None

    def _extreme(self, resolution: int, pick: Callable[..., Any]) -> OfaConfig:
        ks, es, ds = [], [], []
        for first, later in self._shares(resolution):
            (k1, e1), (k2, e2) = pick(first, key=first.__getitem__), pick(later, key=later.__getitem__)
            ks += [k1] + [k2] * (BLOCKS - 1)
            es += [e1] + [e2] * (BLOCKS - 1)
            ds.append(pick(DEPTHS))  # every block takes time
        return OfaConfig(tuple(ks), tuple(es), tuple(ds), resolution)

    @cached_property
    def _block_cache(self) -> dict[int, _StageTimes]:
        return {}

    def _blocks(self, resolution: int) -> _StageTimes:
        """For each stage: (kernel, expansion) -> milliseconds, of its first block and of a later one."""
        found = self._block_cache.get(resolution)
        if found is None:
            found = self._block_cache[resolution] = self._of_blocks(resolution, self.operator_ms)
        return found

    def _of_blocks(self, resolution: int, value: Callable[[Operator], float]) -> _StageTimes:
        def times(stage: int, first: bool) -> _BlockTimes:
            return {
                (k, e): value(block_operator(self.backbone, resolution, stage, first, k, e))
                for k in KERNELS
                for e in EXPANSIONS
            }

        return tuple((times(s, True), times(s, False)) for s in range(1, STAGES + 1))

    @cached_property
    def _share_cache(self) -> dict[int, _StageTimes]:
        return {}

    def _shares(self, resolution: int) -> _StageTimes:
        """For each stage: (kernel, expansion) -> what a block adds to ``latency_ms``, first block and later one."""
        found = self._share_cache.get(resolution)
        if found is None:
            found = self._share_cache[resolution] = self._of_blocks(resolution, self._share_ms)
        return found

    def _share_ms(self, op: Operator) -> float:
        return self.calibration.slope * self.operator_ms(op) + correction_ms(self.correction, op)

    @cached_property
    def _extra_cache(self) -> dict[int, tuple[_StageTimes, float]]:
        return {}

    def _extra(self, resolution: int) -> tuple[_StageTimes, float]:
        """What the correction adds: for each block, and for stem and head together."""
        found = self._extra_cache.get(resolution)
        if found is None:
            start, end = fixed_operators(self.backbone, resolution)
            blocks = self._of_blocks(resolution, lambda op: correction_ms(self.correction, op))
            fixed_ms = sum(correction_ms(self.correction, op) for op in (*start, *end))
            found = self._extra_cache[resolution] = blocks, fixed_ms
        return found

    @cached_property
    def _fixed_cache(self) -> dict[int, float]:
        return {}

    def _fixed_ms(self, resolution: int) -> float:
        found = self._fixed_cache.get(resolution)
        if found is None:
            start, end = fixed_operators(self.backbone, resolution)
            found = self._fixed_cache[resolution] = sum(self.operator_ms(op) for op in (*start, *end))
        return found


_BlockTimes = dict[tuple[int, int], float]
_StageTimes = tuple[tuple[_BlockTimes, _BlockTimes], ...]


def is_table(path: Path) -> bool:
    """Whether a file is a latency table, whole or cut short, and riwoa's to replace."""
    return begins_with(path, f'{{\n "kind": "{_KIND}"'.encode()) or json_object(path).get("kind") == _KIND


class _Invalid(ValueError):
    """A defect of a table file; the path and the way out are added where it is caught."""


def _content_hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    if (kind := irregular(path)) is not None:
        raise _Invalid(f"is {kind}, not a file")
    try:
        with opened_file(path) as stream:
            raw = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _Invalid("the file does not exist") from None
    except OSError as error:
        raise _Invalid(f"cannot be read ({error.strerror})") from None
    except (ValueError, InputError) as error:  # a name that cannot be; no file any more
        raise _Invalid(f"cannot be read ({error})") from None
    if len(raw) > _MAX_FILE_BYTES:
        raise _Invalid(f"larger than {_MAX_FILE_BYTES // 2**20} MiB, so it is not a latency table")
    try:
        data = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except _Invalid:
        raise
    except (ValueError, RecursionError) as error:
        raise _Invalid(f"not valid JSON ({str(error)[:80]})") from None
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise _Invalid(f'not a latency table (no "kind": "{_KIND}")')
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise _Invalid(f"holds {name}, which is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Invalid("names a key twice")
    return found


def _parse(data: dict[str, Any]) -> LatencyTable:
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema not in range(1, SCHEMA + 1):
        raise _Invalid(f"schema {repr(schema)[:40]} is none of 1 to {SCHEMA}, which this version reads")
    claimed = data.pop("sha256", None)
    if claimed is not None and claimed != _content_hash(data):
        raise _Invalid("the content does not match its sha256: the file was damaged or edited")
    entries = _mapping(data, "entries")
    if not entries:
        raise _Invalid("holds no operators")
    old = schema == _OLD_SCHEMA
    settings = _row(Settings, _mapping(data, "settings"), "settings", _OLD_SETTINGS.get(schema))
    backbone = _row(Backbone, {"stem": STEMS[0], **_mapping(data, "backbone")}, "backbone")
    table = LatencyTable(
        device=_device(data),
        settings=_settings(settings),
        backbone=_backbone(backbone),
        resolutions=_resolutions(data.get("resolutions")),
        entries={key: _timing(key, value) for key, value in entries.items()},
        calibration=_row(Calibration, _mapping(data, "calibration"), "calibration"),
        libraries=_mapping(data, "libraries"),
        notes=_mapping(data, "notes"),
        correction={} if old else _correction(_mapping(data, "correction")),
        interval=None if old else _interval(data.get("interval")),
        known=() if old else _known(data.get("known")),
        schema=schema,
    )
    _check_calibration(table)
    return table


def _mapping(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise _Invalid(f"{name!r} is missing or not an object")
    return value


def _row(cls: type[_Row], value: object, where: str, names: Sequence[str] | None = None) -> _Row:
    """A flat dataclass from an object with exactly its fields (or ``names`` of them), numbers finite."""
    if not isinstance(value, dict):
        raise _Invalid(f"{where!r} is not an object")
    kinds = {f.name: str(f.type) for f in fields(cls) if names is None or f.name in names}  # type: ignore[arg-type]
    if set(value) != set(kinds):
        raise _Invalid(f"{where!r} needs exactly the fields {sorted(kinds)}")
    return cls(**{name: _value(value[name], kind, f"{where}.{name}") for name, kind in kinds.items()})


def _value(value: object, kind: str, where: str) -> object:
    if kind in ("str", "Stem") and isinstance(value, str):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_MS:
        return float(value)
    raise _Invalid(f"{where!r} holds {str(value)[:40]!r}, not a sensible {kind}")


def _device(data: Mapping[str, Any]) -> Device:
    try:
        return Device.from_json(_mapping(data, "device"))
    except ValueError as error:
        raise _Invalid(str(error)) from None


def _settings(settings: Settings) -> Settings:
    if settings.threads < 1 or settings.repeats < 1 or settings.compute not in ("cpu", "cuda"):
        raise _Invalid("'settings' needs at least one thread and one repeat, and compute 'cpu' or 'cuda'")
    if not 1 <= settings.batch_size <= MOST_BATCH:
        raise _Invalid(f"'settings' needs a batch size from 1 to {MOST_BATCH}")
    regimes = ("session",) if settings.runtime != TORCH else ("eager", "graph")[: 1 + (settings.compute == "cuda")]
    if settings.runtime not in RUNTIMES or settings.regime not in regimes:
        raise _Invalid(f"'settings' needs one of the runtimes {RUNTIMES}, and of its regimes, here {regimes}")
    if settings.runtime == ONNXRUNTIME and settings.dtype not in PRECISIONS:
        raise _Invalid(f"'settings' needs one of the precisions {PRECISIONS}")
    if settings.runtime == ONNXRUNTIME and settings.graph_level not in GRAPH_LEVELS:
        raise _Invalid(f"'settings' needs one of the graph levels {GRAPH_LEVELS}")
    return settings


def _backbone(backbone: Backbone) -> Backbone:
    sizes = 0 < backbone.width_mult <= 100 and 0 < backbone.n_classes <= 10**6
    if not sizes or backbone.stem not in STEMS:
        raise _Invalid(f"the backbone {backbone} is not one")
    return backbone


def _resolutions(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_RESOLUTIONS:
        raise _Invalid("'resolutions' is missing or not a list of pixels")
    if not all(isinstance(r, int) and not isinstance(r, bool) and 1 <= r <= 10**5 for r in value):
        raise _Invalid("'resolutions' is missing or not a list of pixels")
    return tuple(value)


def _timing(key: str, value: object) -> Timing:
    timing = _row(Timing, value, key)
    ordered = 0 < timing.p10_ms <= timing.p50_ms <= timing.p90_ms
    if not ordered or timing.mean_ms <= 0 or timing.std_ms < 0 or timing.count < 1:
        raise _Invalid(f"operator {key!r} has impossible statistics (needs 0 < p10 <= p50 <= p90, mean > 0, count > 0)")
    return timing


def _correction(value: Mapping[str, Any]) -> dict[str, float]:
    if unknown := sorted(set(value) - set(FEATURES)):
        raise _Invalid(f"the correction counts {unknown[0][:40]!r}; this version knows {sorted(FEATURES)}")
    return {name: _float(weight, f"correction.{name}") for name, weight in value.items()}


def _interval(value: object) -> Interval | None:
    if value is None:
        return None
    interval = _row(Interval, value, "interval")
    least = min(interval.half_width_percent, interval.within_percent, interval.between_percent)
    if not 0 < interval.level < 1 or least < 0 or interval.scores < 1 or interval.sessions < 1:
        raise _Invalid("'interval' needs a level between 0 and 1, widths of 0 or more, and scores it came from")
    return interval


def _known(value: object) -> tuple[KnownNetwork, ...]:
    if not isinstance(value, list) or len(value) > _MAX_KNOWN:
        raise _Invalid(f"'known' is missing or not a list of at most {_MAX_KNOWN} networks")
    return tuple(_known_network(item) for item in value)


def _known_network(value: object) -> KnownNetwork:
    if not isinstance(value, dict) or set(value) != {"architecture", "ms"}:
        raise _Invalid("a known network needs exactly an architecture and its ms")
    ms = _float(value["ms"], "known.ms")
    if ms <= 0:
        raise _Invalid("a known network takes no time at all")
    try:
        return KnownNetwork(OfaConfig.from_json(value["architecture"]), ms)
    except ValueError as error:
        raise _Invalid(f"a known network is none: {error}") from None


def _float(value: object, where: str) -> float:
    found = _value(value, "float", where)
    assert isinstance(found, float)
    return found


def _check_calibration(table: LatencyTable) -> None:
    calibration = table.calibration
    if not math.isfinite(calibration.intercept_ms) or not calibration.slope > 0:
        raise _Invalid("the calibration needs a positive slope")
    if table.correction and not table.adds_up():
        raise _Invalid("the correction gives an operator less than no time")
    if not table.missing(table.resolutions, table.backbone) and table.range_ms()[0] <= 0:
        raise _Invalid("the calibration gives the fastest network no time at all")
