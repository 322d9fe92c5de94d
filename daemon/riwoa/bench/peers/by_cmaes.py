"""CMA-ES with margin for ordered genes, and CatCMA with margin for any (Hamano et al., 2022 and 2025), by ``cmaes``."""

from __future__ import annotations

import math

import numpy as np
from cmaes import CatCMAwM, CMAwM

from riwoa.bench.arena import Arena
from riwoa.errors import UsageError
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray, Space

_FINE = 1000  # choices from which a gene counts as continuous
_BEYOND = 1e12  # worse than any value


def cma_es(arena: Arena, seed: int) -> None:
    """CMA-ES with margin in the unit cube, from its middle with a step size of 0.3; plain CMA-ES where genes are fine.

    Where it has converged it begins again with twice the population (IPOP, Auger and Hansen, 2005).

    Raises:
        UsageError: a gene has no order.
    """
    cards = arena.space.cardinalities
    if any(gene.kind == "nominal" for gene in arena.space.genes):
        raise UsageError("--strategies: cma-es needs ordered genes; catcma takes any")
    steps = np.where(cards >= _FINE, 0.0, 1.0 / np.maximum(cards - 1, 1))
    bounds = np.tile([0.0, 1.0], (len(cards), 1))
    population: int | None = None
    while True:
        mean = np.random.default_rng(seed).random(len(cards)) if population else np.full(len(cards), 0.5)
        optimiser = CMAwM(mean=mean, sigma=0.3, bounds=bounds, steps=steps, seed=seed, population_size=population)
        while not optimiser.should_stop():
            told = []
            for _ in range(optimiser.population_size):
                x, x_told = optimiser.ask()
                told.append((x_told, _loss(arena, _binned(x, cards))))
            optimiser.tell(told)
        population, seed = 2 * optimiser.population_size, seed + 1000


def catcma(arena: Arena, seed: int) -> None:
    """CatCMA with margin and its defaults: nominal genes as categories, ordered ones as integers."""
    optimiser, coarse = _catcma(arena.space, seed)
    while True:
        told = []
        for _ in range(optimiser.population_size):
            solution = optimiser.ask()
            told.append((solution, _loss(arena, _decoded(arena.space, solution, coarse))))
        optimiser.tell(told)


def _catcma(space: Space, seed: int) -> tuple[CatCMAwM, list[bool]]:
    """The optimiser, and which genes are its categories: two choices have no order worth a Gaussian, says ``cmaes``."""
    categories = [gene.kind == "nominal" or len(gene.choices) <= 2 for gene in space.genes]
    integers = [list(range(len(g.choices))) for g, c in zip(space.genes, categories, strict=True) if not c]
    counts = [max(2, len(g.choices)) for g, c in zip(space.genes, categories, strict=True) if c]
    return CatCMAwM(z_space=integers or None, c_space=counts or None, seed=seed), categories


def _decoded(space: Space, solution: CatCMAwM.Solution, categories: list[bool]) -> IntArray:
    out = np.zeros(len(space), dtype=np.int64)
    chosen = np.array(categories)
    if chosen.any():
        out[chosen] = np.argmax(solution.c, axis=1)
    if not chosen.all():
        out[~chosen] = np.asarray(solution.z, dtype=np.int64)
    return np.minimum(out, space.cardinalities - 1)


def _binned(x: FloatArray, cards: IntArray) -> IntArray:
    """Choices of a point of the unit cube: of a coarse gene they lie at its steps, of a fine one in equal bins."""
    at_steps = np.rint(x * (cards - 1)).astype(np.int64)
    in_bins = np.floor(np.clip(x, 0.0, 1.0) * cards).astype(np.int64)
    return np.asarray(np.clip(np.where(cards >= _FINE, in_bins, at_steps), 0, cards - 1))


def _loss(arena: Arena, indices: IntArray) -> float:
    """What is to be made smaller: beyond the limit more than any value, the more the further."""
    excess = arena.excess(indices)
    if excess > 0:
        return _BEYOND * (1.0 + excess)
    value = arena.query(indices).value
    return _BEYOND if math.isnan(value) else -value
