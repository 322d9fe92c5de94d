"""NSGA-II by pymoo, with its operators for mixed variables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import RankAndCrowdingSurvival
from pymoo.core.evaluator import Evaluator
from pymoo.core.mixed import MixedVariableGA
from pymoo.core.problem import Problem
from pymoo.core.variable import Choice, Integer
from pymoo.problems.static import StaticProblem

from riwoa.bench.arena import POPULATION, Arena
from riwoa.search.space import IntArray, Space

_FAILED = 1e6  # a violation beyond any excess


def nsga2(arena: Arena, seed: int) -> None:
    """NSGA-II (of one objective: its genetic algorithm), population 20; violations rank as pymoo ranks them."""
    objectives = 2 if arena.landscape.front else 1
    problem = Problem(vars=_variables(arena.space), n_obj=objectives, n_ieq_constr=1)
    algorithm = MixedVariableGA(pop_size=POPULATION, survival=RankAndCrowdingSurvival())
    algorithm.setup(problem, termination=("n_gen", math.inf), seed=seed, verbose=False)
    while True:
        children = algorithm.ask()
        rows = [_judged(arena, _indices(arena.space, x), objectives) for x in children.get("X")]
        told = np.array(rows)
        Evaluator().eval(StaticProblem(problem, F=told[:, :objectives], G=told[:, objectives:]), children)
        algorithm.tell(infills=children)


def _variables(space: Space) -> dict[str, Any]:
    return {
        gene.name: Choice(options=list(range(len(gene.choices))))
        if gene.kind == "nominal"
        else Integer(bounds=(0, len(gene.choices) - 1))
        for gene in space.genes
    }


def _indices(space: Space, x: dict[str, Any]) -> IntArray:
    return np.array([x[gene.name] for gene in space.genes], dtype=np.int64)


def _judged(arena: Arena, indices: IntArray, objectives: int) -> list[float]:
    """Objectives, to be made smaller, and the violation."""
    excess = arena.excess(indices)
    if excess > 0:
        return [*[0.0] * objectives, excess]
    measured = arena.query(indices)
    if math.isnan(measured.value):
        return [*[0.0] * objectives, _FAILED]
    return [*[-measured.value, measured.load][:objectives], 0.0]
