"""Drives one strategy through ask -> evaluate -> tell; whoever owns the driver evaluates.

Pure and synchronous: no clock, no journal, no worker. The conductor drives a run with it and the benchmarks drive
theirs, so a benchmark judges the search that the daemon runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from riwoa.search.base import LatencyOf, Outcome, Proposal, Strategy, Suggestion
from riwoa.search.catalogue import Catalogue
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.search.race import EliminationThreshold
from riwoa.search.racing import NO_RACE, Race, Racing
from riwoa.search.space import IntArray

Prediction = tuple[float, float]  # mean and standard deviation of an accuracy


class Guide(Protocol):
    """A predictor of accuracies that learns from a search and screens its children (``riwoa.surrogate.screening``)."""

    def guide(self, strategy: Strategy) -> None:
        """Learn anew, and have the strategy choose by it from now on."""
        ...

    def predict(self, indices: IntArray) -> list[Prediction] | None:
        """Predictions for canonical indices (n, genes), int64; None while too little is known."""
        ...

    def tell(self, indices: IntArray, accuracy: float, predicted: Prediction | None) -> None:
        """Take in an evaluation, once an architecture, and what had been predicted of it."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A candidate with what its evaluation came to.

    Attributes:
        outcome: what the strategy is told; accuracy NaN where it failed or was given up.
        metrics: with an accuracy: that, one of each rung it went through, "predicted" and "predicted_sd" if there was a
            prediction.
        fresh: evaluated in full for the first time: only then is it learned from.
    """

    outcome: Outcome
    metrics: Mapping[str, Any]
    fresh: bool


class Driver:
    """One strategy with everything that learns from its evaluations.

    Args:
        strategy: asked and told; must not be asked or told by anybody else.
        guide: screens children; None for none.
        racing: gives candidates up on lower rungs; None where there are none.
        catalogue: the architectures that exist, to which proposals are moved where they would nearly all fail.
        archive: takes in every success; the front that a candidate must reach.
        known: what a latency is known to be at least, before an evaluation; None where it is known to be itself.
        start: whom half of the first generation is, of what was known before, canonical indices (n, genes).
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        guide: Guide | None = None,
        racing: Racing | None = None,
        catalogue: Catalogue | None = None,
        archive: ParetoArchive | None = None,
        known: LatencyOf | None = None,
        start: IntArray | None = None,
    ) -> None:
        self.strategy = strategy
        self.guide = guide
        self.racing = racing
        self.archive = archive if archive is not None else ParetoArchive()
        self._catalogue = catalogue
        self._known = known
        self._start = start

    @property
    def codec(self) -> Codec:
        """The strategy's, between genotypes and choices."""
        return self.strategy.codec

    def ask(
        self, most: int | None = None, under_way: Sequence[FloatArray] = (), suggestions: Sequence[Suggestion] = ()
    ) -> list[Proposal]:
        """The candidates of the next generation, at most so many; may take a second, as many children are screened.

        Args:
            most: how many.
            under_way: genotypes that were asked before and are not yet told, of a strategy that is asked so.
            suggestions: children by others, to choose from.

        Raises:
            CallOrderError: asked already; tell first.
        """
        if self.guide is not None:
            self.guide.guide(self.strategy)
        self.strategy.set_under_way(under_way)
        self.strategy.suggest(suggestions)
        proposals = self.strategy.ask(most)
        if self._start is not None and self.strategy.generation == 0:
            proposals = self._begun(self._start, proposals)
        if self._catalogue is None or not proposals:
            return proposals
        return self._moved(self._catalogue, proposals, under_way)

    def _begun(self, start: IntArray, proposals: list[Proposal]) -> list[Proposal]:
        """The first candidates, up to half of which are those to start with: the others explore."""
        genotypes = self.codec.encode(start[: (len(proposals) + 1) // 2])
        known = [Proposal(slot, "init", genotype, None) for slot, genotype in enumerate(genotypes)]
        return [*known, *proposals[len(known) :]]

    def _moved(
        self, catalogue: Catalogue, proposals: list[Proposal], under_way: Sequence[FloatArray]
    ) -> list[Proposal]:
        """Proposals, moved to what exists in a sparse space; and in any, while not one that exists was proposed."""
        indices = self.codec.decode(np.stack([p.genotype for p in proposals]))
        unanswered = self.strategy.leader is None
        if not catalogue.sparse and not (unanswered and not any(map(catalogue.holds, indices))):
            return proposals
        moved = catalogue.moved(indices, self.strategy.objective, [self.codec.decode(g[None])[0] for g in under_way])
        changed, genotypes = (moved != indices).any(axis=1), self.codec.encode(moved)
        return [replace(p, genotype=genotypes[n]) if changed[n] else p for n, p in enumerate(proposals)]

    def race(self) -> Race:
        """Which candidates of the asked generation may be given up early, by what was told so far."""
        if self.racing is None or not self.racing.rungs:
            return NO_RACE
        strategy = self.strategy
        return self.racing.race(EliminationThreshold(strategy.objective, strategy.cut, self.archive.front()))

    def predictions(self, genotypes: Sequence[FloatArray]) -> Sequence[Prediction | None]:
        """What the guide expects of some candidates, before it is told what came of them."""
        found = self.guide.predict(self.codec.decode(np.stack(genotypes))) if self.guide is not None else None
        return found or [None] * len(genotypes)

    def tell(self, evaluated: Sequence[Evaluated]) -> None:
        """Tell the outcomes of a generation: all asked slots, and late joiners.

        Raises:
            CallOrderError: nothing was asked.
            SearchInputError: see ``Strategy.tell``.
        """
        generation = self.strategy.generation
        self.strategy.tell([e.outcome for e in evaluated])
        for e in evaluated:
            self._archive(generation, e.outcome)
        self.learn(evaluated)

    def _archive(self, generation: int, o: Outcome) -> None:
        if math.isfinite(o.accuracy):
            key = self.codec.space.key(self.codec.decode(o.genotype[None, :])[0])
            self.archive.add(ParetoPoint(key, o.accuracy, o.latency_ms, (generation, o.slot)))

    def learn(self, evaluated: Iterable[Evaluated]) -> None:
        """Have guide and bounds learn from evaluations, in order; of a past generation too."""
        for e in evaluated:
            if not e.fresh:
                continue
            if self.racing is not None:
                self.racing.learn(e.metrics, e.outcome.accuracy)
            if self.guide is not None:
                predicted = (e.metrics["predicted"], e.metrics["predicted_sd"]) if "predicted" in e.metrics else None
                indices = self.codec.decode(e.outcome.genotype[None, :])[0]
                self.guide.tell(indices, self._lesson(indices, e.outcome), predicted)

    def _lesson(self, indices: IntArray, o: Outcome) -> float:
        """What the guide learns of a success: its accuracy, less what a latency costs that was not known beforehand."""
        if self._known is None:
            return o.accuracy
        return lesson(self.strategy.objective, o.accuracy, o.latency_ms, self._known(indices))


def lesson(objective: Objective, value: float, load: float, known_load: float | None) -> float:
    """What a predictor learns of an evaluation: its value, less what a load costs that was not known beforehand."""
    if known_load == load:
        return value
    return objective.value_of(float(objective.fitness(value, load)), 0.0 if known_load is None else known_load)
