"""The parts of the status object (documented in the README), each from whoever knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.reload import Reloader
from riwoa.oracle.protocol import BackendStats, accuracy_error
from riwoa.run.conductor import Conductor
from riwoa.run.credit import OperatorSeconds, credit_rows, tallies_from_json
from riwoa.run.evaluations import Evaluations
from riwoa.run.lora_schedule import Learning
from riwoa.service.governor import Governor
from riwoa.service.status import Rate
from riwoa_storage.records import GenerationRecord, RunRecord


def run_view(conductor: Conductor) -> dict[str, Any]:
    """Where the run stands."""
    config = conductor.config
    return {
        "run_id": conductor.run_id,
        "seed": config.run.seed,
        "strategy": config.search.strategy,
        "phase": conductor.phase,
        "generation": conductor.generation,
        "generations": config.run.generations,
        "digest": conductor.history.digest,
        "target_ms": conductor.objective.latency_target_ms,
        "resumed_from": conductor.resumed_from,
        "deadline_unix_s": conductor.deadline_unix_s,
        "polish_spent": conductor.polish_spent,
        "polish_evaluations": config.run.polish_evaluations,
    }


def evaluations_view(conductor: Conductor, evaluations: Evaluations, rate: Rate) -> dict[str, Any]:
    """What the evaluations have come to."""
    counters = conductor.history.counters
    return {
        "unique": counters["evaluations"],
        "cache_hits": counters["cache_hits"],
        "failed": counters["failures"],
        **raced_view(counters),
        "per_s": rate.per_s(),
        "queued": evaluations.outstanding,
    }


def raced_view(counters: Mapping[str, Any]) -> dict[str, int]:
    """Candidates given up on a lower rung; of those that were to be, how many went on as a test, and were wronged."""
    return {name: counters.get(name, 0) for name in ("dropped", "audited", "missed")}


def screening_view(conductor: Conductor) -> dict[str, Any] | None:
    """The predictor that screens, or None."""
    return conductor.screening.view() if conductor.screening is not None else None


def current_leader(conductor: Conductor, latency_interval: float | None) -> dict[str, Any] | None:
    """The best individual so far; ``latency_interval`` is the table's (``riwoa.hardware.interval``)."""
    leader = conductor.leader
    if leader is None:
        return None
    return {
        "accuracy": leader.metrics["accuracy"],
        "accuracy_error": accuracy_error(leader.metrics, conductor.config.oracle.settings.model_dump()),
        "latency_ms": leader.metrics["latency_ms"],
        "latency_interval": latency_interval,
        "fitness": leader.fitness,
        "feasible": leader.feasible,
        "architecture_key": leader.individual.architecture_key,
        "origin": list(leader.origin),
    }


def workers_view(stats: BackendStats) -> list[dict[str, Any]]:
    """What each worker process is doing."""
    return [
        {
            "name": f"oracle-{w.slot}",
            "state": w.state,
            "job": w.job_id,
            "since_s": w.since_s,
            "done": w.evaluations,
            "restarts": w.restarts,
            "busy_share": w.busy_share,
            "pid": w.pid,
        }
        for w in stats.workers
    ]


def governor_view(governor: Governor) -> dict[str, Any]:
    """Why the search pauses, and what the machine says of itself."""
    return {"holds": dict(governor.holds), "readings": asdict(governor.readings)}


def proposals_view(conductor: Conductor, proposal_queue: ProposalQueue | None) -> dict[str, Any] | None:
    """The language model's side, or None."""
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
        "learning": learning_view(conductor.learning, conductor.generation) if conductor.learning else None,
    }


def learning_view(learning: Learning, generation: int) -> dict[str, Any]:
    """The adapter in force and the trainings; ``swap``: the generation that the one under way is for."""
    adapter, training = learning.in_force(generation), learning.under_way
    return {
        "adapter": adapter.sha256 if adapter else None,
        "since_generation": adapter.generation if adapter else None,
        "accepted": learning.accepted,
        "rejected": learning.rejected,
        "failed": learning.failed,
        "unconsumed": learning.unconsumed,
        "swap": training.swap if training else None,
        "unusable": list(learning.unusable),
    }


def operators_view(conductor: Conductor, seconds: OperatorSeconds) -> dict[str, dict[str, Any]]:
    """What each operator is worth so far."""
    return credit_rows(conductor.history.tallies, seconds.spent)


def config_view(conductor: Conductor, reloader: Reloader) -> dict[str, Any]:
    """The configuration in force and what is wrong with its file."""
    return {
        "file": str(reloader.file) if reloader.file else None,
        "revision": conductor.revision,
        "error": reloader.error,
        "restart_keys": list(reloader.restart_keys),
    }


def finished_view(run: RunRecord, last: GenerationRecord, latency_interval: float | None) -> dict[str, Any]:
    """The parts of the status object that a finished run leaves behind."""
    provenance, leader = run.provenance, last.leader
    view: dict[str, Any] = {
        "run": {
            "run_id": run.run_id,
            "seed": provenance["seed"],
            "strategy": provenance["strategy"],
            "phase": last.phase,
            "generation": last.generation + 1,
            "generations": last.generation + 1,
            "digest": last.digest,
            "target_ms": leader["target_ms"] if leader is not None else None,
            "resumed_from": None,
        },
        "evaluations": {
            "unique": last.counters["evaluations"],
            "cache_hits": last.counters["cache_hits"],
            "failed": last.counters["failures"],
            **raced_view(last.counters),
            "per_s": 0.0,
            "queued": 0,
        },
        "operators": credit_rows(tallies_from_json(last.counters.get("operators", {})), {}),
    }
    if leader is not None:
        metrics = leader["metrics"]
        view["leader"] = {
            "accuracy": metrics["accuracy"],
            "accuracy_error": accuracy_error(metrics, provenance.get("oracle", {})),
            "latency_ms": metrics["latency_ms"],
            "latency_interval": latency_interval,
            "fitness": leader["fitness"],
            "feasible": leader["feasible"],
            "architecture_key": leader["architecture_key"],
            "origin": [leader["generation"], leader["slot"]],
        }
    return view
