"""The books of a run: an individual's record, the counters, the credit, and the commit that makes them durable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.config.reload import Reloader
from riwoa.config.schema import Config, as_json
from riwoa.log import get_logger
from riwoa.run.candidate import Candidate
from riwoa.run.credit import Child, tallied, tallies_to_json
from riwoa.run.evaluations import EvaluationOutcome
from riwoa.run.history import History, genotype_of, pack_state
from riwoa.run.journal import RunJournal
from riwoa.run.model_credit import credit_to_json
from riwoa.run.prompt_choice import tallied_prompts
from riwoa.run.replies import JoinedReplies, Verdicts
from riwoa.run.task import SearchTask
from riwoa.search.base import Outcome, Snapshot
from riwoa.search.driver import Evaluated, Prediction
from riwoa.search.fitness import Objective
from riwoa_storage.events import ConfigRefused, Event
from riwoa_storage.records import (
    ConfigRevisionRecord,
    GenerationRecord,
    IndividualRecord,
    Phase,
)

_log = get_logger("conductor")


@dataclass(frozen=True, slots=True)
class Commit:
    """A generation that is to be committed.

    Attributes:
        generation: its number.
        phase: "search" or "polish".
        individuals: one a candidate, by slot.
        joined: the replies that joined it.
        inputs: what the clock decided; {} in a reference run.
        state: the strategy's, after it was told.
        shares: of the pool that it chose from, by operator.
        started_s: monotonic clock.
    """

    generation: int
    phase: Phase
    individuals: Sequence[IndividualRecord]
    joined: JoinedReplies
    inputs: Mapping[str, Any]
    state: Snapshot
    shares: Mapping[str, float]
    started_s: float


class Ledger:
    """Writes what a run does into its journal, with the totals that follow from it.

    Args:
        journal: of the run.
        history: what was committed before; takes in each commit.
        task: what is known of an architecture without an evaluation.
        reloader: the configuration in force.
        raced: whether candidates are given up on lower rungs; only then are they counted.
    """

    def __init__(
        self, journal: RunJournal, history: History, task: SearchTask, reloader: Reloader, *, raced: bool
    ) -> None:
        self._journal = journal
        self._history = history
        self._task = task
        self._reloader = reloader
        self._raced = raced
        self.revision = 0  # of the configuration in force

    # -- individuals -------------------------------------------------------------------------------------------------

    def individual(self, c: Candidate, e: EvaluationOutcome, predicted: Prediction | None) -> IndividualRecord:
        """The record of a candidate that was evaluated."""
        objective = self._history.objective
        known = self._task.known_metrics(c.architecture, objective)
        metrics = {"latency_ms": 0.0, **e.metrics, **known} if e.error is None else {}
        if metrics and predicted is not None and not e.hit:
            metrics |= {"predicted": predicted[0], "predicted_sd": predicted[1]}
        fitness = float(objective.fitness(*objective.standing(metrics))) if e.ok else None
        return IndividualRecord(
            slot=c.slot,
            operator=c.operator,
            parent=c.parent,
            genotype=c.genotype.astype("<f8").tobytes(),
            architecture=c.architecture,
            architecture_key=c.key,
            status=e.status,
            metrics=metrics,
            fitness=fitness,
            fitness_version=objective.version,
            cache_hit=e.hit,
            request_id=c.request_id,
            error=e.error or c.error,
        )

    def gain(self, i: IndividualRecord) -> float | None:
        """Fitness beyond the parent's on the same images; None where either could not be evaluated."""
        parent = self._history.fitness(i.parent)
        return i.fitness - parent if i.fitness is not None and parent is not None else None

    def won(self, i: IndividualRecord) -> bool:
        """Whether an individual is fitter than its parent by more than the margin (ruling 2)."""
        gain = self.gain(i)
        return gain is not None and gain > self._reloader.config.cognition.success_margin

    # -- the commit --------------------------------------------------------------------------------------------------

    async def commit(
        self,
        c: Commit,
        verdicts: Verdicts,
        events: Sequence[Event],
    ) -> None:
        """Make a generation durable, in one transaction, and stand on it.

        Args:
            c: the generation.
            verdicts: on the replies that joined it.
            events: to be stored with it.
        """
        record = self._record(c, verdicts)
        digest = await self._journal.writer.commit_generation(record, buffer=verdicts.entries, events=events)
        self._history.committed(c.generation, record.counters, digest)
        leader, raised = self._history.best, self._history.objective.raised
        _log.info(
            "generation_committed",
            generation=c.generation,
            phase=c.phase,
            evaluations=record.counters["evaluations"],
            **{raised: leader.metrics[raised] if leader else None},
            latency_ms=leader.metrics["latency_ms"] if leader else None,
            **self._hypervolume(),
            digest=digest[:12],
        )

    def _record(self, c: Commit, verdicts: Verdicts) -> GenerationRecord:
        failed = {str(i.slot): i.error for i in c.individuals if i.status == "failed"}
        children = [self._child(i) for i in c.individuals if i.parent is not None]
        tallies = tallied(self._history.tallies, children, {"semantic": len(c.joined.rejected)}, c.shares)
        won = {i.request_id for i in c.individuals if i.request_id is not None and self.won(i)}
        prompts = tallied_prompts(self._history.prompts, c.joined.prompts, won)
        model = credit_to_json(self._history.model.later(verdicts.credit))
        # JSON has no other keys than text.
        rivals = {"rivals": {str(slot): of for slot, of in c.joined.rivals.items()}} if c.joined.rivals else {}
        leader, targets = self._history.best, self._history.targets_json
        return GenerationRecord(
            run_id=self._journal.run_id,
            generation=c.generation,
            phase=c.phase,
            config_revision=self.revision,
            state=pack_state(c.state),
            counters={
                **self._counters(c.individuals, c.joined),
                "operators": tallies_to_json(tallies),
                **({"prompts": prompts} if prompts else {}),
                **({"model": model} if model else {}),
                **self._hypervolume(),
                **({"targets": targets} if targets else {}),
            },
            leader=leader.to_json() if leader is not None else None,
            inputs={"failed": failed, "rejected": dict(verdicts.rejected), **rivals, **c.inputs},
            individuals=tuple(c.individuals),
            joined_requests=c.joined.request_ids,
            duration_s=time.monotonic() - c.started_s,
        )

    def _hypervolume(self) -> dict[str, float]:
        """What a search for a front has come to; nothing of any other."""
        found = self._history.hypervolume
        return {} if found is None else {"hypervolume": found}

    def _child(self, i: IndividualRecord) -> Child:
        return Child(i.operator, self.gain(i), self.won(i), i.cache_hit)

    def _counters(self, individuals: Sequence[IndividualRecord], joined: JoinedReplies) -> dict[str, int]:
        """Totals of the run including this generation."""
        semantic = [i for i in individuals if i.operator == "semantic"]
        fresh = [i for i in individuals if not i.cache_hit]
        value = self._history.objective.value
        audited = [i.metrics for i in fresh if "audited" in i.metrics]
        raced = {
            "dropped": sum(i.status == "dropped" for i in fresh),
            "audited": len(audited),
            "missed": sum(value(m) > m["audited"] for m in audited),
        }
        added = {
            "evaluations": sum(i.status != "dropped" for i in fresh),
            "cache_hits": sum(i.cache_hit for i in individuals),
            "failures": sum(i.status == "failed" for i in fresh),
            "replies": len(joined.request_ids),
            "semantic": len(semantic),
            "fallbacks": len(joined.request_ids) - len(semantic) if joined.patches is None else 0,
            "successes": sum(map(self.won, semantic)),
            **({} if joined.patches is None else {"patches": joined.patches}),
            **(raced if self._raced else {}),
        }
        return {name: self._history.counters[name] + value for name, value in added.items()}

    # -- the configuration -------------------------------------------------------------------------------------------

    async def put_config(self, config: Config, changed: Mapping[str, Any], generation: int) -> None:
        """Store a configuration that applies from a generation on."""
        self.revision += 1
        await self._journal.writer.put_config_revision(
            ConfigRevisionRecord(
                run_id=self._journal.run_id,
                revision=self.revision,
                generation=generation,
                config=as_json(config),
                changed=changed,
                created_unix_s=time.time(),
            )
        )

    async def put_refusal(self, generation: int) -> None:
        """Store what was refused of an edited file since the last generation, if something was."""
        refusal = self._reloader.take_refusal()
        if refusal is None:
            return
        refused = {key: list(pair) for key, pair in refusal.refused.items()}
        event = ConfigRefused(
            run_id=self._journal.run_id, generation=generation, reason=refusal.sentence, refused=refused
        )
        await self._journal.writer.put_event(event)


def evaluated(i: IndividualRecord, objective: Objective) -> Evaluated:
    """A recorded individual as a strategy, and what learns beside it, are told."""
    standing = objective.standing(i.metrics)
    outcome = Outcome(i.slot, i.operator, genotype_of(i), *standing, i.parent, given_up=i.status == "dropped")
    return Evaluated(outcome, i.metrics, fresh=not i.cache_hit)
