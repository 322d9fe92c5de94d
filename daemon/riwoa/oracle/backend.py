"""Who runs the workers of a configuration: this machine, or a Ray cluster."""

from __future__ import annotations

from riwoa.config.schema import Config
from riwoa.errors import ConfigError
from riwoa.oracle.pool import LogLine, PoolSettings, WorkerPool
from riwoa.oracle.protocol import OracleSpec, Pool
from riwoa.oracle.ray_nodes import DriverSettings
from riwoa.oracle.ray_pool import OnEvent, RayPool, require_ray


def make_pool(
    config: Config,
    spec: OracleSpec,
    settings: PoolSettings,
    on_log: LogLine | None = None,
    on_event: OnEvent | None = None,
    *,
    oracle_version: str | None = None,
) -> Pool:
    """The pool that a configuration names, not started yet.

    Args:
        config: in force.
        spec: of the oracle.
        settings: limits, and how many workers.
        on_log: gets the lines that workers write.
        on_event: gets what a cluster does that is worth journaling.
        oracle_version: of the run that is continued: a cluster's nodes with another are not used.

    Raises:
        ConfigError: the oracle runs on a GPU, and its evaluations reserve none.
    """
    if config.oracle.pool == "local":
        return WorkerPool(spec, settings, on_log)
    if spec.to_json().get("device") == "cuda" and not config.ray.gpus:
        raise ConfigError(
            "the oracle runs on a GPU, of which Ray gives an evaluation none: set ray.gpus = 1, or "
            "oracle.supernet.device = cpu"
        )
    driver = driver_settings(config, settings.workers)
    return RayPool(spec, settings, driver, config.ray.address, on_log, on_event, oracle_version=oracle_version)


def check_pool(config: Config) -> None:
    """Refuse a pool that cannot be had here, before anything is measured or trained for it.

    Raises:
        ConfigError: Ray is chosen and not installed.
    """
    if config.oracle.pool == "ray":
        require_ray()


def driver_settings(config: Config, workers: int) -> DriverSettings:
    """How the cluster of a configuration is asked."""
    ray = config.ray
    return DriverSettings(
        workers=workers,
        cpus=float(config.oracle.threads) if ray.cpus == "auto" else ray.cpus,
        gpus=ray.gpus,
        resources=ray.reserved,
        spread=ray.spread,
        ship=ray.ship,
        cache=ray.cache or "",
        mixed=ray.mixed,
        straggler_quantile=ray.straggler_quantile,
    )
