"""What Prometheus scrapes at ``/metrics``: names carry their units, what is not known is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from riwoa.service.status_object import StatusObject

CONTENT_TYPE = CONTENT_TYPE_LATEST
# name, help, where it lies in the status, what it is multiplied by
_GAUGES = (
    ("generation", "Generation under way", "run.generation", 1.0),
    ("generations_planned", "Generations of the whole search", "run.generations", 1.0),
    ("hypervolume", "Mean of the best value within each latency", "run.hypervolume", 1.0),
    ("latency_target_seconds", "Latency that the winner must meet", "run.target_ms", 1e-3),
    ("evaluations_per_second", "Evaluations, over the last minute", "evaluations.per_s", 1.0),
    ("queued_candidates", "Candidates that wait for a worker", "evaluations.queued", 1.0),
    ("best_value", "The leader's value of the metric that is optimised", "leader.value", 1.0),
    ("best_value_error", "Its standard error", "leader.accuracy_error", 1.0),
    ("best_fitness", "The leader's fitness", "leader.fitness", 1.0),
    ("best_latency_seconds", "The leader's latency", "leader.latency_ms", 1e-3),
    ("best_feasible", "Whether the leader keeps every limit", "leader.feasible", 1.0),
    ("front_networks", "Networks on the front", "pareto", 1.0),
    ("time_left_seconds", "Until the search ends", "time_left_s", 1.0),
    ("model_batches_waiting", "Batches of requests to the language model that wait", "proposals.waiting", 1.0),
    ("model_trainings_waiting", "Trainings that wait", "proposals.trainings_waiting", 1.0),
    ("model_busy_ratio", "Share of the time that the language model works", "proposals.busy_share", 1.0),
    ("model_tokens_per_second", "Tokens that the language model writes", "proposals.tokens_per_s", 1.0),
    ("model_resident_bytes", "Memory of the language model's process", "proposals.resident_bytes", 1.0),
    ("model_tokens_night_in", "Tokens that a server has read since noon", "proposals.server.night_in", 1.0),
    ("model_tokens_night_out", "Tokens that it has written since noon", "proposals.server.night_out", 1.0),
    ("model_tokens_night_budget", "Tokens of a night at most", "proposals.server.budget", 1.0),
    ("model_cost_night", "What they cost, by the prices configured", "proposals.server.night_cost", 1.0),
    ("successes_unconsumed", "Successes that no training used yet", "proposals.learning.unconsumed", 1.0),
    ("disk_free_bytes", "Free where the journal lies", "governor.readings.disk_free_bytes", 1.0),
    ("memory_available_bytes", "Memory that is available", "governor.readings.memory_available_bytes", 1.0),
    ("load_per_core_ratio", "Load average a core", "governor.readings.load_per_core", 1.0),
    ("temperature_celsius", "Of the hottest sensor", "governor.readings.temperature_c", 1.0),
    ("start_time_seconds", "When the daemon started", "started_unix_s", 1.0),
)
_COUNTERS = (
    ("evaluations", "Unique evaluations", "evaluations.unique"),
    ("cache_hits", "Candidates known already", "evaluations.cache_hits"),
    ("evaluations_failed", "Evaluations that failed", "evaluations.failed"),
    ("evaluations_dropped", "Candidates given up on a lower rung", "evaluations.dropped"),
    ("replies", "Replies of the language model", "proposals.answered"),
    ("replies_fallback", "Requests that another operator answered", "proposals.fallbacks"),
    ("successes", "Proposals of the model that beat their parents", "proposals.successes"),
    ("model_tokens_read", "Tokens that a server has read in this run", "proposals.server.run_in"),
    ("model_tokens_written", "Tokens that it has written", "proposals.server.run_out"),
    ("model_restarts", "Restarts of the language model", "proposals.restarts"),
)


def exposition(status: StatusObject, journal: Path, last_commit: tuple[float, float] | None, streams: int) -> bytes:
    """The text that Prometheus reads.

    Args:
        status: of the daemon.
        journal: whose size is told.
        last_commit: when a generation was committed last, and how many seconds it took.
        streams: clients that listen to the page.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_of_status(status), *_of_page(journal, last_commit, streams)]))
    return generate_latest(registry)


class _Collected(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """All of them."""
        return self._metrics


def _of_status(status: StatusObject) -> Iterator[Metric]:
    yield _gauge("up", "Whether a daemon holds the state directory", float(bool(status.get("alive"))))
    yield _labelled("state", "1 for the state the daemon is in", "state", {status["state"]: 1.0})
    for name, words, place, unit in _GAUGES:
        if (value := _number(status, place)) is not None:
            yield _gauge(name, words, value * unit)
    for name, words, place in _COUNTERS:
        if (value := _number(status, place)) is not None:
            yield CounterMetricFamily(f"riwoa_{name}", words, value=value)
    yield from _of_workers(status)
    proposals: Mapping[str, Any] = status.get("proposals") or {}
    learning = proposals.get("learning") or {}
    verdicts = {
        verdict: float(learning[verdict]) for verdict in ("accepted", "rejected", "failed") if verdict in learning
    }
    yield _labelled("trainings", "Trainings of an adapter, by what came of them", "verdict", verdicts, counter=True)


def _of_workers(status: StatusObject) -> Iterator[Metric]:
    workers = status.get("workers") or []
    states: dict[str, float] = {}
    for worker in workers:
        states[worker["state"]] = states.get(worker["state"], 0.0) + 1.0
    yield _labelled("workers", "Worker processes of the oracle, by state", "state", states)
    busy = {w["name"]: float(share) for w in workers if (share := w.get("busy_share")) is not None}
    yield _labelled("worker_busy_ratio", "Share of the time that a worker works", "worker", busy)
    done = {w["name"]: float(w["done"]) for w in workers}
    yield _labelled("worker_evaluations", "Evaluations of a worker", "worker", done, counter=True)


def _of_page(journal: Path, last_commit: tuple[float, float] | None, streams: int) -> Iterator[Metric]:
    files = [journal, journal.with_name(f"{journal.name}-wal")]
    yield _gauge("journal_bytes", "Size of the journal and its log", float(sum(_size(file) for file in files)))
    if last_commit is not None:
        yield _gauge("last_commit_timestamp_seconds", "When a generation was committed last", last_commit[0])
        yield _gauge("last_generation_duration_seconds", "How long that generation took", last_commit[1])
    yield _gauge("page_streams", "Clients that listen to the page", float(streams))


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"riwoa_{name}", words, value=value)


def _labelled(name: str, words: str, label: str, values: Mapping[str, float], *, counter: bool = False) -> Metric:
    family = (CounterMetricFamily if counter else GaugeMetricFamily)(f"riwoa_{name}", words, labels=(label,))
    for of, value in values.items():
        family.add_metric((of,), value)
    return family


def _number(status: Mapping[str, Any], place: str) -> float | None:
    """What lies at a dotted place of the status; None where that is no number."""
    found: Any = status
    for name in place.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
