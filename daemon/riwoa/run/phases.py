"""The phases of a run behind one face: a search, then a polish around its leader.

Each drives a strategy of its own and says who fills its slots, when it is over and how much work it has left; the
conductor's loop does not know which of them it is in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from riwoa.config.schema import Config
from riwoa.run.proposals import Proposals
from riwoa.run.strategy import candidates_a_generation, scheduled_generations, search_parameters
from riwoa.search.driver import Driver
from riwoa.search.fitness import Objective
from riwoa.search.polish import BATCH, Polish
from riwoa_storage.records import Phase as PhaseName

IDLE_POPULATIONS = 5  # so many times its population in a row, and nothing new: a search has converged
POLISH_SHARE = 0.25  # of ``run.evaluations``, at most


def polish_budget(config: Config, searched: int) -> int:
    """Evaluations that the polish may spend after a search of so many."""
    most, wanted = config.run.evaluations, config.polish_evaluations
    return wanted if most is None else min(wanted, max(0, most - searched))


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run may spend, what it has spent, and how fast it goes.

    Attributes:
        config: in force.
        counters: totals of the committed generations.
        pace_s: seconds a generation takes.
        idle: candidates in a row, up to the last, that brought nothing new within the target.
        under_way: candidates that were asked, and have not arrived.
    """

    config: Config
    counters: Mapping[str, int]
    pace_s: float
    idle: int
    under_way: int = 0

    @property
    def polish_s(self) -> float:
        """What the polish will take, at the search's pace: it evaluates in full what the search may give up."""
        evaluations, dropped = (self.counters.get(name, 0) for name in ("evaluations", "dropped"))
        in_full = evaluations / max(1, evaluations + dropped) or 1.0
        return polish_budget(self.config, evaluations) * self.pace_s / (candidates_a_generation(self.config) * in_full)

    @property
    def search_left(self) -> int | None:
        """Evaluations that the search may still spend, not below 0; None for any number.

        What the polish is to have is kept for it, at most a quarter of all.
        """
        most = self.config.run.evaluations
        if most is None:
            return None
        kept = min(self.config.polish_evaluations, int(POLISH_SHARE * most))
        return max(0, most - kept - self.counters["evaluations"])


class Phase(Protocol):
    """A phase of a run.

    Attributes:
        name: as journaled.
        driver: asks and tells its strategy.
        proposals: who fills its semantic slots.
        commits_a_generation: what the schedule counts as one generation is committed in so many, where candidates are
            told one by one.
    """

    name: PhaseName
    driver: Driver
    proposals: Proposals
    commits_a_generation: int

    @property
    def asynchronous(self) -> bool:
        """Whether candidates are told as they arrive, and others asked in their places."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the run has nothing left to ask after this phase."""
        ...

    def is_over(self, effort: Effort) -> bool:
        """Whether the next phase is to begin."""
        ...

    def left(self, effort: Effort) -> int | None:
        """Evaluations that the next generation may take; None for as many as it asks."""
        ...

    def has_converged(self, effort: Effort) -> bool:
        """Whether it is over since its strategy proposes nothing new any more."""
        ...

    def is_late(self, effort: Effort, left_s: float | None) -> bool:
        """Whether the next phase must begin now, to end within the seconds left; None for any number."""
        ...

    def work_s(self, effort: Effort) -> float:
        """Seconds of work from here to the end of the run, at the pace so far."""
        ...

    def polish_spent(self, counters: Mapping[str, int]) -> int:
        """Evaluations of the polish so far."""
        ...

    def configure(self, config: Config, objective: Objective, p_semantic: float) -> None:
        """Take what was edited, at a generation's boundary."""
        ...

    def adapt(self, config: Config, p_semantic: float) -> None:
        """Take the share of semantic slots that pays, where the configuration leaves that open."""
        ...


class SearchPhase:
    """The generations of a strategy, until its schedule or its budget is spent.

    Args:
        driver: of the strategy.
        proposals: who fills its semantic slots.
        config: in force.
    """

    name: PhaseName = "search"
    finished = False  # a polish follows

    def __init__(self, driver: Driver, proposals: Proposals, config: Config) -> None:
        self.driver = driver
        self.proposals = proposals
        self.asynchronous = config.search.asynchronous
        self.commits_a_generation = config.search.commits(1)

    def is_over(self, effort: Effort) -> bool:
        """See ``Phase.is_over``; what is under way is waited for."""
        strategy, left = self.driver.strategy, effort.search_left
        # Less is left than replies under way will take only where a budget was made smaller.
        spent = left is not None and left <= self.proposals.reserved(strategy.generation)
        return not effort.under_way and (spent or strategy.finished or self.has_converged(effort))

    def left(self, effort: Effort) -> int | None:
        """See ``Phase.left``; the first generation is whole, for a strategy begins with it."""
        if self.driver.strategy.generation == 0:
            return None
        if effort.under_way and self.has_converged(effort):
            return 0
        return None if effort.search_left is None else effort.search_left - effort.under_way

    def has_converged(self, effort: Effort) -> bool:
        """See ``Phase.has_converged``; while nothing within the target is known, whatever is proposed is new."""
        strategy = self.driver.strategy
        leader = strategy.leader
        return (
            strategy.avoids_repeats
            and effort.idle >= IDLE_POPULATIONS * effort.config.search.population
            and leader is not None
            and bool(strategy.objective.feasible(leader.latency_ms))
        )

    def is_late(self, effort: Effort, left_s: float | None) -> bool:
        """See ``Phase.is_late``."""
        return left_s is not None and left_s <= effort.pace_s + effort.polish_s

    def work_s(self, effort: Effort) -> float:
        """See ``Phase.work_s``."""
        rounds = max(0, scheduled_generations(effort.config) - self.driver.strategy.generation)
        if effort.search_left is not None:
            rounds = min(rounds, math.ceil(effort.search_left / candidates_a_generation(effort.config)))
        return rounds * effort.pace_s + effort.polish_s

    def polish_spent(self, counters: Mapping[str, int]) -> int:
        """The polish is still to come."""
        return 0

    def configure(self, config: Config, objective: Objective, p_semantic: float) -> None:
        """See ``Phase.configure``."""
        self.driver.strategy.set_objective(objective)
        self.driver.strategy.set_parameters(search_parameters(config, p_semantic))

    def adapt(self, config: Config, p_semantic: float) -> None:
        """See ``Phase.adapt``."""
        if config.search.adapt_semantic:
            self.driver.strategy.set_parameters(search_parameters(config, p_semantic))


class PolishPhase:
    """The polish around the leader that the search has found.

    Args:
        polish: around that leader.
        driver: of the polish.
        proposals: who fills slots in it: nobody.
        searched: evaluations when it began.
    """

    name: PhaseName = "polish"
    asynchronous = False
    commits_a_generation = 1

    def __init__(self, polish: Polish, driver: Driver, proposals: Proposals, searched: int) -> None:
        self.driver = driver
        self.proposals = proposals
        self._polish = polish
        self._searched = searched

    @property
    def finished(self) -> bool:
        """See ``Phase.finished``."""
        return self._polish.finished

    def is_over(self, effort: Effort) -> bool:
        """Nothing follows."""
        return False

    def left(self, effort: Effort) -> int | None:
        """The polish keeps to a budget of its own."""
        return None

    def has_converged(self, effort: Effort) -> bool:
        """It is finished then, and not over."""
        return False

    def is_late(self, effort: Effort, left_s: float | None) -> bool:
        """Nothing follows that needs time."""
        return False

    def work_s(self, effort: Effort) -> float:
        """See ``Phase.work_s``."""
        left = polish_budget(effort.config, self._searched) - self.polish_spent(effort.counters)
        return effort.pace_s / BATCH * max(0, left)

    def polish_spent(self, counters: Mapping[str, int]) -> int:
        """See ``Phase.polish_spent``."""
        return counters["evaluations"] - self._searched

    def configure(self, config: Config, objective: Objective, p_semantic: float) -> None:
        """See ``Phase.configure``."""
        self._polish.set_objective(objective)
        self._polish.set_budget(polish_budget(config, self._searched))

    def adapt(self, config: Config, p_semantic: float) -> None:
        """No slot of a polish is semantic."""
