"""What a start with a configuration would be refused for, asked beforehand, all of it at once; nothing is written.

The parts that a start itself uses are asked, one after the other: each may refuse. What takes minutes (decoding a
folder of images, measuring this device) is left to the start.
"""

from __future__ import annotations

from pathlib import Path

from riwoa.config.schema import Config
from riwoa.oracle.attainable import check_metrics, unattainable
from riwoa.oracle.backend import check_pool
from riwoa.oracle.kind import Refusals
from riwoa.oracle.kinds import kind_named
from riwoa.run.strategy import NO_LATENCIES, check_asynchronous, check_front, check_targets
from riwoa.search.space import Space
from riwoa.surrogate.screening import prior_examples


def refusals(config: Config, latency_table: Path) -> list[str]:
    """One line each thing that a start would be refused for; empty where none is known.

    Args:
        config: valid in itself.
        latency_table: where this device's table lies, if it was measured.
    """
    refused = Refusals()

    def checked() -> Space | None:
        oracle = kind_named(config.oracle.kind)
        with oracle.blamed("check a configuration"):
            refused.ask(check_metrics, config, oracle.value.metrics)
            refused.ask(check_front, config)
            refused.ask(check_asynchronous, config)
            refused.ask(check_pool, config)
            refused.ask(check_targets, config)
            for metric, table in config.objective.tables.items():
                found = refused.ask(oracle.value.device_latency, table, config)
                if found is not None:
                    refused.ranges[metric] = found.range_ms
            space = oracle.value.check(refused, config, latency_table)
            of_this_device = any(target.table is None for target in config.objective.targets)
            if of_this_device and not oracle.value.measures_device and "latency_ms" not in refused.ranges:
                refused.found.append(NO_LATENCIES)
            refused.found += unattainable(config, {**oracle.value.known_ranges(config), **refused.ranges})
            return space

    space = refused.ask(checked)
    if space is not None:
        refused.ask(prior_examples, config.search.predictor, space)
    return refused.found
