"""Builds the parts of the status object, each from whoever knows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.outcome import changes_words
from riwoa.config.reload import Reloader
from riwoa.hardware.drift import Drift
from riwoa.oracle.protocol import BackendStats, WorkerState, accuracy_error
from riwoa.run.conductor import Conductor
from riwoa.run.credit import OperatorSeconds, Tallies, credit_rows, tallies_from_json, wilson
from riwoa.run.evaluations import Evaluations
from riwoa.run.limits import Range, journaled_objective, standings
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.model_credit import ModelCredit
from riwoa.run.phases import polish_budget
from riwoa.run.prompt_choice import PromptTallies
from riwoa.run.provision import Provision
from riwoa.run.strategy import scheduled_generations
from riwoa.run.training_room import trainings_possible
from riwoa.search.fitness import Objective
from riwoa.service.governor import Governor
from riwoa.service.limit_text import limits_view
from riwoa.service.status import Rate
from riwoa.service.status_object import (
    ClusterStatus,
    CognitionStatus,
    ConfigStatus,
    EvaluationsStatus,
    GovernorStatus,
    LatencyStatus,
    LeaderStatus,
    LearningStatus,
    OperatorStatus,
    PatchesStatus,
    PromptStatus,
    ProposalsStatus,
    RunStatus,
    ScreeningStatus,
    ServerStatus,
    TargetStatus,
    WorkerStatus,
)
from riwoa.service.target_text import targets_view
from riwoa_storage.records import GenerationRecord, RunRecord


def run_view(conductor: Conductor, memory: str | None) -> RunStatus:
    """Where the run stands; ``memory`` says what it knew as it began."""
    config = conductor.config
    searched = conductor.history.counters["evaluations"] - conductor.polish_spent
    return {
        "run_id": conductor.run_id,
        "seed": config.run.seed,
        "strategy": config.search.strategy,
        "phase": conductor.phase,
        "generation": conductor.generation,
        "generations": scheduled_generations(config),
        "most_evaluations": config.run.evaluations,
        "digest": conductor.history.digest,
        "target_ms": conductor.objective.latency_target_ms,
        "resumed_from": conductor.resumed_from,
        "deadline_unix_s": conductor.deadline_unix_s,
        "polish_spent": conductor.polish_spent,
        "polish_evaluations": polish_budget(config, searched),
        "hypervolume": conductor.history.hypervolume,
        "memory": memory,
    }


def evaluations_view(conductor: Conductor, evaluations: Evaluations, rate: Rate) -> EvaluationsStatus:
    """What the evaluations have come to."""
    return _counted(conductor.history.counters, rate.per_s(), evaluations.outstanding)


def _counted(counters: Mapping[str, Any], per_s: float, queued: int) -> EvaluationsStatus:
    return {
        "unique": counters["evaluations"],
        "cache_hits": counters["cache_hits"],
        "failed": counters["failures"],
        # Missing in runs without lower rungs.
        "dropped": counters.get("dropped", 0),
        "audited": counters.get("audited", 0),
        "missed": counters.get("missed", 0),
        "per_s": per_s,
        "queued": queued,
    }


def screening_view(conductor: Conductor) -> ScreeningStatus | None:
    """The predictor that screens children; None where none does."""
    return cast(ScreeningStatus, conductor.screening.view()) if conductor.screening is not None else None


def leader_view(conductor: Conductor, latency_interval: float | None) -> LeaderStatus | None:
    """The best individual so far; ``latency_interval`` is the table's (``riwoa.hardware.interval``)."""
    leader = conductor.leader
    if leader is None:
        return None
    history = conductor.history
    return _leader_status(
        leader.to_json(),
        conductor.objective,
        conductor.config.oracle.settings.model_dump(),
        latency_interval=latency_interval,
        tries=history.counters["evaluations"],
        reached=history.reached,
    )


def run_targets_view(conductor: Conductor) -> list[TargetStatus]:
    """The best network for each of several devices so far; empty where the run has one objective."""
    return targets_view(conductor.config.objective.to_json(), {"targets": conductor.history.targets_json})


def workers_view(stats: BackendStats) -> list[WorkerStatus]:
    """What each worker process is doing."""
    return [_worker_view(worker, clustered=stats.cluster is not None) for worker in stats.workers]


def _worker_view(w: WorkerState, *, clustered: bool) -> WorkerStatus:
    seen: WorkerStatus = {
        "name": f"oracle-{w.slot}",
        "state": w.state,
        "job": w.job_id,
        "since_s": w.since_s,
        "done": w.evaluations,
        "restarts": w.restarts,
        "busy_share": w.busy_share,
        "pid": w.pid,
    }
    if clustered:
        seen |= {"node": w.node, "says": w.says}
    return seen


def cluster_view(stats: BackendStats) -> ClusterStatus | None:
    """The nodes of the cluster and its queue, as its driver told last; None where the workers are this machine's."""
    cluster = stats.cluster
    if cluster is None:
        return None
    return {
        "address": cluster.address,
        "nodes": [
            {
                "name": node.name,
                "address": node.address,
                "cpus": node.cpus,
                "gpus": node.gpus,
                "workers": node.workers,
                "busy": node.busy,
                "refused": node.refused,
            }
            for node in cluster.nodes
        ],
        "queued": stats.queued,
        "retried": stats.retried,
        "asked_twice": cluster.asked_twice,
        "connections": cluster.drivers,
        "lost": cluster.lost,
    }


def governor_view(governor: Governor) -> GovernorStatus:
    """Why the governor pauses the search, and its readings of the machine."""
    return {"holds": dict(governor.holds), "readings": asdict(governor.readings)}


def proposals_view(
    conductor: Conductor, proposal_queue: ProposalQueue | None, seconds: OperatorSeconds | None = None
) -> ProposalsStatus | None:
    """The language model and its queue; None where nobody writes proposals."""
    if proposal_queue is None:
        return None
    counters, stats = conductor.history.counters, proposal_queue.stats()
    provider = stats.provider
    return {
        "model": proposal_queue.provider.model,
        "state": provider.state,
        "reason": provider.reason,
        "breaker_left": provider.breaker_left,
        "lag": conductor.config.cognition.lag,
        "p_semantic": conductor.p_semantic,
        "waiting": stats.waiting,
        "trainings_waiting": stats.trainings_waiting,
        "busy_share": stats.busy_share,
        "tokens_per_s": provider.tokens_per_s,
        "restarts": provider.restarts,
        "pid": provider.pid,
        "resident_bytes": provider.resident_bytes,
        "answered": counters["replies"],
        "fallbacks": counters["fallbacks"],
        "successes": counters["successes"],
        "patches": patches_view(conductor.history.model, seconds),
        "learning": learning_view(conductor.learning, conductor) if conductor.learning else None,
        "server": cast(ServerStatus, asdict(provider.server)) if provider.server is not None else None,
        "prompts": prompts_view(conductor.history.prompts),
    }


def prompts_view(tallies: PromptTallies) -> dict[str, PromptStatus] | None:
    """What the strategies of prompt have won, with 95 % intervals; None where none has."""
    found: dict[str, PromptStatus] = {}
    for name, (joined, won) in tallies.items():
        low, high = wilson(won, joined)
        found[name] = {"joined": joined, "won": won, "win_rate_low": low, "win_rate_high": high}
    return found or None


def learning_view(learning: LoraSchedule, conductor: Conductor) -> LearningStatus:
    """The adapter in force and the trainings, and how many the whole search has room for."""
    adapter, training = learning.in_force(conductor.generation), learning.under_way
    return {
        "adapter": adapter.sha256 if adapter else None,
        "since_generation": adapter.generation if adapter else None,
        "accepted": learning.accepted,
        "rejected": learning.rejected,
        "failed": learning.failed,
        "unconsumed": learning.unconsumed[0],
        "lessons": learning.unconsumed[1],
        "train_after": learning.train_after,
        "possible": trainings_possible(learning, conductor.config),
        "swap": training.swap if training else None,
        "unusable": list(learning.unusable),
        "inherited": learning.inherited.words if learning.inherited else None,
        "trial": learning.trial if learning.inherited else None,
        "left_out": list(learning.left_out),
    }


def cognition_view(provision: Provision) -> CognitionStatus:
    """Who writes semantic proposals."""
    return cast(CognitionStatus, provision.view())


def operators_view(conductor: Conductor, seconds: OperatorSeconds) -> dict[str, OperatorStatus]:
    """What each operator is worth so far."""
    spent = Counter(seconds.spent)
    spent.update(conductor.choosing_s)
    return _credit(conductor.history.tallies, spent, seconds.leaders)


def _credit(
    tallies: Tallies, seconds: Mapping[str, float], leaders: Mapping[str, int] | None = None
) -> dict[str, OperatorStatus]:
    return cast(dict[str, OperatorStatus], credit_rows(tallies, seconds, leaders))


def patches_view(credit: ModelCredit, seconds: OperatorSeconds | None) -> PatchesStatus | None:
    """What the search made of a pool's patches; None before the first joined. ``seconds``: None where nobody counts."""
    if not credit.patches:
        return None
    chosen, against = credit.picked + credit.led_to, credit.against_rivals
    return {
        "joined": credit.patches,
        "picked": credit.picked,
        "share_picked": credit.picked / credit.patches,
        "picked_won": credit.picked_won,
        "led_to": credit.led_to,
        "led_to_won": credit.led_to_won,
        "greedy_share": credit.greedy / credit.judged if credit.judged else None,
        "pairs": credit.pairs,
        "gain": None if against is None else against.mean,
        "gain_low": None if against is None else against.low,
        "gain_high": None if against is None else against.high,
        "seconds_a_pick": seconds.model_s / chosen if seconds is not None and chosen else None,
        "leaders": None if seconds is None else seconds.model_leaders,
    }


def latency_view(drift: Drift, checked_unix_s: float) -> LatencyStatus:
    """The outcome of a drift check."""
    return cast(LatencyStatus, {**drift.to_json(), "checked_unix_s": checked_unix_s})


def config_view(conductor: Conductor, reloader: Reloader) -> ConfigStatus:
    """The configuration in force, what the last reading of its file came to, and what waits for the boundary."""
    outcome, waiting = reloader.outcome, reloader.waiting
    told = outcome.accepted or outcome.refused or outcome.error
    return {
        "file": str(reloader.file) if reloader.file else None,
        "revision": conductor.revision,
        "error": outcome.error,
        "restart_keys": list(outcome.refused),
        "outcome": outcome.told("applies at the next generation" if waiting else "applied") if told else None,
        "waiting": changes_words(waiting) or None,
    }


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The parts of the status object that a finished run leaves behind."""

    run: RunStatus
    evaluations: EvaluationsStatus
    operators: dict[str, OperatorStatus]
    leader: LeaderStatus | None
    targets: list[TargetStatus]


def finished_view(
    run: RunRecord,
    last: GenerationRecord,
    leader: Mapping[str, Any] | None,
    latency_interval: float | None,
    reached: Mapping[str, Range],
) -> FinishedRun:
    """What a finished run leaves behind, from the journal.

    Args:
        run: its record.
        last: the last generation.
        leader: its winner; None where no evaluation succeeded.
        latency_interval: of the latency table that it used.
        reached: what its evaluated networks have of each limited metric.
    """
    provenance = run.provenance
    where: RunStatus = {
        "run_id": run.run_id,
        "seed": provenance["seed"],
        "strategy": provenance["strategy"],
        "phase": last.phase,
        "generation": last.generation + 1,
        "generations": last.generation + 1,
        "digest": last.digest,
        "target_ms": leader["target_ms"] if leader is not None else None,
        "resumed_from": None,
        "hypervolume": last.counters.get("hypervolume"),
    }
    return FinishedRun(
        run=where,
        evaluations=_counted(last.counters, per_s=0.0, queued=0),
        operators=_credit(tallies_from_json(last.counters.get("operators", {})), {}),
        leader=journaled_leader(leader, provenance, latency_interval, last.counters.get("evaluations"), reached),
        targets=targets_view(provenance.get("objective", {}), last.counters),
    )


def journaled_leader(
    leader: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    latency_interval: float | None,
    tries: int | None,
    reached: Mapping[str, Range],
) -> LeaderStatus | None:
    """A journaled winner; None where there is none."""
    if leader is None:
        return None
    return _leader_status(
        leader,
        journaled_objective(provenance, leader["target_ms"]),
        provenance.get("oracle", {}),
        latency_interval=latency_interval,
        tries=tries,
        reached=reached,
    )


def _leader_status(
    leader: Mapping[str, Any],
    objective: Objective,
    oracle: Mapping[str, Any],
    *,
    latency_interval: float | None,
    tries: int | None,
    reached: Mapping[str, Range],
) -> LeaderStatus:
    """Of a winner as a generation's row has it; ``oracle``: the settings that it was judged with."""
    metrics = leader["metrics"]
    return {
        "metric": objective.raised,
        "value": metrics[objective.raised],
        "accuracy": metrics.get("accuracy"),
        "accuracy_error": accuracy_error(metrics, oracle),
        "tries": tries,
        "images": metrics.get("images"),
        "latency_ms": metrics["latency_ms"],
        "latency_interval": latency_interval,
        "fitness": leader["fitness"],
        "feasible": leader["feasible"],
        "limits": limits_view(standings(objective, metrics, reached)),
        "architecture_key": leader["architecture_key"],
        "origin": (leader["generation"], leader["slot"]),
    }
