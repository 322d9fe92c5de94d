"""``riwoactl events``: what the journal says happened to its runs; with --follow also what happens next."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import add_run, chosen, opened
from riwoa.ctl.screen import counted, moment, paragraph, since
from riwoa.errors import UsageError
from riwoa.text import number, printable
from riwoa_storage.events import KINDS, ConfigApplied, ConfigRefused, FinalistsTimed, NetworkJudged
from riwoa_storage.history import JournaledEvent, architecture_name
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """What happened to the runs of the journal, oldest first: resumed, configured, judged, timed, trained,
ended. --follow goes on with what is journaled next, until interrupted; with --json it prints an object a line."""
_LOOK_EVERY_S = 1.0
_NUMEROUS = ("tokens_spent", "choice_timed")  # one for some requests, or generations: shown where they are asked for
_MOST_TEXT = 80
_MOST_SENTENCE = 2000  # characters of what was told in words


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the events."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--follow", action="store_true", help="wait for more")
    parser.add_argument(
        "--since",
        type=since,
        default=0.0,
        metavar="WHEN",
        help="a time ago (30min, 2h, 1d) or a date, 2026-01-31T22:00",
    )
    parser.add_argument(
        "--kind", type=_kind, action="append", default=[], metavar="KIND", help="only these; repeatable"
    )
    parser.add_argument("--last", type=counted, metavar="N", help="the newest so many")
    add_run(parser, "all of them")
    given = parser.parse_args(arguments)
    with opened(options) as (reader, paths):
        if given.run is not None:
            chosen(reader, given.run)
        found = _read(reader, given)
    if given.follow:
        _follow(paths.journal, given, found, options)
        return 0
    nothing = f"{paths.journal}: no such event was journaled"
    emit(options, {"events": [event_view(e) for e in found]}, "\n".join(map(_line, found)) or nothing)
    return 0


def _read(reader: JournalReader, given: argparse.Namespace, after: int = 0) -> list[JournaledEvent]:
    return reader.history.events(
        run_id=given.run,
        kinds=given.kind,
        without=() if given.kind else _NUMEROUS,
        since_unix_s=given.since,
        after=after,
        newest=None if after else given.last,
    )


def _follow(journal: Path, given: argparse.Namespace, found: Sequence[JournaledEvent], options: Options) -> None:
    """Print events as they come. The journal is opened for each look: it may be compacted, or restored, in between."""
    after = 0
    with JournalReader(journal) as reader:
        if not found and (latest := reader.history.events(newest=1)):
            after = latest[0].event_id
    while True:
        for event in found:
            print(json.dumps(event_view(event)) if options.json else _line(event))
            after = event.event_id
        sys.stdout.flush()
        time.sleep(_LOOK_EVERY_S)
        with JournalReader(journal) as reader:
            found = _read(reader, given, after)


def _kind(text: str) -> str:
    """A kind of event: an argument's type.

    Raises:
        UsageError: there is none of this name.
    """
    if text in KINDS:
        return text
    found = difflib.get_close_matches(text, KINDS, n=1, cutoff=0.4)
    hint = f"did you mean {found[0]!r}?" if found else f"kinds are {', '.join(KINDS)}"
    raise UsageError(f"riwoactl events: no kind {printable(text, 40)!r}; {hint}")


def event_view(event: JournaledEvent) -> dict[str, Any]:
    """An event as a JSON object."""
    return {
        "event_id": event.event_id,
        "run_id": event.event.run_id,
        "generation": event.event.generation,
        "kind": event.kind,
        "created_unix_s": event.event.created_unix_s,
        "payload": dict(event.payload),
    }


def _line(event: JournaledEvent) -> str:
    of_run = "" if event.event.run_id is None else f"  run {event.event.run_id}"
    at = "" if event.event.generation is None else f", generation {event.event.generation}"
    head = f"{moment(event.event.created_unix_s)}{of_run}{at}  {printable(event.kind, 40)}"
    return paragraph(f"{head}  {event_words(event)}", "  ", "")


def event_words(event: JournaledEvent) -> str:
    """What an event says, in a line."""
    found = event.event
    if isinstance(found, ConfigApplied):
        changed = (f"{printable(key)} {_shown(old)} → {_shown(new)}" for key, (old, new) in found.changed.items())
        return f"applied: {', '.join(changed)}"
    if isinstance(found, ConfigRefused):
        return printable(found.reason, _MOST_SENTENCE)
    if isinstance(found, NetworkJudged):
        name = architecture_name(found.architecture_key)[:8]
        if found.accuracy is None:
            return f"{name}: {printable(found.error or 'not judged')}"
        error = "" if found.accuracy_error is None else f" ± {100 * found.accuracy_error:.2f}"
        return f"{name}: {100 * found.accuracy:.2f}{error} % on {found.pictures:,} {found.split} pictures"
    if isinstance(found, FinalistsTimed) and found.error is None:
        note = f": {printable(found.note)}" if found.note else ""
        return f"{len(found.networks)} networks in {printable(found.runtime)}{note}"
    return "; ".join(f"{printable(name, 40)} {_shown(value)}" for name, value in event.payload.items() if _says(value))


def _says(value: object) -> bool:
    return value not in (None, "", [], {}, ())


def _shown(value: object) -> str:
    """A value of a payload; what is long is only counted."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)
        return printable(text) if len(text) <= _MOST_TEXT else f"({len(text):,} characters)"
    return number(value)
