"""The ask/tell face of every strategy, and what population strategies share: members, leader, order of calls, state."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.race import Cut
from riwoa.search.space import IntArray, Space
from riwoa.search.targets import LoadsEach, in_turns, with_told

GEOMETRIC = ("encircle", "search", "spiral", "recombine", "mutate", "climb", "dream")  # make a child of members
OPERATORS = ("init", *GEOMETRIC, "semantic", "placebo", "restart", "polish")
Identity = tuple[int, int]  # (generation, slot)
Snapshot = dict[str, npt.NDArray[np.generic]]
LatencyOf = Callable[[IntArray], float | None]  # canonical indices (G,) -> ms, None where it is not free to know
Screen = Callable[[IntArray], FloatArray]  # canonical indices (n, G) -> accuracies that they may well reach, (n,)


class Posterior(Protocol):
    """What a surrogate believes of scores (``riwoa.surrogate.mixture``), which grow with the value."""

    @property
    def count(self) -> int:
        """Of evaluations that it knows of, up to some hundreds."""
        ...

    def predict(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations of canonical indices (n, genes), each (n,)."""
        ...

    def believe(self, indices: IntArray) -> Posterior:
        """What it would believe had these come out as expected."""
        ...

    def score(self, value: float) -> float:
        """The score of a value."""
        ...

    def log_success(self, indices: IntArray) -> FloatArray:
        """Logarithm of the chance that an evaluation of canonical indices (n, genes) succeeds, (n,)."""
        ...


class CallOrderError(RuntimeError):
    """``ask`` and ``tell`` did not alternate."""


class SearchInputError(ValueError):
    """The caller handed the search something it cannot use: the message says what."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate to evaluate.

    ``genotype`` has shape (D,). ``parent`` names the individual it derives from; for a "semantic" or "placebo" proposal
    ``parent_genotype`` is that individual's raw vector, to be patched, and ``genotype`` what to fall back to, made by
    the operator ``fallback``. ``suggested`` says which of the suggestions it is or descends from; ``rival_of`` is the
    slot of such a one, beside which this is evaluated to learn what would have been asked in its place.
    """

    slot: int
    operator: str
    genotype: FloatArray
    parent: Identity | None
    parent_genotype: FloatArray | None = None
    fallback: str = "spiral"
    suggested: int | None = None
    rival_of: int | None = None


@dataclass(frozen=True, slots=True)
class Elite:
    """A member of whom somebody beside the strategy may make children: its identity and its raw vector, (D,)."""

    identity: Identity
    genotype: FloatArray


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A child that somebody beside the strategy made, to be chosen from like any other; its vector has shape (D,)."""

    genotype: FloatArray
    parent: Identity
    operator: str = "semantic"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluated candidate; ``accuracy`` is a fraction, NaN where the evaluation failed (latency may then be NaN).

    Where an objective says so, they stand for another value and load (``riwoa.search.fitness.Objective``). One that was
    given up on a lower rung has no accuracy either, and is no failure.
    """

    slot: int
    operator: str
    genotype: FloatArray
    accuracy: float
    latency_ms: float
    parent: Identity | None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Leader:
    """The best individual so far; within the latency target as soon as any individual was."""

    genotype: FloatArray
    indices: IntArray
    accuracy: float
    latency_ms: float
    fitness: float
    origin: Identity


def parameter(default: Any, description: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a strategy's parameters: its default, what it means and the numbers that it may take.

    All that is known of a strategy's setting is said here; the configuration makes the key ``search.NAME.FIELD`` of it.
    """
    return dataclasses.field(default=default, metadata={"description": description, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """Settings that every strategy has; one with settings of its own derives from it and names them with defaults.

    Only those in ``RUN_CHANGEABLE`` may change while a run goes on.
    """

    population: int = parameter(20, "members, from whom children are made", least=4)
    offspring: int = parameter(4, "candidates asked at once by a strategy that chooses them jointly", least=1)
    generations: int = parameter(50, "the schedule of a strategy ends here", least=1)
    p_semantic: float = parameter(0.0, "share of attacks handed to the language model", least=0, most=1)
    placebo_share: float = parameter(0.1, "share of those handed to a uniform sample of its grammar", least=0, most=1)
    asynchronous: bool = parameter(False, "told of each candidate as it arrives, and asked for another in its place")
    counterfactual_share: float = parameter(
        0.05,
        "share of what is asked of suggestions beside which the next is what would have been asked without them",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds.

        Raises:
            SearchInputError: names the first.
        """
        for field in dataclasses.fields(self):
            least, most = field.metadata.get("least"), field.metadata.get("most")
            value = getattr(self, field.name)
            if (least is not None and value < least) or (most is not None and value > most):
                bounds = f"be at least {least}" if most is None else f"lie in [{least}, {most}]"
                raise SearchInputError(f"{field.name} must {bounds}, got {value!r}")

    @classmethod
    def of(cls, params: SearchParameters) -> Self:
        """These parameters, with the defaults of those that only this strategy has."""
        if isinstance(params, cls):
            return params
        return cls(**{f.name: getattr(params, f.name) for f in dataclasses.fields(SearchParameters)})


RUN_CHANGEABLE = frozenset({"generations", "p_semantic", "placebo_share"})


class Strategy(Protocol):
    """Proposes candidates and learns from their outcomes, one generation at a time."""

    name: str
    generation: int  # the next to ask for, from 0
    codec: Codec  # between its genotypes and the space's choices

    @property
    def objective(self) -> Objective:
        """The objective in force."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the schedule is over (asking on is allowed for a population strategy)."""
        ...

    @property
    def leader(self) -> Leader | None:
        """The best so far; None until an evaluation succeeded."""
        ...

    @property
    def cut(self) -> Cut | None:
        """What a newcomer must beat to change the search in any way; None where every newcomer may."""
        ...

    @property
    def avoids_repeats(self) -> bool:
        """Whether what was evaluated is proposed again only where nothing new within the limit was found."""
        ...

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of what is chosen from that each operator, with its like, gets next; {} where none is learned."""
        ...

    def elites(self, joining: int) -> Sequence[Elite]:
        """Whom to make children of that could be chosen in generation ``joining``, best first.

        Empty where none is chosen from a pool then, as far as that is known.
        """
        ...

    def suggest(self, suggestions: Sequence[Suggestion]) -> None:
        """Choose from these, too, when asked next; what chooses from no pool makes no use of them."""
        ...

    def ask(self, most: int | None = None) -> list[Proposal]:
        """The candidates of this generation, slots 0, 1, ...; the first ``most`` of them, for there is a budget.

        Raises:
            CallOrderError: asked already; tell first.
        """
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learn the outcomes of all asked slots; further slots are late joiners and compete for a place.

        Asynchronous: of those that have arrived, whenever they were asked, slots 0, 1, ...

        Raises:
            CallOrderError: nothing was asked.
            SearchInputError: a slot is missing or told twice, a genotype is outside the unit cube, a metric is invalid.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Everything that ``restore`` needs. Taken between ask and tell it is the state before the ask."""
        ...

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Continue where the snapshot was taken, bit for bit.

        Raises:
            SearchInputError: the snapshot is of another strategy, space or population.
        """
        ...

    def set_objective(self, objective: Objective) -> None:
        """Judge from now on, and judge the stored raw metrics again, by ``objective``."""
        ...

    def set_under_way(self, genotypes: Sequence[FloatArray]) -> None:
        """Count these, each (D,), as asked and not yet told of: nothing else is under way. For asynchronous asking."""
        ...

    def set_screen(self, screen: Screen | None) -> None:
        """Choose among drawn children by ``screen`` from now on; what cannot makes no use of it."""
        ...

    def set_posterior(self, posterior: Posterior | None) -> None:
        """Choose by what is believed of scores from now on; what cannot makes no use of it."""
        ...

    def set_parameters(self, params: SearchParameters) -> None:
        """Take new settings at a generation boundary.

        Raises:
            SearchInputError: a setting that cannot change within a run is different.
        """
        ...


@dataclass(frozen=True, slots=True)
class Members:
    """Individuals as columns: genotype (n, D), accuracy and latency (n,), origin (n, 2) = (generation, slot)."""

    genotype: FloatArray
    accuracy: FloatArray
    latency_ms: FloatArray
    origin: IntArray

    @staticmethod
    def empty(dimension: int) -> Members:
        """No individuals."""
        return Members(np.empty((0, dimension)), np.empty(0), np.empty(0), np.empty((0, 2), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.accuracy)

    def take(self, rows: npt.ArrayLike) -> Members:
        """The individuals at ``rows``, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        return Members(self.genotype[index], self.accuracy[index], self.latency_ms[index], self.origin[index])

    def join(self, other: Members) -> Members:
        """These individuals followed by the others."""
        return Members(
            np.concatenate((self.genotype, other.genotype)),
            np.concatenate((self.accuracy, other.accuracy)),
            np.concatenate((self.latency_ms, other.latency_ms)),
            np.concatenate((self.origin, other.origin)),
        )


class PopulationStrategy(ABC):
    """A strategy that asks ``population`` candidates a generation; subclasses say which, and who survives.

    Attributes:
        name: what the configuration and the journal call it.
        parameters: the class of its settings.
        uses_latency: whether it asks for the latencies of networks before they are evaluated.
        uses_predictor: whether it can choose among drawn children by a predictor learned from the run; its table of
            the configuration then has the key ``predictor``, a file to begin with.
    """

    name: str
    parameters: ClassVar[type[SearchParameters]] = SearchParameters
    uses_latency: ClassVar[bool] = False
    uses_predictor: ClassVar[bool] = False

    @classmethod
    def screens(cls, params: SearchParameters) -> bool:
        """Whether, with these settings, it does choose among drawn children by a predictor."""
        return cls.uses_predictor

    @classmethod
    def of_scores(cls, params: SearchParameters) -> bool:
        """Whether, with these settings, that predictor is one of scores (``Posterior``)."""
        return False

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int,
        params: SearchParameters,
        latency_of: LatencyOf | None = None,
        loads_each: LoadsEach | None = None,
    ) -> None:
        self.space = space
        self.objective = objective
        self.loads_each = loads_each if objective.targets else None
        self.seed = seed
        self.params = self.parameters.of(params)
        self.latency_of = latency_of
        self.screen: Screen | None = None
        self.posterior: Posterior | None = None
        self.codec = Codec(space, seed)
        self.generation = 0
        self.population = Members.empty(self.codec.dimension)
        self._best = Members.empty(self.codec.dimension)  # the leader, or nobody
        self._asked = 0  # slots asked and not yet told
        self._suggestions: Sequence[Suggestion] = ()  # to choose from in this generation
        self._under_way: IntArray = np.empty((0, len(space)), dtype=np.int64)  # asynchronous: canonical indices
        self._told = 0  # asynchronous: outcomes so far

    @abstractmethod
    def _propose(self) -> list[Proposal]:
        """The candidates of this generation. Must not change the state."""

    @abstractmethod
    def _absorb(self, children: Members, late: Members) -> None:
        """Make the next population from the outcomes of the asked slots and of late joiners.

        Of a generation that a budget cut short, only the first slots were asked.
        """

    def _replaced(self, children: Members) -> Members:
        """The population with children in the places of its first members."""
        return children.join(self.population.take(np.arange(len(children), max(len(children), len(self.population)))))

    @property
    def finished(self) -> bool:
        """Whether the schedule is over."""
        return self._passed >= self.params.generations

    @property
    def _passed(self) -> float:
        """Generations of the schedule that are over; asynchronous ones count as ``offspring`` outcomes each."""
        return self._told / self.params.offspring if self.params.asynchronous else self.generation

    @property
    def _room(self) -> int:
        """How many are asked at once: with those under way ``offspring``, and no more than the schedule has left."""
        if not self.params.asynchronous:
            return self.params.offspring
        left = self.params.generations * self.params.offspring - self._told
        return max(0, min(self.params.offspring, left) - len(self._under_way))

    @property
    def _size(self) -> int:
        """Members that a population has, once it has any."""
        return self.params.population

    def _may_have(self, members: int) -> bool:
        """Whether a snapshot may be of so many members."""
        return members in (0, self._size)

    @property
    def tau(self) -> float:
        """Share of the schedule that is over, in [0, 1]."""
        return min(1.0, self._passed / self.params.generations)

    @property
    def leader(self) -> Leader | None:
        """The best so far; None until an evaluation succeeded."""
        if not len(self._best):
            return None
        best = self._best
        return Leader(
            genotype=best.genotype[0].copy(),
            indices=self.codec.decode(best.genotype)[0],
            accuracy=float(best.accuracy[0]),
            latency_ms=float(best.latency_ms[0]),
            fitness=float(self.fitness(best)[0]),
            origin=(int(best.origin[0, 0]), int(best.origin[0, 1])),
        )

    @property
    def cut(self) -> Cut | None:
        """See ``Strategy.cut``."""
        return None

    @property
    def avoids_repeats(self) -> bool:
        """See ``Strategy.avoids_repeats``."""
        return False

    @property
    def shares(self) -> Mapping[str, float]:
        """See ``Strategy.shares``."""
        return {}

    def _cut_at(self, members: Members) -> Cut | None:
        """The last of these members, if all of them were evaluated."""
        order = self.objective.ranking(members.accuracy, members.latency_ms)
        if not len(members) or len(order) < len(members):
            return None
        return Cut(float(members.accuracy[order[-1]]), float(members.latency_ms[order[-1]]))

    def origin(self, row: int) -> Identity:
        """Identity of the individual that is member number ``row``."""
        return (int(self.population.origin[row, 0]), int(self.population.origin[row, 1]))

    def fitness(self, members: Members) -> FloatArray:
        """Fitness under the current objective, −inf for failed individuals. Shape (n,)."""
        return self.objective.fitness(members.accuracy, members.latency_ms)

    def _excess(self, indices: IntArray) -> FloatArray:
        """By how much each phenotype is known to exceed the limit, 0 where it is not known to. (n, G) in, (n,) out."""
        limit = self.objective.limit
        if self.latency_of is None or limit is None:
            return np.zeros(len(indices))
        loads = [self.latency_of(row) for row in indices]
        return np.array([0.0 if load is None else max(0.0, load - limit) for load in loads])

    def target_loads(self, members: Members) -> FloatArray:
        """Loads for each target, (n, targets)."""
        assert self.loads_each is not None, "asked only where there are targets"
        return with_told(self.loads_each(self.codec.decode(members.genotype)), members.latency_ms)

    def ranking(self, members: Members) -> IntArray:
        """Rows of the successful ones, best first; of several targets each one's best in turn."""
        return self._of_targets(members, self.objective.ranking(members.accuracy, members.latency_ms))

    def survival(self, members: Members) -> IntArray:
        """Rows of the successful ones, in the order in which the search lets them go last."""
        return self._of_targets(members, self.objective.survival(members.accuracy, members.latency_ms))

    def _of_targets(self, members: Members, order: IntArray) -> IntArray:
        if self.loads_each is None:
            return order
        return in_turns(members.accuracy, self.target_loads(members), order)

    def elites(self, joining: int) -> Sequence[Elite]:
        """See ``Strategy.elites``."""
        return ()

    def suggest(self, suggestions: Sequence[Suggestion]) -> None:
        """See ``Strategy.suggest``."""
        self._suggestions = tuple(suggestions)

    def ask(self, most: int | None = None) -> list[Proposal]:
        """See ``Strategy.ask``."""
        if self._asked:
            raise CallOrderError("asked twice; tell the outcomes of the first ask before asking again")
        full = most == 0 or (self.params.asynchronous and not self._room)
        proposals = [] if full else self._propose()[:most]
        self._asked = len(proposals)
        return proposals

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``."""
        asked = len(outcomes) if self.params.asynchronous else self._asked
        if not asked:
            raise CallOrderError("nothing was asked; ask before telling")
        members = arrange(outcomes, asked, self.generation, self.codec)
        rows = np.arange(len(members))
        self._absorb(members.take(rows[:asked]), members.take(rows[asked:]))
        self._crown(self._best.join(members))
        self.generation += 1
        self._told += len(members)
        self._asked = 0
        self._suggestions = ()

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        state: Snapshot = {"strategy": np.array(self.name), "generation": np.array(self.generation)}
        for prefix, members in (("population", self.population), ("leader", self._best)):
            for field in dataclasses.fields(Members):
                state[f"{prefix}.{field.name}"] = getattr(members, field.name).copy()
        return state | ({"told": np.array(self._told)} if self.params.asynchronous else {})

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        if str(snapshot.get("strategy")) != self.name:
            raise SearchInputError(f"a snapshot of {snapshot.get('strategy')!s} cannot continue as {self.name}")
        population = self._members(snapshot, "population")
        if not self._may_have(len(population)):
            raise SearchInputError(f"the snapshot has {len(population)} members, not {self._size}")
        self.population = population
        self._best = self._members(snapshot, "leader")
        self.generation = int(np.asarray(snapshot["generation"], dtype=np.int64))
        self._told = int(np.asarray(snapshot.get("told", 0), dtype=np.int64))
        self._asked = 0

    def set_objective(self, objective: Objective) -> None:
        """See ``Strategy.set_objective``; the leader is chosen anew among the population and the old leader."""
        if self._asked:
            raise CallOrderError("the objective changes between generations; tell the outcomes first")
        self.objective = objective
        self._crown(self._best.join(self.population))

    def set_under_way(self, genotypes: Sequence[FloatArray]) -> None:
        """See ``Strategy.set_under_way``."""
        vectors = np.array(genotypes, dtype=np.float64).reshape(-1, self.codec.dimension)
        self._under_way = self.codec.decode(vectors)

    def set_screen(self, screen: Screen | None) -> None:
        """See ``Strategy.set_screen``."""
        self.screen = screen

    def set_posterior(self, posterior: Posterior | None) -> None:
        """See ``Strategy.set_posterior``."""
        self.posterior = posterior

    def set_parameters(self, params: SearchParameters) -> None:
        """See ``Strategy.set_parameters``."""
        if self._asked:
            raise CallOrderError("settings change between generations; tell the outcomes first")
        params = self.parameters.of(params)
        for field in dataclasses.fields(params):
            same = getattr(params, field.name) == getattr(self.params, field.name)
            if not same and field.name not in RUN_CHANGEABLE:
                raise SearchInputError(f"{field.name} cannot change within a run; start a new run to change it")
        self.params = params

    def _members(self, snapshot: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> Members:
        """Members read back, with their shapes checked."""
        try:
            columns = {f.name: snapshot[f"{prefix}.{f.name}"] for f in dataclasses.fields(Members)}
        except KeyError as error:
            raise SearchInputError(f"the snapshot lacks {error.args[0]!r}") from None
        genotype = np.array(columns["genotype"], dtype=np.float64)
        if genotype.ndim != 2 or genotype.shape[1] != self.codec.dimension:
            raise SearchInputError(
                f"the snapshot's {prefix} has shape {genotype.shape}; this space needs (n, {self.codec.dimension})"
            )
        return Members(
            genotype,
            np.array(columns["accuracy"], dtype=np.float64),
            np.array(columns["latency_ms"], dtype=np.float64),
            np.array(columns["origin"], dtype=np.int64),
        )

    def _crown(self, candidates: Members) -> None:
        """Make the best of the candidates leader; among equals the first."""
        order = self.objective.ranking(candidates.accuracy, candidates.latency_ms)
        self._best = candidates.take(order[:1])


def arrange(outcomes: Sequence[Outcome], asked: int, generation: int, codec: Codec) -> Members:
    """Outcomes as members, ordered by slot.

    Raises:
        SearchInputError: see ``Strategy.tell``.
    """
    by_slot = sorted(outcomes, key=lambda o: o.slot)
    slots = [o.slot for o in by_slot]
    if len(set(slots)) != len(slots):
        raise SearchInputError(f"a slot was told twice: {slots}")
    if slots[:asked] != list(range(asked)):
        raise SearchInputError(f"outcomes must cover the asked slots 0 to {asked - 1}, got {slots}")
    for o in by_slot:
        _check_outcome(o, codec.dimension)
    return Members(
        np.array([o.genotype for o in by_slot], dtype=np.float64),
        np.array([o.accuracy for o in by_slot], dtype=np.float64),
        np.array([o.latency_ms for o in by_slot], dtype=np.float64),
        np.array([(generation, o.slot) for o in by_slot], dtype=np.int64),
    )


def _check_outcome(o: Outcome, dimension: int) -> None:
    genotype = np.asarray(o.genotype)
    if genotype.shape != (dimension,) or not np.all((genotype >= 0.0) & (genotype < 1.0)):
        raise SearchInputError(f"slot {o.slot}: the genotype must be a vector of {dimension} numbers in [0, 1)")
    if np.isinf(o.accuracy) or (not np.isnan(o.accuracy) and not (np.isfinite(o.latency_ms) and o.latency_ms >= 0.0)):
        raise SearchInputError(
            f"slot {o.slot}: metrics must be finite (NaN accuracy for a failure), got "
            f"accuracy {o.accuracy!r}, latency_ms {o.latency_ms!r}"
        )
    if o.operator not in OPERATORS:
        raise SearchInputError(f"slot {o.slot}: unknown operator {o.operator!r}")
