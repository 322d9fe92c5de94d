"""A candidate of a run as it may be shown: its numbers with their errors, in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.hardware.interval import interval_of, plus_minus
from riwoa.hardware.timed import Finalists, read_finalists
from riwoa.oracle.answers import unpack_answers
from riwoa.oracle.protocol import accuracy_error
from riwoa.run.limits import journaled_objective
from riwoa.search.fitness import Objective
from riwoa.search.paired import Accuracy, Difference, accuracy_of, difference_of
from riwoa.text import measured, points, printable
from riwoa_storage.events import NetworkJudged
from riwoa_storage.history import PlacedIndividual, RunSummary
from riwoa_storage.reader import JournalReader


@dataclass(frozen=True, slots=True)
class RunView:
    """What candidates of one run are shown with.

    Attributes:
        summary: of the run.
        objective: what it looks for, under its present latency target.
        latency_interval: of its latency table, relative; None where another lies there.
        answers: right answers of judged networks on pictures that chose nothing, by architecture key.
        finalists: what the clock said; None where nobody asked it.
    """

    summary: RunSummary
    objective: Objective
    latency_interval: float | None
    answers: Mapping[str, Any]
    finalists: Finalists | None

    @property
    def run_id(self) -> int:
        """The run's number."""
        return self.summary.record.run_id

    def is_leader(self, individual: PlacedIndividual) -> bool:
        """Whether the run found nothing better."""
        leader = self.summary.leader
        return leader is not None and leader.get("architecture_key") == individual.record.architecture_key

    def error(self, metrics: Mapping[str, Any]) -> float | None:
        """The standard error of an accuracy on validation pictures; None where none were judged."""
        return accuracy_error(metrics, self.summary.record.provenance.get("oracle", {}))

    def test(self, architecture_key: str) -> Accuracy | None:
        """Accuracy on pictures that chose nothing; None where it was not judged."""
        found = self.answers.get(architecture_key)
        return None if found is None else accuracy_of(found)

    def difference(self, ours: str, theirs: str) -> Difference | None:
        """How far two architectures differ on the same test pictures; None where either was not judged."""
        a, b = self.answers.get(ours), self.answers.get(theirs)
        return None if a is None or b is None else difference_of(a, b)

    def measured_ms(self, architecture_key: str) -> float | None:
        """Latency by the clock, in the runtime that will run it; None where it was not timed."""
        timed = None if self.finalists is None else self.finalists.of(architecture_key)
        return None if timed is None else timed.ms


def read_run_view(reader: JournalReader, summary: RunSummary, latency_table: Path) -> RunView:
    """What candidates of a run are shown with.

    Raises:
        StorageError: a row is damaged.
    """
    run = summary.record
    events = reader.events(run.run_id, NetworkJudged)
    return RunView(
        summary=summary,
        objective=run_objective(summary),
        latency_interval=interval_of(latency_table, run.provenance.get("latency_table_sha256")),
        answers={e.architecture_key: unpack_answers(e.correct, e.pictures, e.views) for e in events if e.error is None},
        finalists=read_finalists(reader, run.run_id),
    )


def run_objective(summary: RunSummary) -> Objective:
    """What a run looks for, under its present latency target."""
    provenance = summary.record.provenance
    return journaled_objective(provenance, (summary.leader or provenance).get("target_ms"))


# -- in words ----------------------------------------------------------------------------------------------------------


def value_words(view: RunView, metrics: Mapping[str, Any]) -> str:
    """What is optimised, with its standard error where that is known: ``87.50 ± 0.58 %``."""
    metric = view.objective.raised
    if metric not in metrics:
        return "not known"
    error = view.error(metrics) if metric == "accuracy" else None
    if error is None:
        return measured(metric, metrics[metric])
    return f"{100 * metrics[metric]:.2f} ± {100 * error:.2f} %"


def latency_words(view: RunView, metrics: Mapping[str, Any], *, interval: bool = True) -> str:
    """Milliseconds by the latency table, with its interval; "" where nobody knows them."""
    found = metrics.get("latency_ms")
    return f"{found:.3f} ms{plus_minus(view.latency_interval) if interval else ''}" if found else ""


def gain_words(view: RunView, metrics: Mapping[str, Any], parent: Mapping[str, Any]) -> str:
    """How a candidate differs from its parent in what is optimised and in latency: ``+0.28 points, -0.002 ms``."""
    metric, words = view.objective.raised, []
    if metric in metrics and metric in parent:
        less = metrics[metric] - parent[metric]
        words.append(f"{100 * less:+.2f} points" if metric == "accuracy" else f"{metric} {less:+.4g}")
    if metrics.get("latency_ms") and parent.get("latency_ms"):
        less_ms = metrics["latency_ms"] - parent["latency_ms"]
        words.append(f"{less_ms:+.3f} ms" if abs(less_ms) >= 0.0005 else "as fast")
    return ", ".join(words)


def test_words(accuracy: Accuracy) -> str:
    """An accuracy on pictures that chose nothing."""
    views = f", {accuracy.views} views each," if accuracy.views > 1 else ""
    pictures = f"{accuracy.pictures:,} pictures{views} that chose nothing"
    return f"{100 * accuracy.value:.2f} ± {100 * accuracy.error:.2f} % on {pictures}"


def difference_words(difference: Difference) -> str:
    """How far two networks are apart on the same pictures, and whether that may be chance."""
    clear = "clear" if difference.is_clear else "may be chance"
    return f"{points(difference.value, difference.error)} points on the same pictures, {clear} (p = {difference.p:.2g})"


def other_metrics(view: RunView, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else is known of a network, with units: names in words, and values."""
    shown = {view.objective.raised, "latency_ms", "correct", "images", "predicted", "predicted_sd", "report"}
    named = {"macs": "MACs", "parameters": "parameters"}
    return [
        (named.get(name, printable(name, 40)), measured(name, value))
        for name, value in metrics.items()
        if name not in shown and isinstance(value, int | float)
    ]


# -- as JSON -----------------------------------------------------------------------------------------------------------


def individual_view(view: RunView, found: PlacedIndividual) -> dict[str, Any]:
    """A candidate as a JSON object; the names are those of ``riwoactl pareto``."""
    record, key = found.record, found.record.architecture_key
    test = view.test(key)
    return {
        "run_id": found.run_id,
        "generation": found.generation,
        "slot": record.slot,
        "name": found.name,
        "architecture_key": key,
        "leader": view.is_leader(found),
        "status": record.status,
        "error": record.error,
        "accuracy": record.metrics.get("accuracy"),
        "accuracy_error": view.error(record.metrics),
        "latency_ms": record.metrics.get("latency_ms"),
        "latency_interval": view.latency_interval,
        "measured_ms": view.measured_ms(key),
        "test": None if test is None else {"accuracy": test.value, "accuracy_error": test.error},
        "fitness": record.fitness,
        "operator": record.operator,
        "parent": None if record.parent is None else list(record.parent),
        "request_id": record.request_id,
        "cache_hit": record.cache_hit,
        "config_revision": found.config_revision,
        "committed_unix_s": found.committed_unix_s,
        "metrics": dict(record.metrics),
        "architecture": dict(record.architecture),
    }
