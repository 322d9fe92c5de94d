"""``riwoactl runs``: every search of the journal, what it was for, how it ended and what it found."""

from __future__ import annotations

from collections import Counter
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import opened
from riwoa.ctl.screen import moment, paragraph, table
from riwoa.files.lock import holder
from riwoa.service.candidate_view import RunView, latency_words, read_run_view, run_objective, value_words
from riwoa.text import duration, printable
from riwoa_storage.history import RunSummary
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """Every search in the journal of the state directory, oldest first: when it began, what it looked for,
how it ended, its best candidate (on test pictures, which chose nothing, and on validation), how many architectures it
evaluated, and how long that took."""
_ENDINGS = {
    "deadline": "deadline reached",
    "space_exhausted": "everything within the limits was evaluated",
    "search_converged": "nothing new was found any more",
}
_HEAD = ("run", "began", "looked for", "state", "test", "validation", "latency", "evaluations", "took")


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the runs."""
    Parser(verb, description=_DESCRIPTION).parse_args(arguments)
    with opened(options) as (reader, paths):
        alive = holder(paths) is not None
        views = [read_run_view(reader, summary, paths.latency_table) for summary in reader.history.runs()]
        endings = [_ending(reader, view.summary, alive=alive) for view in views]
    found = [_view(view, ending) for view, ending in zip(views, endings, strict=True)]
    rows = [_row(view, ending) for view, ending in zip(views, endings, strict=True)]
    nothing = f"{paths.journal} holds no run yet; start one with riwoad or make run"
    shown = (table(_HEAD, rows) or "\n".join(map(_sentence, rows))) if rows else nothing
    emit(options, {"journal": str(paths.journal), "runs": found}, shown)
    return 0


def purpose(summary: RunSummary) -> str:
    """What a run looks for, on what: ``accuracy within 0.135 ms, digits``."""
    objective = run_objective(summary)
    limits = [f"{c.metric} {'>=' if c.at_least else '<='} {c.limit:g}" for c in objective.constraints]
    if not limits and objective.latency_target_ms is not None:
        limits = [f"within {objective.latency_target_ms:.3f} ms"]
    oracle = summary.record.provenance.get("oracle", {})
    what = f"{'least ' if objective.lowered else ''}{objective.raised}{' (a front)' if objective.front else ''}"
    on = oracle.get("data") or oracle.get("kind") or ""
    return printable(", ".join(filter(None, (" ".join([what, " and ".join(limits)]).strip(), str(on)))), 120)


def _ending(reader: JournalReader, summary: RunSummary, *, alive: bool) -> str:
    """How a run ended, in words."""
    status = summary.record.status
    if status == "abandoned":
        return "given up for a new run"
    if status == "running":
        return "running" if alive else "stopped; goes on when started again"
    kinds = Counter(event.kind for event in reader.history.events(run_id=summary.record.run_id, kinds=[*_ENDINGS]))
    why = [words for kind, words in _ENDINGS.items() if kinds[kind]]
    return "; ".join(["finished", *why])


def _row(view: RunView, ending: str) -> list[str]:
    summary, leader = view.summary, view.summary.leader
    metrics = {} if leader is None else leader["metrics"]
    test = None if leader is None else view.test(leader.get("architecture_key", ""))
    return [
        str(view.run_id),
        moment(summary.record.created_unix_s),
        purpose(summary),
        ending,
        "" if test is None else f"{100 * test.value:.2f} ± {100 * test.error:.2f} %",
        value_words(view, metrics) if metrics else "none yet",
        latency_words(view, metrics),
        f"{summary.evaluations:,}",
        duration(summary.committing_s),
    ]


def _sentence(row: list[str]) -> str:
    """A run where there is no room for a table."""
    number, began, what, ending, test, validation, latency, evaluations, took = row
    worth = [
        f"test {test}" if test else "",
        f"validation {validation}",
        latency,
        f"{evaluations} evaluations in {took}",
    ]
    hanging = " " * (len(number) + 2)
    head = paragraph(f"{began}  {what}: {ending}", hanging, f"{number}  ")
    return f"{head}\n{paragraph(', '.join(filter(None, worth)), hanging)}"


def _view(view: RunView, ending: str) -> dict[str, Any]:
    summary, leader = view.summary, view.summary.leader
    test = None if leader is None else view.test(leader.get("architecture_key", ""))
    record = summary.record
    return {
        "run_id": view.run_id,
        "status": record.status,
        "ending": ending,
        "purpose": purpose(summary),
        "created_unix_s": record.created_unix_s,
        "committed_unix_s": summary.ended_unix_s,
        "seed": record.provenance.get("seed"),
        "strategy": record.provenance.get("strategy"),
        "generations": record.generations,
        "evaluations": summary.evaluations,
        "seconds": summary.committing_s,
        "metric": view.objective.raised,
        "leader": leader,
        "leader_accuracy_error": None if leader is None else view.error(leader["metrics"]),
        "test": None if test is None else {"accuracy": test.value, "accuracy_error": test.error},
        "latency_interval": view.latency_interval,
        "digest": record.digest,
    }
