"""SMAC's random forest with expected improvement (Lindauer et al., JMLR 2022), one suggestion at a time."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ConfigSpace import CategoricalHyperparameter, Configuration, ConfigurationSpace, UniformIntegerHyperparameter
from smac import HyperparameterOptimizationFacade, Scenario
from smac.runhistory import StatusType, TrialInfo, TrialValue

from riwoa.bench.arena import Arena
from riwoa.bench.peers.by_optuna import moved_within
from riwoa.search.space import IntArray, Space


def smac(arena: Arena, seed: int) -> None:
    """SMAC with its defaults for hyperparameters; moved to within the limit, and told where it came to lie."""
    logging.getLogger("smac").setLevel(logging.ERROR)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        optimiser, genes = _optimiser(arena, seed, Path(folder))
        costs: list[float] = []
        while True:
            trial = optimiser.ask()
            suggested = np.array([trial.config[gene.name] for gene in arena.space.genes], dtype=np.int64)
            indices = moved_within(arena, suggested, rng)
            value = arena.query(indices).value
            told = TrialInfo(_configuration(arena.space, genes, indices), seed=trial.seed)
            if math.isnan(value):  # as bad as the worst: it takes no infinity
                failed = TrialValue(max(costs, default=0.0), status=StatusType.CRASHED)
                optimiser.tell(told, failed, save=False)
            else:
                costs.append(-value)
                optimiser.tell(told, TrialValue(-value), save=False)


def _optimiser(arena: Arena, seed: int, folder: Path) -> tuple[Any, ConfigurationSpace]:
    genes = ConfigurationSpace(seed=seed)
    for gene in arena.space.genes:
        count = len(gene.choices)
        if gene.kind == "nominal" or count == 1:
            genes.add(CategoricalHyperparameter(gene.name, list(range(count))))
        else:
            genes.add(UniformIntegerHyperparameter(gene.name, 0, count - 1))
    scenario = Scenario(genes, output_directory=folder, deterministic=True, n_trials=arena.budget, seed=seed)
    return HyperparameterOptimizationFacade(scenario, _never, logging_level=False, overwrite=True), genes


def _never(config: Configuration, seed: int = 0) -> float:
    """What SMAC would call, if it were not asked and told."""
    raise NotImplementedError


def _configuration(space: Space, genes: ConfigurationSpace, indices: IntArray) -> Configuration:
    return Configuration(genes, {gene.name: int(i) for gene, i in zip(space.genes, indices, strict=True)})
