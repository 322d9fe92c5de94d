"""Which latency table a search uses: the state directory's, the shipped one where it fits this device, or a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from riwoa.errors import TableError
from riwoa.files.ownership import unwritable
from riwoa.hardware.build import build_table_in_child
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.probe import probe
from riwoa.hardware.process import BuildProgress, ProgressCallback
from riwoa.hardware.runtime import configured_runtime, runtime_mismatches
from riwoa.log import get_logger
from riwoa.paths import shipped
from riwoa.supernet.geometry import Backbone

if TYPE_CHECKING:
    from riwoa.config.schema import Config

_log = get_logger("latency")


def shipped_table() -> Path:
    """The table of the reference machine."""
    return shipped("latency_lut.json")


async def obtain_table(path: Path, config: Config, progress: ProgressCallback | None = None) -> LatencyTable:
    """The table at ``path``, put there first if need be.

    A table that lies there already was chosen or measured by the user: when it does not fit, it is refused.

    Raises:
        TableError: the table at ``path`` is damaged, of another device, or lacks operators.
        StateDirectoryError, FullDiskError: the new table cannot be written.
    """
    backbone = backbone_of(config)
    resolutions, runtime = config.oracle.supernet.resolutions, configured_runtime(config.latency)
    table = _present(path, backbone, config)
    if table is None and (ours := _shipped(backbone, config)) is not None:
        table = _copied(ours, path)
    return table or await build_table_in_child(path, backbone, resolutions, runtime, config.latency.repeats, progress)


def _present(path: Path, backbone: Backbone, config: Config) -> LatencyTable | None:
    """The table that lies at ``path``, if one does."""
    if not path.exists():
        return None
    table = LatencyTable.load(path)
    table.require(probe(), config.latency.threads)
    if differs := runtime_mismatches(table.settings, config.latency):
        raise TableError(
            f"the latency table {path} is of another runtime ({'; '.join(differs)}); run `riwoactl lut build`, or "
            "change the setting back"
        )
    if table.settings.batch_size != 1:
        raise TableError(
            f"the latency table {path} is of {table.settings.batch_size} images at once, a search wants one image's "
            "latency; run `riwoactl lut build`"
        )
    missing = table.missing(config.oracle.supernet.resolutions, backbone)
    if missing:
        raise TableError(
            f"the latency table {path} lacks {len(missing)} operators of this space, first {missing[0]}; "
            "run `riwoactl lut build`"
        )
    return table


def known_table(path: Path, config: Config) -> LatencyTable | None:
    """The table that ``obtain_table`` would use without measuring; None where it would measure. Writes nothing.

    Raises:
        TableError: as ``obtain_table``.
    """
    backbone = backbone_of(config)
    return _present(path, backbone, config) or _shipped(backbone, config)


def backbone_of(config: Config) -> Backbone:
    """The network that a configuration's supernet is of."""
    return Backbone(config.oracle.supernet.width_mult, config.oracle.supernet.n_classes, config.oracle.supernet.stem)


def _shipped(backbone: Backbone, config: Config) -> LatencyTable | None:
    """The table of the reference machine, where this is such a machine."""
    try:
        table = LatencyTable.load(shipped_table())
    except TableError as error:
        _log.info("shipped_table_unusable", reason=str(error))
        return None
    differs = table.mismatches(probe(), config.latency.threads)
    wanted = configured_runtime(config.latency)
    if (wanted.name, wanted.version, wanted.graph_level, wanted.precision) != (
        table.settings.runtime,
        table.settings.runtime_version,
        table.settings.graph_level,
        table.settings.dtype,
    ):
        differs.append("of another runtime")
    return None if differs or table.missing(config.oracle.supernet.resolutions, backbone) else table


def _copied(table: LatencyTable, path: Path) -> LatencyTable:
    try:
        table.save(path)
    except OSError as error:
        raise unwritable(path, error, "choose another place with --state") from None
    return table


__all__ = ["BuildProgress", "backbone_of", "known_table", "obtain_table", "shipped_table"]
