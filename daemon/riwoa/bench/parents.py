"""Parents as a search meets them: members of RI-IWOA's population at several generations, on seeds of their own.

The search is the one by slots (``joint = false``), screened as the daemon's is: its spirals, each the most promising of
as many as a slot draws, are what the model's proposals are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riwoa.bench.tasks import Task
from riwoa.cognition.prompt import EarlierPatch, Situation
from riwoa.run.offers import offered_choices
from riwoa.search.base import Outcome
from riwoa.search.codec import Codec
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.fitness import FloatArray
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.rng import generator
from riwoa.search.space import Choice
from riwoa.surrogate.screening import Screening

POPULATION = 20


@dataclass(frozen=True)
class Parent:
    """A member of a population, with what its search knew of then."""

    task: Task
    codec: Codec
    seed: int  # of its search
    generation: int
    genotype: FloatArray
    spiral: FloatArray  # the child that a slot's spiral would have made of it
    accuracy: float
    known: frozenset[str]  # architectures evaluated up to then

    @property
    def architecture(self) -> dict[str, Choice]:
        """The member's."""
        return self.child({})

    @property
    def latency_ms(self) -> float:
        """The member's."""
        return self.task.latency_ms(self.architecture)

    @property
    def choices(self) -> dict[str, tuple[Choice, ...]]:
        """What may change: the same for the model and for the placebo."""
        return offered_choices(self.codec, self.genotype, lambda _: self.known)

    def child(self, patch: Mapping[str, Choice]) -> dict[str, Choice]:
        """The architecture of the patched parent."""
        return self.decoded(self.codec.patch(self.genotype, patch) if patch else self.genotype)

    def decoded(self, genotype: FloatArray) -> dict[str, Choice]:
        """The architecture of a genotype of the space."""
        return self.codec.space.architecture(self.codec.decode(genotype[None, :])[0])

    def fitness(self, accuracy: float, architecture: Mapping[str, Any]) -> float:
        """Of any architecture, under the task's aim."""
        return float(self.task.aim.fitness(accuracy, self.task.latency_ms(architecture)))

    def situation(self, successes: Sequence[EarlierPatch] = (), rejected: Sequence[EarlierPatch] = ()) -> Situation:
        """What a prompt is made from."""
        return Situation(
            space=self.codec.space,
            parent=self.architecture,
            accuracy=self.accuracy,
            latency_ms=self.latency_ms,
            target_ms=self.task.aim.latency_target_ms,
            layer_ms=self.task.layers_ms(self.architecture),
            latency_after=lambda patch: self.task.latency_ms(self.child(patch)),
            successes=successes,
            rejected=rejected,
        )


async def collect_parents(task: Task, seeds: Sequence[int], generations: Sequence[int], most: int) -> list[Parent]:
    """Different members of each search at each of ``generations``: ``most`` of all, in an order of their own."""
    found: list[Parent] = []
    for seed in seeds:
        found += await _of_one_search(task, seed, generations)
    order = generator(seeds[0], 0, "bench.parents").permutation(len(found))
    return [found[i] for i in order[:most]]


async def _of_one_search(task: Task, seed: int, generations: Sequence[int]) -> list[Parent]:
    params = RiwoaParameters(population=POPULATION, generations=max(generations) + 1, joint=False)
    strategy = RotationInvariantWhale(
        task.space, task.aim, seed, params, lambda indices: task.latency_ms(task.space.architecture(indices))
    )
    screening = Screening(task.space)
    driver, codec = Driver(strategy, guide=screening), Codec(task.space, seed)
    accuracy: dict[str, float] = {}
    met: set[str] = set()
    found: list[Parent] = []
    for generation in range(max(generations) + 1):
        proposals = driver.ask()
        decoded = [codec.decode(p.genotype[None, :])[0] for p in proposals]
        architectures = [task.space.architecture(row) for row in decoded]
        accuracies = await task.accuracies(architectures)
        told = []
        for p, row, a, x in zip(proposals, decoded, accuracies, architectures, strict=True):
            key = task.space.key(row)
            outcome = Outcome(p.slot, p.operator, p.genotype, a, task.latency_ms(x), p.parent)
            told.append(Evaluated(outcome, {"accuracy": a}, fresh=key not in accuracy))
            accuracy[key] = a
        driver.tell(told)
        if generation in generations:
            screening.guide(strategy)
            found += _members(task, codec, strategy, seed, generation, accuracy, met)
    return found


def _members(
    task: Task,
    codec: Codec,
    strategy: RotationInvariantWhale,
    seed: int,
    generation: int,
    accuracy: Mapping[str, float],
    met: set[str],
) -> list[Parent]:
    """The population's members that no earlier generation gave."""
    draws = strategy.params.screened
    turns = generator(seed, generation, "bench.spiral").uniform(-1.0, 1.0, (POPULATION, draws))
    spirals = strategy.spirals(np.arange(POPULATION), turns)
    known, found = frozenset(accuracy), []
    for genotype, spiral in zip(strategy.population.genotype, spirals, strict=True):
        key = task.space.key(codec.decode(genotype[None, :])[0])
        if key in met:
            continue
        met.add(key)
        found.append(Parent(task, codec, seed, generation, genotype.copy(), spiral, accuracy[key], known))
    return found
