"""What a start with a configuration would be refused for, asked beforehand, all of it at once; nothing is written.

The parts that a start itself uses are asked, one after the other: each may refuse. What takes minutes (decoding a
folder of images, measuring this device) is left to the start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from riwoa.config.schema import Config
from riwoa.errors import ConfigError, RiwoaError
from riwoa.hardware.obtain import known_table
from riwoa.oracle.protocol import PredictorSpec
from riwoa.oracle.spec import oracle_spec, predictor_spec, table_spec
from riwoa.run.problem import Problem, check_attainable, predictor_problem, table_problem
from riwoa.search.space import Space
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa.surrogate.screening import prior_examples


def refusals(config: Config, latency_table: Path) -> list[str]:
    """One line each thing that a start would be refused for; empty where none is known.

    Args:
        config: valid in itself.
        latency_table: where this device's table lies, if it was measured.
    """
    look = _Look()
    space = {"supernet": _supernet, "table": _table, "predictor": _predictor}[config.oracle.kind](
        look, config, latency_table
    )
    if space is not None:
        look.ask(prior_examples, config.search.predictor, space)
    return look.found


class _Look:
    """Asks one part after the other and keeps what they refuse."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def ask(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """The part's answer, None where it refuses."""
        try:
            return part(*arguments)
        except ConfigError as error:
            self.found += error.problems
        except RiwoaError as error:
            self.found.append(str(error))
        return None


def _supernet(look: _Look, config: Config, latency_table: Path) -> Space:
    spec = look.ask(oracle_spec, config.oracle)
    if spec is not None:
        look.ask(_weights, spec)
        look.ask(_data, spec)
    table = look.ask(known_table, latency_table, config)
    if table is not None:
        look.ask(check_attainable, config, table.range_ms(config.oracle.resolutions))
    return mobilenet_space(config.oracle.resolutions)


def _weights(spec: SupernetSpec) -> None:
    from riwoa.oracle.build import checkpoint_path

    path = checkpoint_path(spec)  # before torch is imported
    from riwoa.supernet.network import Supernet

    Supernet.load(path, spec.width_mult, spec.n_classes, spec.stem)


def _data(spec: SupernetSpec) -> None:
    from riwoa.datasets.catalogue import check_task, task_of

    check_task(task_of(spec), spec)


def _table(look: _Look, config: Config, latency_table: Path) -> Space | None:
    look.ask(table_spec, config.oracle)
    problem = None if look.found else look.ask(table_problem, config)
    return _attained(look, config, problem)


def _predictor(look: _Look, config: Config, latency_table: Path) -> Space | None:
    spec = look.ask(predictor_spec, config.oracle)
    problem = None
    if spec is not None:
        look.ask(_predictor_weights, spec)
        problem = look.ask(predictor_problem, config)
    return _attained(look, config, problem)


def _predictor_weights(spec: PredictorSpec) -> None:
    from riwoa.oracle.predictor import PredictorOracle

    PredictorOracle(spec)


def _attained(look: _Look, config: Config, problem: Problem | None) -> Space | None:
    if problem is None:
        return None
    look.ask(problem.check_target, config)
    return problem.space
