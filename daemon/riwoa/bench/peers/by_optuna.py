"""Optuna's samplers, one suggestion at a time."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from riwoa.bench.arena import Arena
from riwoa.bench.landscape import Measured
from riwoa.search.space import IntArray, Space

_MOST_STEPS = 1000  # towards the limit, from one suggestion


def tpe(arena: Arena, seed: int) -> None:
    """Tree-structured Parzen estimators with Optuna's defaults."""
    _search(arena, TPESampler(seed=seed), seed)


def gaussian_process(arena: Arena, seed: int) -> None:
    """Optuna's Gaussian process: log expected improvement, for fronts of the hypervolume."""
    with warnings.catch_warnings():  # a table always gives the same answer, and saying so is called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = GPSampler(seed=seed, deterministic_objective=True)
    _search(arena, sampler, seed)


def _search(arena: Arena, sampler: BaseSampler, seed: int) -> None:
    """One suggestion at a time, moved to within the limit, and told where it came to lie."""
    study, genes, rng = _study(arena, sampler), _distributions(arena.space), np.random.default_rng(seed)
    while True:
        trial = study.ask(genes)
        suggested = _indices(arena.space, trial.params)
        indices = moved_within(arena, suggested, rng)
        values = _values(arena, arena.query(indices))
        if values is None or (indices != suggested).any():
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, values)
            continue
        if values is not None:
            params = _params(arena.space, indices)
            study.add_trial(optuna.create_trial(params=params, distributions=genes, values=values))


def _study(arena: Arena, sampler: BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if arena.landscape.front else [])]
    return optuna.create_study(directions=directions, sampler=sampler)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {
        gene.name: CategoricalDistribution(range(len(gene.choices)))
        if gene.kind == "nominal"
        else IntDistribution(0, len(gene.choices) - 1)
        for gene in space.genes
    }


def _indices(space: Space, params: dict[str, Any]) -> IntArray:
    return np.array([params[gene.name] for gene in space.genes], dtype=np.int64)


def _params(space: Space, indices: IntArray) -> dict[str, Any]:
    return {gene.name: int(index) for gene, index in zip(space.genes, indices, strict=True)}


def _values(arena: Arena, measured: Measured) -> list[float] | None:
    """What Optuna is told; None where it could not be measured."""
    if math.isnan(measured.value):
        return None
    return [measured.value, measured.load] if arena.landscape.front else [measured.value]


def moved_within(arena: Arena, indices: IntArray, rng: np.random.Generator) -> IntArray:
    """The architecture, moved until it keeps the limit: by random steps that do not make its excess greater."""
    excess = arena.excess(indices)
    for _ in range(_MOST_STEPS):
        if excess <= 0:
            break
        gene = int(rng.integers(len(arena.space)))
        near = arena.space.neighbours(gene, int(indices[gene]))
        if not near:
            continue
        step = indices.copy()
        step[gene] = rng.choice(near)
        beyond = arena.excess(step)
        if beyond <= excess:
            indices, excess = step, beyond
    return indices
