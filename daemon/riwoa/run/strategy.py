"""The strategy that a configuration names: riwoa's own, or another package's (entry points ``riwoa.strategies``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from riwoa.config.extended import plugin_of
from riwoa.config.schema import Config
from riwoa.errors import ConfigError
from riwoa.plugins import Named, Plugin
from riwoa.run.task import SearchTask
from riwoa.search.base import LatencyOf, Outcome, PopulationStrategy, Proposal, SearchParameters, Strategy
from riwoa.search.fitness import Objective
from riwoa.search.racing import Racing
from riwoa.search.space import Space
from riwoa.search.strategies import STRATEGIES
from riwoa.search.targets import LoadsEach
from riwoa.surrogate.screening import Screening

NO_LATENCIES = "[[target]]: there are no latencies of this device; name the table of each target"


def strategy_named(name: str) -> Named[type[PopulationStrategy]]:
    """The class of a strategy.

    Raises:
        ConfigError: none has this name, or another package's is no strategy.
    """
    if name in STRATEGIES:
        return Named(STRATEGIES[name])
    plugin = plugin_of("search", name)
    if not (isinstance(plugin.value, type) and issubclass(plugin.value, PopulationStrategy)):
        raise ConfigError(f"the package {plugin.package}: {name} must be a class that derives from PopulationStrategy")
    return Named(type(plugin.value.__name__, (_Guarded, plugin.value), {"plugin": plugin}), plugin)


class _Guarded(PopulationStrategy):
    """Stands before another package's strategy among its bases, so that its faults name the package.

    What is said on purpose (``CallOrderError``, ``SearchInputError``) becomes a line, too: the caller made no mistake.
    """

    plugin: ClassVar[Plugin]

    def ask(self, most: int | None = None) -> list[Proposal]:
        """See ``Strategy.ask``."""
        with self.plugin.blamed("propose candidates"):
            return super().ask(most)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``."""
        with self.plugin.blamed("learn from outcomes"):
            super().tell(outcomes)


def search_parameters(config: Config, p_semantic: float) -> SearchParameters:
    """The strategy's settings, with the share of attacks that are semantic: of ``[search]`` and of its own table.

    Raises:
        ConfigError: there is no such strategy.
        PluginError: another package's refuses them.
    """
    search = config.search
    strategy = strategy_named(search.strategy)
    given: dict[str, Any] = search.model_dump() | (search.settings.model_dump() if search.settings is not None else {})
    given |= {"generations": config.run.generations, "p_semantic": p_semantic}
    given |= {"counterfactual_share": config.cognition.counterfactual_share}
    with strategy.blamed("take its parameters"):
        known = {field.name for field in dataclasses.fields(strategy.value.parameters)}
        return strategy.value.parameters(**{name: value for name, value in given.items() if name in known})


def configured_strategy(
    config: Config,
    space: Space,
    objective: Objective,
    p_semantic: float,
    latency_of: LatencyOf,
    loads_each: LoadsEach | None = None,
) -> Strategy:
    """A fresh strategy, as the configuration names it.

    Args:
        config: in force.
        space: what is searched.
        objective: what a candidate is worth.
        p_semantic: share of attacks that are semantic.
        latency_of: tells the latency of a phenotype where it costs nothing; for strategies that use it.
        loads_each: tells the loads for each target, where there are several devices.

    Raises:
        ConfigError: there is no such strategy.
        PluginError: another package's cannot be made.
    """
    strategy = strategy_named(config.search.strategy)
    parameters = search_parameters(config, p_semantic)
    with strategy.blamed("make its strategy"):
        known = latency_of if strategy.value.uses_latency else None
        of_targets = {} if loads_each is None else {"loads_each": loads_each}
        return strategy.value(space, objective, config.run.seed, parameters, known, **of_targets)


def candidates_are_joint(config: Config) -> bool:
    """Whether the configured strategy chooses jointly what it asks at once."""
    return strategy_named(config.search.strategy).value.of_scores(search_parameters(config, 0.0))


def candidates_a_generation(config: Config) -> int:
    """How many candidates of the configured strategy a generation commits."""
    if config.search.asynchronous:
        return 1
    return config.search.offspring if candidates_are_joint(config) else config.search.population


def scheduled_generations(config: Config) -> int:
    """Generations that the search commits, at most."""
    return config.search.commits(config.run.generations)


def check_asynchronous(config: Config) -> None:
    """Refuse to ask asynchronously where nobody can.

    Raises:
        ConfigError: says what to set instead.
    """
    if not config.search.asynchronous:
        return
    if not candidates_are_joint(config):
        raise ConfigError(
            f"search.asynchronous: search.strategy = {config.search.strategy}, as it is set, asks for a whole "
            "population; set riwoa, or gp, or search.asynchronous = false"
        )
    if config.oracle.rungs:
        raise ConfigError(
            "search.asynchronous: a generation gives up candidates on oracle.rungs together; leave oracle.rungs out, "
            "or set search.asynchronous = false"
        )


def check_front(config: Config) -> None:
    """Refuse a front where nobody can search one.

    Raises:
        ConfigError: says what to set instead.
    """
    if config.objective.kind != "front":
        return
    if not candidates_are_joint(config):
        raise ConfigError(
            f"objective.kind = front: search.strategy = {config.search.strategy}, as it is set, looks for one network; "
            "set riwoa, or gp"
        )
    if config.oracle.settings.answers_latency:
        raise ConfigError(
            "objective.kind = front: latencies must be known before a network is evaluated, and this oracle answers "
            "them; set objective.kind = best, and a latency_ms"
        )


def check_targets(config: Config) -> None:
    """Refuse targets of several devices where nobody can search for them.

    Raises:
        ConfigError: says what to set instead.
    """
    targets, search = config.objective.targets, config.search
    if not targets:
        return
    if not candidates_are_joint(config):
        raise ConfigError(
            f"[[target]]: search.strategy = {search.strategy}, as it is set, looks for one network; set riwoa, or gp"
        )
    if config.oracle.settings.answers_latency:
        raise ConfigError(
            "[[target]]: latencies must be known before a network is evaluated, and this oracle answers them; limit "
            "them in objective.constraints, a run a device"
        )
    if config.oracle.rungs:
        raise ConfigError(
            "[[target]]: what oracle.rungs would give up may be the best for one of the devices; leave oracle.rungs out"
        )
    if len(targets) > search.population:
        raise ConfigError(
            f"[[target]]: {len(targets)} devices need a search.population of at least as many, not {search.population}"
        )


def screens(config: Config) -> bool:
    """Whether the configured strategy chooses among drawn children by a predictor."""
    return strategy_named(config.search.strategy).value.screens(search_parameters(config, 0.0))


def learns_failures(config: Config) -> bool:
    """Whether what fails or is given up teaches the predictor of the configured strategy."""
    return candidates_are_joint(config) and bool(getattr(search_parameters(config, 0.0), "learn_failures", False))


def racing_of(config: Config) -> Racing:
    """What learns whom a run may give up early."""
    rungs, confidence = [*map(str, config.oracle.rungs)], config.oracle.rung_confidence
    return Racing(rungs, confidence, config.run.seed, teaches=learns_failures(config))


def screening_of(config: Config, task: SearchTask) -> Screening | None:
    """The predictor that the configured strategy chooses by; None where it uses none."""
    if not screens(config):
        return None
    return Screening(
        task.space,
        task.prior,
        related=task.related,
        of_scores=candidates_are_joint(config),
        of_failures=learns_failures(config),
    )
