"""A run's front as it may be shown: what the test pictures say of it, each network paired with the winner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from riwoa.errors import InputError
from riwoa.hardware.timed import Finalists, TimedNetwork, read_finalists
from riwoa.oracle.answers import unpack_answers
from riwoa.run.limits import LimitStanding, Range, ReachedRanges, journaled_objective, standings
from riwoa.run.scan import Place, scan_each
from riwoa.search.fitness import BoolArray, Objective
from riwoa.search.paired import Accuracy, Difference, accuracy_of, difference_of
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.text import printable
from riwoa_storage.events import NetworkJudged
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord, Json, RunRecord


@dataclass(frozen=True, slots=True)
class FrontNetwork:
    """A network that no other of its run beats in both accuracy and latency.

    Attributes:
        point: accuracy as the search saw it (or what else is to be raised), and latency.
        individual: as committed.
        is_winner: whether it is the run's winner.
        test: accuracy on pictures that chose nothing; None where it was not judged.
        difference: of that from the winner's; None for the winner, and where either was not judged.
        timed: in its runtime, at the end of the run; None where it was not, or the machine was too busy.
    """

    point: ParetoPoint
    individual: IndividualRecord
    is_winner: bool
    test: Accuracy | None
    difference: Difference | None
    timed: TimedNetwork | None = None

    @property
    def is_equal(self) -> bool:
        """Whether it cannot be told from the winner on the test pictures."""
        return self.difference is not None and not self.difference.is_clear


@dataclass(frozen=True, slots=True)
class TargetWinner:
    """The best network for one of several devices.

    Attributes:
        name: of the device.
        within_ms: the most that a network may take there.
        place: where it was found; None where no network serves the device.
        metrics: as journaled; {} for none.
        latency_ms: there; None for none.
        test: accuracy on pictures that chose nothing; None where it was not judged.
    """

    name: str
    within_ms: float
    place: Place | None = None
    metrics: Json = field(default_factory=dict)
    latency_ms: float | None = None
    test: Accuracy | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """The front of a run, fastest first, and its winner, which may lie off it.

    Attributes:
        run: its record.
        tries: evaluations in full, of which the winner is the best.
        leader: the winner: as the last generation has it, or the network that took its place.
        networks: the front.
        able: the front of those networks alone that keep every limit but the latency target.
        test: the winner's accuracy on pictures that chose nothing; None where it was not judged.
        untested: why it was not judged; None where it was, or nobody tried.
        objective: what the run looks for.
        reached: what its evaluated networks have of each limited metric.
        finalists: what the clock said; None where nobody asked it.
        targets: the winner for each of several devices; empty for a run of one.
    """

    run: RunRecord
    tries: int
    leader: Json | None
    networks: tuple[FrontNetwork, ...]
    able: tuple[FrontNetwork, ...]
    test: Accuracy | None
    untested: str | None
    objective: Objective
    reached: Mapping[str, Range]
    finalists: Finalists | None = None
    targets: tuple[TargetWinner, ...] = ()

    @property
    def limits(self) -> tuple[LimitStanding, ...]:
        """Every limit, with what the winner makes of it; none before there is one."""
        return () if self.leader is None else standings(self.objective, self.leader["metrics"], self.reached)

    def keeps_limits(self, network: FrontNetwork) -> bool:
        """Whether a network of the front keeps every limit."""
        return all(s.met for s in standings(self.objective, network.individual.metrics))

    @property
    def fastest_equal(self) -> FrontNetwork | None:
        """The fastest network that is faster than the winner, within the run's limits, and not clearly worse."""
        if self.leader is None:
            return None
        least_ms = self.leader["metrics"]["latency_ms"]
        faster = (n for n in self.networks if n.point.latency_ms < least_ms and _as_good(n.difference))
        return next((n for n in faster if self.keeps_limits(n) or not self.leader["feasible"]), None)


def _as_good(difference: Difference | None) -> bool:
    return difference is not None and (difference.value >= 0 or not difference.is_clear)


def fastest_equal(journal: Path, run_id: int | None = None) -> FrontNetwork:
    """The fastest network of a run (the latest) that cannot be told from its winner.

    Raises:
        InputError: there is none, or the run judged nothing.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        front = read_front(reader, chosen_run(reader, run_id))
    if front.test is None:
        why = front.untested or "it has not ended, or ended before there was such a judgement"
        raise InputError(f"run {front.run.run_id} has judged no network on test pictures: {why}; leave --prefer out")
    found = front.fastest_equal
    if found is None:
        raise InputError(
            f"no network of run {front.run.run_id} is faster than its winner and as good on the test pictures; "
            "leave --prefer out"
        )
    return found


def chosen_run(reader: JournalReader, run_id: int | None) -> RunRecord:
    """The named run, or the latest.

    Raises:
        JournalMissingError: there is no such run.
        InputError: no run was begun.
    """
    record = reader.run(run_id) if run_id is not None else reader.latest_run()
    if record is None:
        raise InputError(f"{reader.name} holds no run yet; start riwoad (or make run) first")
    return record


def read_front(reader: JournalReader, run: RunRecord) -> Front:
    """The front of a run, from its journal alone.

    All individuals are scanned, and only those that are on the front are read, with their checksums (``run.scan``).

    Raises:
        StorageError: a row is damaged.
    """
    last = reader.last_generation(run.run_id)
    finalists = read_finalists(reader, run.run_id)
    leader = last.leader if last is not None else None
    objective = journaled_objective(run.provenance, (leader or {}).get("target_ms"))
    scanned = _scan(reader, run, objective)
    places = sorted({point.origin for point in (*scanned.front, *scanned.able)})
    known = {found.place: found.record for found in reader.history.individuals_at(run.run_id, places)}
    if finalists is not None and finalists.leader is not None:
        leader = finalists.leader
    winner_key = leader["architecture_key"] if leader is not None else ""
    events = reader.events(run.run_id, NetworkJudged)
    answers = {e.architecture_key: unpack_answers(e.correct, e.pictures, e.views) for e in events if e.error is None}
    errors = [e.error for e in events if e.architecture_key == winner_key and e.error is not None]
    winner = answers.get(winner_key)

    def network(found: ParetoPoint) -> FrontNetwork:
        individual = known[found.origin]
        point = replace(found, key=individual.architecture_key)
        is_winner, ours = point.key == winner_key, answers.get(point.key)
        paired = None if is_winner or ours is None or winner is None else difference_of(ours, winner)
        test = None if ours is None else accuracy_of(ours)
        timed = None if finalists is None else finalists.of(point.key)
        return FrontNetwork(point, individual, is_winner, test, paired, timed)

    return Front(
        run=run,
        tries=int(last.counters.get("evaluations", 0)) if last is not None else 0,
        leader=leader,
        networks=_fastest_first(map(network, scanned.front)),
        able=_fastest_first(map(network, scanned.able)),
        test=None if winner is None else accuracy_of(winner),
        untested=errors[-1] if winner is None and errors else None,
        objective=objective,
        reached=scanned.reached,
        finalists=finalists,
        targets=tuple(_target_winners(objective, {} if last is None else last.counters, answers)),
    )


def _target_winners(objective: Objective, counters: Json, answers: Mapping[str, BoolArray]) -> Iterator[TargetWinner]:
    """The winner for each target; ``answers`` to the test pictures by architecture."""
    leaders = counters.get("targets", {})
    for target in objective.targets:
        found, metric = leaders.get(target.name), target.limit.metric
        if found is None:
            yield TargetWinner(target.name, target.limit.limit)
            continue
        place, ours = (int(found["generation"]), int(found["slot"])), answers.get(found["architecture_key"])
        test, latency_ms = None if ours is None else accuracy_of(ours), float(found["metrics"][metric])
        yield TargetWinner(target.name, target.limit.limit, place, found["metrics"], latency_ms, test)


def target_winners(journal: Path, run_id: int | None = None) -> tuple[int, tuple[TargetWinner, ...]]:
    """A run (the latest) and the winner for each of its targets, as the search has them.

    Raises:
        InputError: no run was begun.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        run = chosen_run(reader, run_id)
        last = reader.last_generation(run.run_id)
    objective = journaled_objective(run.provenance, None)
    return run.run_id, tuple(_target_winners(objective, {} if last is None else last.counters, {}))


def target_place(journal: Path, run_id: int | None, name: str) -> Place:
    """Where the best network for a target of a run (the latest) stands.

    Raises:
        InputError: the run has no such target, or no network serves it.
        StorageError: the journal cannot be read, or there is no such run.
    """
    run, found = target_winners(journal, run_id)
    one = next((target for target in found if target.name == name), None)
    if one is None:
        names = ", ".join(target.name for target in found)
        known = f"it has {names}" if names else "it has none: [[target]] names some for a new run"
        raise InputError(f"run {run} has no target {printable(name, 40)}; {known}")
    if one.place is None:
        raise InputError(f"run {run} has found no network within {one.within_ms:g} ms for {name} yet; let it run on")
    return one.place


def _fastest_first(networks: Iterable[FrontNetwork]) -> tuple[FrontNetwork, ...]:
    return tuple(sorted(networks, key=lambda n: (n.point.latency_ms, n.point.key)))


@dataclass(frozen=True, slots=True)
class _Scanned:
    """What can be told of a run's individuals without reading them one by one; points go by architectures' numbers."""

    front: tuple[ParetoPoint, ...]
    able: tuple[ParetoPoint, ...]
    reached: ReachedRanges


def _scan(reader: JournalReader, run: RunRecord, objective: Objective) -> _Scanned:
    """Both fronts of a run (``Front.networks``, ``Front.able``) and what it reached; NOT checked."""
    further = [limit for limit in objective.limits if limit.metric != "latency_ms"]
    front, able, reached = ParetoArchive(), ParetoArchive(), ReachedRanges()

    def take(architecture_id: int, metrics: Json, place: Place) -> None:
        value, cost = objective.value(metrics), metrics.get("latency_ms")
        if math.isnan(value) or cost is None:
            return
        reached.take(objective, metrics)
        cost = cost or objective.standing(metrics)[1]  # 0: nobody knows latencies; then the limits' shares
        point = ParetoPoint(str(architecture_id), value, cost, place)
        front.add(point)
        if all(limit.metric in metrics and limit.met(float(metrics[limit.metric])) for limit in further):
            able.add(point)

    scan_each(reader, run.run_id, run.generations, take)
    return _Scanned(front.front(), able.front(), reached)
