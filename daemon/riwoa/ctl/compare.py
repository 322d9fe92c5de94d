"""``riwoactl compare``: two candidates side by side, or two runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import ARCH_HELP, add_run, candidate, chosen, opened
from riwoa.ctl.runs import purpose
from riwoa.ctl.screen import facts, moment, side_by_side
from riwoa.errors import UsageError
from riwoa.operators import operator_words
from riwoa.service.candidate_text import change_words, changes
from riwoa.service.candidate_view import (
    RunView,
    difference_words,
    individual_view,
    latency_words,
    other_metrics,
    read_run_view,
    value_words,
)
from riwoa.text import duration, printable
from riwoa_storage.history import PlacedIndividual
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """Two candidates side by side: accuracy, latency, who made them, their last common ancestor, and every
gene that differs; where both were judged on test pictures, whether they can be told apart on them. Two whole numbers
are two runs: what each looked for and found, and which settings differ."""
_MOST_CHANGES = 1_000


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print both."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("first", metavar="A", help=f"{ARCH_HELP}; or the number of a run")
    parser.add_argument("second", metavar="B", help="another")
    add_run(parser)
    given = parser.parse_args(arguments)
    with opened(options) as (reader, paths):
        runs = [_run_number(reader, word) for word in (given.first, given.second)]
        if None not in runs:
            found = [read_run_view(reader, chosen(reader, number), paths.latency_table) for number in runs]
            emit(options, *_runs(reader, *found))
            return 0
        for word, number in zip((given.first, given.second), runs, strict=True):
            if number is not None:
                raise UsageError(f"{word} is a run, the other is a candidate; name {word}/GENERATION/SLOT of it")
        ours, theirs = (candidate(reader, word, given.run) for word in (given.first, given.second))
        views = [read_run_view(reader, chosen(reader, one.run_id), paths.latency_table) for one in (ours, theirs)]
        common = _common_ancestor(reader, ours, theirs)
    emit(options, *_candidates(views, ours, theirs, common))
    return 0


def _run_number(reader: JournalReader, word: str) -> int | None:
    """The run that a word means; None where it means a candidate, whose name may be of digits alone."""
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        return None
    if reader.history.run(int(word)) is not None:
        return int(word)
    if len(word) < 4:  # no name is written in so few digits
        chosen(reader, int(word))
    return None


# -- candidates --------------------------------------------------------------------------------------------------------


def _common_ancestor(
    reader: JournalReader, ours: PlacedIndividual, theirs: PlacedIndividual
) -> PlacedIndividual | None:
    if ours.run_id != theirs.run_id:
        return None
    places = {one.place for one in reader.history.lineage(theirs.run_id, theirs.place)}
    line = reader.history.lineage(ours.run_id, ours.place)
    return next((one for one in line if one.place in places), None)


def _candidates(
    views: list[RunView], ours: PlacedIndividual, theirs: PlacedIndividual, common: PlacedIndividual | None
) -> tuple[dict[str, Any], str]:
    keys = [one.record.architecture_key for one in (ours, theirs)]
    changed = changes(ours.record.architecture, theirs.record.architecture)
    paired = views[0].difference(keys[1], keys[0]) if ours.run_id == theirs.run_id and keys[0] != keys[1] else None
    data = {
        "first": individual_view(views[0], ours),
        "second": individual_view(views[1], theirs),
        "changed": changed,
        "test_difference": None
        if paired is None
        else {"value": paired.value, "error": paired.error, "p": paired.p, "clear": paired.is_clear},
        "common_ancestor": None if common is None else list(common.place),
    }
    columns = [_candidate_cells(view, one) for view, one in zip(views, (ours, theirs), strict=True)]
    heads = [f"{one.generation}/{one.record.slot} of run {one.run_id}" for one in (ours, theirs)]
    notes = [
        ("on test", "" if paired is None else f"the second less the first: {difference_words(paired)}"),
        ("validation", "" if paired is not None else _validation_words(views, ours, theirs)),
        ("common", "" if common is None else f"ancestor {common.generation}/{common.record.slot}"),
        ("differ in", change_words(changed, _MOST_CHANGES)),
    ]
    return data, f"{side_by_side(heads, columns)}\n\n{facts(notes, 0)}"


def _candidate_cells(view: RunView, one: PlacedIndividual) -> dict[str, str]:
    record, metrics = one.record, one.record.metrics
    test, timed_ms = view.test(record.architecture_key), view.measured_ms(record.architecture_key)
    return {
        "name": one.name,
        "test": "" if test is None else f"{100 * test.value:.2f} ± {100 * test.error:.2f} %",
        "validation": value_words(view, metrics) if record.status == "ok" else record.status,
        "latency": latency_words(view, metrics),
        "measured": "" if timed_ms is None else f"{timed_ms:.3f} ms",
        **dict(other_metrics(view, metrics)),
        "made by": operator_words(record.operator),
        "committed": moment(one.committed_unix_s),
    }


def _validation_words(views: list[RunView], ours: PlacedIndividual, theirs: PlacedIndividual) -> str:
    """How far two candidates are apart on the pictures that chose, and whether that is more than their errors."""
    metric = views[0].objective.raised
    pair = [one.record.metrics for one in (ours, theirs)]
    if metric != views[1].objective.raised or any(metric not in metrics for metrics in pair):
        return ""
    less = pair[1][metric] - pair[0][metric]
    if metric != "accuracy":
        return f"the second less the first: {metric} {less:+.4g}"
    errors = [view.error(metrics) for view, metrics in zip(views, pair, strict=True)]
    words = f"the second less the first: {100 * less:+.2f} points"
    if None in errors:
        return words
    both = math.hypot(*(error or 0.0 for error in errors))
    return words + (", within their errors" if abs(less) < 2 * both else ", more than their errors")


# -- runs --------------------------------------------------------------------------------------------------------------


def _runs(reader: JournalReader, first: RunView, second: RunView) -> tuple[dict[str, Any], str]:
    views = (first, second)
    settings = [_settings(reader, view) for view in views]
    differing = {
        key: [settings[0].get(key), settings[1].get(key)]
        for key in sorted({*settings[0], *settings[1]})
        if settings[0].get(key) != settings[1].get(key)
    }
    same = first.summary.record.digest == second.summary.record.digest
    data = {
        "first": _run_view(first),
        "second": _run_view(second),
        "settings": differing,
        "same_digest": same,
    }
    shown = side_by_side([f"run {view.run_id}" for view in views], [_run_cells(view) for view in views])
    lines = [(key, f"{_setting(old)} → {_setting(new)}") for key, (old, new) in differing.items()]
    differ = facts(lines) if lines else "  nothing"
    digest = "The histories are the same, digest for digest." if same else ""
    return data, "\n".join(filter(None, [shown, "", "settings that differ", differ, digest]))


def _run_cells(view: RunView) -> dict[str, str]:
    summary, leader = view.summary, view.summary.leader or {}
    metrics = leader.get("metrics", {})
    test = view.test(leader.get("architecture_key", ""))
    return {
        "began": moment(summary.record.created_unix_s),
        "looked for": purpose(summary),
        "test": "" if test is None else f"{100 * test.value:.2f} ± {100 * test.error:.2f} %",
        "validation": value_words(view, metrics) if metrics else "none yet",
        "latency": latency_words(view, metrics),
        "found at": "{}/{}".format(leader["generation"], leader["slot"]) if leader else "",
        "evaluations": f"{summary.evaluations:,}",
        "generations": f"{summary.record.generations:,}",
        "took": duration(summary.committing_s),
        "strategy": printable(summary.record.provenance.get("strategy", "")),
        "seed": printable(summary.record.provenance.get("seed", "")),
        "model": printable(summary.record.provenance.get("model") or "none"),
    }


def _run_view(view: RunView) -> dict[str, Any]:
    record = view.summary.record
    return {
        "run_id": view.run_id,
        "status": record.status,
        "purpose": purpose(view.summary),
        "created_unix_s": record.created_unix_s,
        "generations": record.generations,
        "evaluations": view.summary.evaluations,
        "seconds": view.summary.committing_s,
        "leader": view.summary.leader,
        "digest": record.digest,
    }


def _settings(reader: JournalReader, view: RunView) -> dict[str, Any]:
    """The configuration that a run had last, by dotted keys, and what else its result depends on."""
    found = dict(_dotted("", reader.config_revisions(view.run_id)[-1].config))
    provenance = view.summary.record.provenance
    return found | {name: provenance[name] for name in ("oracle_version", "riwoa") if name in provenance}


def _dotted(prefix: str, value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        found += _dotted(f"{prefix}{key}.", inner) if isinstance(inner, Mapping) else [(f"{prefix}{key}", inner)]
    return found


def _setting(value: object) -> str:
    return "not set" if value is None else printable(value, 60)
