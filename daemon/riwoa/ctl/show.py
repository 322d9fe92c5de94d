"""``riwoactl show``: one candidate: its genes, what it is worth, who made it, and what came of it."""

from __future__ import annotations

from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import ARCH_HELP, add_run, candidate, chosen, opened
from riwoa.ctl.screen import facts, moment, paragraph
from riwoa.operators import operator_words
from riwoa.service.candidate_text import change_words, changes, gene_lines
from riwoa.service.candidate_view import (
    RunView,
    gain_words,
    individual_view,
    latency_words,
    other_metrics,
    read_run_view,
    test_words,
    value_words,
)
from riwoa.text import duration, printable
from riwoa_storage.history import Place, PlacedIndividual
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """One candidate of a run: accuracy with its standard error (on pictures that chose nothing first, where
the run judged it on them), latency with its interval, rank within the run's limits, who made it from what and when,
its children, and its genes. `riwoactl why` tells where it came from."""
_MOST_CHILDREN = 12


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the candidate."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("arch", nargs="?", default="best", metavar="ARCH", help=f"{ARCH_HELP} (default: best)")
    add_run(parser)
    given = parser.parse_args(arguments)
    with opened(options) as (reader, paths):
        found = candidate(reader, given.arch, given.run)
        view = read_run_view(reader, chosen(reader, found.run_id), paths.latency_table)
        parent = None if found.record.parent is None else reader.history.individual(found.run_id, found.record.parent)
        children = reader.history.children(found.run_id, found.place)
        rank = _rank(reader, view, found)
    data = {
        **individual_view(view, found),
        "rank": None if rank is None else rank[0],
        "ranked": None if rank is None else rank[1],
        "metric": view.objective.raised,
        "target_ms": view.objective.latency_target_ms,
        "changed": [] if parent is None else changes(parent.record.architecture, found.record.architecture),
        "children": [list(place) for place in children],
    }
    emit(options, data, _text(view, found, parent, children, rank))
    return 0


def _rank(reader: JournalReader, view: RunView, found: PlacedIndividual) -> tuple[int, int] | None:
    """Its rank among a run's candidates within all limits, and how many those are; None where it is beyond one."""
    limits = view.objective.limits
    metrics = found.record.metrics
    if found.record.fitness is None or any(c.metric not in metrics or not c.met(metrics[c.metric]) for c in limits):
        return None
    return reader.history.rank(found.run_id, found.record, [(c.metric, c.limit, c.at_least) for c in limits])


def _text(
    view: RunView,
    found: PlacedIndividual,
    parent: PlacedIndividual | None,
    children: list[Place],
    rank: tuple[int, int] | None,
) -> str:
    record = found.record
    head = f"candidate {found.generation}/{record.slot} of run {found.run_id}, {found.name}"
    if view.is_leader(found):
        head += f", the {'winner' if view.summary.record.status == 'finished' else 'leader'}"
    rows = [*_worth(view, found, rank), *_origin(view, found, parent), ("children", _children_words(children))]
    sizes = ", ".join(f"{value} {name}" for name, value in other_metrics(view, record.metrics))
    return "\n".join(
        [
            paragraph(head, "  ", ""),
            facts([*rows, ("size", sizes)]),
            "  genes",
            facts(gene_lines(record.architecture), 4),
        ]
    )


def _worth(view: RunView, found: PlacedIndividual, rank: tuple[int, int] | None) -> list[tuple[str, str]]:
    record, metrics = found.record, found.record.metrics
    if record.status != "ok":
        why = "given up early, on a lower rung" if record.status == "dropped" else "failed"
        return [("outcome", f"{why}{': ' + printable(record.error) if record.error else ''}")]
    test, measured_ms = view.test(record.architecture_key), view.measured_ms(record.architecture_key)
    reported = metrics.get("report")
    tested = "" if reported is None else f"{100 * reported:.2f} %, which no search looked at, by the table"
    place = f"{rank[0]:,} of {rank[1]:,} within the limits" if rank is not None else "none: it is beyond a limit"
    images = f" on {metrics['images']:,} images" if "images" in metrics else ""
    return [
        ("test", test_words(test) if test is not None else tested),
        ("validation", value_words(view, metrics) + images),
        ("latency", latency_words(view, metrics) + _target_words(view, metrics)),
        ("measured", "" if measured_ms is None else f"{measured_ms:.3f} ms, in the runtime that will run it"),
        ("rank", place),
    ]


def _target_words(view: RunView, metrics: Any) -> str:
    target_ms, found = view.objective.latency_target_ms, metrics.get("latency_ms")
    if target_ms is None or not found:
        return ""
    return f", {'within' if found <= target_ms else 'BEYOND'} the target of {target_ms:.3f} ms"


def _origin(view: RunView, found: PlacedIndividual, parent: PlacedIndividual | None) -> list[tuple[str, str]]:
    record = found.record
    since_s = found.committed_unix_s - view.summary.record.created_unix_s
    when = f"{moment(found.committed_unix_s)}, {duration(since_s)} into the run"
    rows = [("made by", operator_words(record.operator)), ("committed", when)]
    if record.request_id is not None:
        led = "" if record.operator == "semantic" or record.error else " led to it"  # a spiral in a slot has an error
        rows.append(
            (
                "request",
                f"{record.request_id}{led} (`riwoactl replies {record.request_id}` shows what the model wrote)",
            )
        )
    if record.cache_hit:
        rows.append(("note", "known before: it cost no evaluation"))
    if parent is None:
        return rows
    gain = gain_words(view, record.metrics, parent.record.metrics)
    place = f"{parent.generation}/{parent.record.slot}, {value_words(view, parent.record.metrics)}"
    changed = changes(parent.record.architecture, record.architecture)
    return [
        *rows[:1],
        ("from", f"{place}{': ' + gain if gain else ''}"),
        ("changed", change_words(changed)),
        *rows[1:],
    ]


def _children_words(children: list[Place]) -> str:
    if not children:
        return "none"
    shown = ", ".join(f"{generation}/{slot}" for generation, slot in children[:_MOST_CHILDREN])
    return f"{len(children):,}: {shown}{', ...' if len(children) > _MOST_CHILDREN else ''}"
