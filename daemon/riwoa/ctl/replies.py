"""``riwoactl replies``: what the language model was asked and wrote, and what the search made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from riwoa.cognition.parse import PatchError
from riwoa.cognition.samples import samples_wanted, unpacked
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import add_run, chosen, opened
from riwoa.ctl.screen import counted, facts, moment, paragraph, quoted
from riwoa.errors import InputError
from riwoa.service.candidate_text import change_words, changes, model_words, reasoning_of
from riwoa.text import duration, printable
from riwoa_storage.history import JudgedReply, Place, PlacedIndividual, RunSummary
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """What the language model wrote, oldest first: what it changed, what it thought, whether the search took
it, and what it gained over its parent. One request, by its id as `riwoactl show` prints it, is shown whole."""
_VERDICTS = ("won", "rejected", "waiting", "late")
_LAST = 10
_LINES = 4  # of what was written


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the replies, or one request whole."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("request", nargs="?", metavar="ID", help="RUN/GENERATION/SLOT, or GENERATION/SLOT of the run")
    parser.add_argument("--last", type=counted, default=_LAST, metavar="N", help=f"how many (default: {_LAST})")
    parser.add_argument("--verdict", choices=_VERDICTS, help="only those")
    add_run(parser)
    given = parser.parse_args(arguments)
    with opened(options) as (reader, _):
        run_found = chosen(reader, given.run)
        if given.request is not None:
            found = [_one(reader, run_found, given.request)]
        else:
            newest = None if given.verdict else given.last
            replies = reader.history.replies(run_found.record.run_id, newest=newest)
            found = [r for r in replies if given.verdict in (None, r.verdict)][-given.last :]
        children = _children(reader, found)
    if given.request is not None:
        emit(options, reply_view(found[0], children), _whole(found[0], children))
        return 0
    counters = run_found.last.counters if run_found.last is not None else {}
    data = {
        "run_id": run_found.record.run_id,
        "joined": counters.get("replies", 0),
        "successes": counters.get("successes", 0),
        "replies": [reply_view(reply, children) for reply in found],
    }
    emit(options, data, "\n\n".join([_head(run_found, found, counters), *(_short(r, children) for r in found)]))
    return 0


def _one(reader: JournalReader, summary: RunSummary, word: str) -> JudgedReply:
    """The request of an id.

    Raises:
        InputError: there is none; the message names the last.
    """
    request_id = word if word.count("/") == 2 else f"{summary.record.run_id}/{word}"
    found = reader.history.reply(request_id)
    if found is not None:
        return found
    last = reader.history.replies(summary.record.run_id, newest=1)
    known = f"the last is {last[0].request.request_id}" if last else "it has sent none"
    raise InputError(
        f"run {summary.record.run_id} has no request {printable(word, 80)!r}: {known} (`riwoactl replies` lists them)"
    )


def _children(reader: JournalReader, replies: Sequence[JudgedReply]) -> dict[Place, PlacedIndividual]:
    """What came of replies."""
    if not replies:
        return {}
    places = [reply.child for reply in replies if reply.child is not None]
    return {one.place: one for one in reader.history.individuals_at(replies[0].request.run_id, places)}


def _head(summary: RunSummary, found: Sequence[JudgedReply], counters: Mapping[str, Any]) -> str:
    number = summary.record.run_id
    if not found:
        model = summary.record.provenance.get("model")
        why = "its model has answered nothing like that" if model else "it runs without a language model"
        return f"run {number} has no such replies: {why}"
    joined, won = counters.get("replies", 0), counters.get("successes", 0)
    words = (
        f"run {number}: {joined:,} replies joined the search; fitter than their parents: {won:,}; shown: {len(found)}"
    )
    return paragraph(words, "  ", "")


def _short(reply: JudgedReply, children: Mapping[Place, PlacedIndividual]) -> str:
    rows = [("changed", _changed(reply, children)), ("model", model_words(reply)), ("asked", _asked_words(reply))]
    wrote = reasoning_of(reply) or _wrote(reply)
    lines = [_line(reply), facts(rows)]
    return "\n".join([*lines, *([quoted(wrote, "  ", _LINES)] if wrote.strip() else [])])


def _whole(reply: JudgedReply, children: Mapping[Place, PlacedIndividual]) -> str:
    rows = [("changed", _changed(reply, children)), ("model", model_words(reply)), ("asked", _asked_words(reply))]
    wrote = _wrote(reply)
    parts = [_line(reply), facts(rows)]
    parts += ["  system", quoted(str(reply.request.parameters.get("system", "")), "  ")]
    parts += ["  prompt", quoted(reply.request.prompt, "  "), "  reply", quoted(wrote or "(nothing)", "  ")]
    return "\n".join(parts)


def _wrote(reply: JudgedReply) -> str:
    """What was written; of many texts one a line, with the logarithm of its probability where that is known."""
    wrote = "" if reply.reply is None else reply.reply.text
    if samples_wanted(reply.request) is None:
        return wrote
    try:
        found = unpacked(wrote)
    except PatchError:
        return wrote
    return "\n".join(
        s.text.strip() + ("" if s.log_probability is None else f"  ({s.log_probability:.1f})") for s in found
    )


def _line(reply: JudgedReply) -> str:
    return paragraph(f"{reply.request.request_id}  {_verdict_words(reply)}", "  ", "")


def _verdict_words(reply: JudgedReply) -> str:
    gain = "" if reply.gain is None else f", fitness {reply.gain:+.4f} against its parent"
    child = "" if reply.child is None else "; candidate {}/{}".format(*reply.child)
    made = [f"picked {reply.picked}"] if reply.picked else []
    made += [f"led to {reply.led_to}"] if reply.led_to else []
    of_pool = f"; {', '.join(made)}" if made else ""
    words = {
        "won": "won",
        "rejected": f"rejected: {printable(reply.reason or '', 200)}",
        "waiting": f"waiting for generation {reply.request.join_generation}",
        "late": "came to nothing",
    }[reply.verdict]
    return f"{words}{gain}{child}{of_pool}"


def _changed(reply: JudgedReply, children: Mapping[Place, PlacedIndividual]) -> str:
    child, parent = children.get(reply.child or (-1, -1)), reply.request.parameters.get("parent")
    return "" if child is None or parent is None else change_words(changes(parent, child.record.architecture))


def _asked_words(reply: JudgedReply) -> str:
    when = f"{moment(reply.request.created_unix_s)}, for generation {reply.request.join_generation}"
    if reply.reply is None:
        return f"{when}; no answer yet"
    said = {"ok": f"{reply.reply.tokens:,} tokens", "timeout": "no answer in time", "failed": "failed"}
    return f"{when}; {said[reply.reply.status]} in {duration(reply.reply.duration_s)}"


def reply_view(reply: JudgedReply, children: Mapping[Place, PlacedIndividual]) -> dict[str, Any]:
    """A request and what came of it, as a JSON object."""
    request, answer = reply.request, reply.reply
    child, parent = children.get(reply.child or (-1, -1)), request.parameters.get("parent")
    return {
        "request_id": request.request_id,
        "generation": request.generation,
        "slot": request.slot,
        "join_generation": request.join_generation,
        "verdict": reply.verdict,
        "reason": reply.reason,
        "gain": reply.gain,
        "child": None if reply.child is None else list(reply.child),
        "picked": reply.picked,
        "led_to": reply.led_to,
        "changed": [] if child is None or parent is None else changes(parent, child.record.architecture),
        "model": request.model,
        "adapter_sha256": request.adapter_sha256,
        "prompt": request.prompt,
        "created_unix_s": request.created_unix_s,
        "status": None if answer is None else answer.status,
        "text": None if answer is None else answer.text,
        "reasoning": reasoning_of(reply) or None,
        "tokens": None if answer is None else answer.tokens,
        "duration_s": None if answer is None else answer.duration_s,
    }
