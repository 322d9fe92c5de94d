"""``riwoactl why``: how a candidate came to be, from itself back to its first ancestor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import ARCH_HELP, add_run, candidate, chosen, opened
from riwoa.ctl.screen import facts, moment, paragraph, quoted
from riwoa.operators import operator_words
from riwoa.service.candidate_text import change_words, changes, model_words, reasoning_of
from riwoa.service.candidate_view import RunView, gain_words, individual_view, latency_words, read_run_view, value_words
from riwoa.text import number, printable
from riwoa_storage.history import JudgedReply, PlacedIndividual
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord

_DESCRIPTION = """How a candidate came to be, from itself back to its first ancestor: who made each, what changed in
words, what was gained, what the language model thought where it made it and by which adapter, and which configuration
was in force."""
_MOST_STEPS = 20
_REASONING_LINES = 6


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the lineage."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("arch", nargs="?", default="best", metavar="ARCH", help=f"{ARCH_HELP} (default: best)")
    parser.add_argument("--all", action="store_true", help=f"every ancestor, however many (default: {_MOST_STEPS})")
    add_run(parser)
    given = parser.parse_args(arguments)
    with opened(options) as (reader, paths):
        found = candidate(reader, given.arch, given.run)
        view = read_run_view(reader, chosen(reader, found.run_id), paths.latency_table)
        line = reader.history.lineage(found.run_id, found.place)
        replies = _replies(reader, line)
        revisions = {r.revision: r for r in reader.config_revisions(found.run_id)}
    steps = [_step_view(view, line, at, replies) for at in range(len(line))]
    data = {"run_id": found.run_id, "steps": steps, "config_revisions": _revision_views(revisions, line)}
    shown = len(line) if given.all else min(len(line), _MOST_STEPS)
    emit(options, data, _text(view, line, replies, revisions, shown))
    return 0


def _replies(reader: JournalReader, line: Sequence[PlacedIndividual]) -> dict[str, JudgedReply]:
    """What the model wrote for those of a lineage that it made, by request id."""
    asked = [i.record.request_id for i in line if i.record.request_id is not None]
    found = [reader.history.reply(request_id) for request_id in asked]
    return {reply.request.request_id: reply for reply in found if reply is not None}


def _text(
    view: RunView,
    line: Sequence[PlacedIndividual],
    replies: dict[str, JudgedReply],
    revisions: dict[int, ConfigRevisionRecord],
    shown: int,
) -> str:
    last, first = line[0], line[-1]
    head = f"candidate {last.generation}/{last.record.slot} of run {view.run_id}, {last.name}: "
    head += _worth(view, last)
    if len(line) > 1:
        total = gain_words(view, last.record.metrics, first.record.metrics)
        steps = f"{len(line) - 1:,} step{'s' if len(line) > 2 else ''}"
        head += f"; {steps} from its first ancestor{': ' + total if total else ''}"
    blocks = [paragraph(head, "  ", "")]
    for at in range(shown):
        before = line[at - 1].config_revision if at else None
        blocks.append(_step_text(view, line, at, replies))
        if at and line[at].config_revision != before:
            blocks[-1] = f"{_revision_text(revisions.get(before or 0))}\n\n{blocks[-1]}"
    if shown < len(line):
        blocks.append(f"... and {len(line) - shown:,} earlier ones: --all shows them")
    return "\n\n".join(blocks)


def _worth(view: RunView, individual: PlacedIndividual) -> str:
    record = individual.record
    if record.status != "ok":
        return {"failed": "failed", "dropped": "given up early"}[record.status]
    return " at ".join(filter(None, (value_words(view, record.metrics), latency_words(view, record.metrics))))


def _step_text(view: RunView, line: Sequence[PlacedIndividual], at: int, replies: dict[str, JudgedReply]) -> str:
    one, record = line[at], line[at].record
    parent = line[at + 1].record if at + 1 < len(line) else None
    head = f"{one.generation}/{record.slot}  {one.name[:8]}  {_worth(view, one)}"
    rows = [("made by", operator_words(record.operator))]
    if parent is not None:
        rows.append(("changed", change_words(changes(parent.architecture, record.architecture))))
        rows.append(("gain", gain_words(view, record.metrics, parent.metrics)))
    rows.append(("committed", f"{moment(one.committed_unix_s)}, configuration {one.config_revision}"))
    rows.append(("note", printable(record.error) if record.error else ""))
    lines = [paragraph(head, "  ", "")]
    reply = replies.get(record.request_id or "")
    if reply is not None:
        led = "" if record.operator == "semantic" or record.error else "; its patch led to this"
        rows.append(("model", f"{model_words(reply)}{led}"))
    lines.append(facts(rows))
    reasoning = reasoning_of(reply)
    if reasoning:
        lines.append(quoted(reasoning, "  ", _REASONING_LINES))
    return "\n".join(lines)


def _revision_text(revision: ConfigRevisionRecord | None) -> str:
    """What changed in the configuration between two steps of a lineage."""
    if revision is None:
        return "-- another configuration"
    changed = [f"{printable(key, 80)} {_shown(old)} → {_shown(new)}" for key, (old, new) in revision.changed.items()]
    begun = f"configuration {revision.revision}, from generation {revision.generation} on"
    return paragraph(f"{begun}: {'; '.join(changed)}", "   ", "-- ")


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else printable(value, 60)


def _step_view(
    view: RunView, line: Sequence[PlacedIndividual], at: int, replies: dict[str, JudgedReply]
) -> dict[str, Any]:
    record = line[at].record
    parent = line[at + 1].record if at + 1 < len(line) else None
    reply = replies.get(record.request_id or "")
    metric = view.objective.raised
    known = parent is not None and metric in record.metrics and metric in parent.metrics
    return {
        **individual_view(view, line[at]),
        "changed": [] if parent is None else changes(parent.architecture, record.architecture),
        "gain": record.metrics[metric] - parent.metrics[metric] if known and parent is not None else None,
        "model": None if reply is None else reply.request.model,
        "adapter_sha256": None if reply is None else reply.request.adapter_sha256,
        "reasoning": reasoning_of(reply) or None,
    }


def _revision_views(
    revisions: dict[int, ConfigRevisionRecord], line: Sequence[PlacedIndividual]
) -> list[dict[str, Any]]:
    """The configurations that were in force along a lineage."""
    used = {i.config_revision for i in line}
    return [
        {"revision": r.revision, "generation": r.generation, "changed": dict(r.changed)}
        for r in revisions.values()
        if r.revision in used
    ]
