"""How many worker processes an oracle gets on this machine, and how long they may take. No torch."""

from __future__ import annotations

from dataclasses import replace

from riwoa.config.schema import OFFSPRING, Oracle
from riwoa.limits import usable_cores
from riwoa.oracle.kinds import kind_named
from riwoa.oracle.pool import PoolSettings


def pool_settings(oracle: Oracle, kept_cores: int = 0) -> PoolSettings:
    """The pool's limits; ``kept_cores`` are left to others where the number of workers is ours to choose."""
    limits = PoolSettings(
        workers=worker_count(oracle, kept_cores),
        evaluation_timeout_s=oracle.timeout_s,
        memory_limit_bytes=oracle.memory_bytes,
    )
    start_timeout_s = kind_named(oracle.kind).value.start_timeout_s(oracle)
    return limits if start_timeout_s is None else replace(limits, start_timeout_s=start_timeout_s)


def worker_count(oracle: Oracle, kept_cores: int = 0) -> int:
    """Worker processes: as configured, or as many as the usable cores can run at ``threads`` each.

    No more than the kind of oracle allows: each of a supernet holds memory, on a GPU a context of its own.
    """
    if oracle.workers != "auto":
        return int(oracle.workers)
    if oracle.pool == "ray":
        return OFFSPRING  # what a search asks at once by itself; how many a cluster could hold changes while it runs
    by_cores = int(usable_cores() - kept_cores) // oracle.threads
    by_kind = kind_named(oracle.kind).value.most_workers(oracle)
    return max(1, by_cores if by_kind is None else min(by_cores, by_kind))
