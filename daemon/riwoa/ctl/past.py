"""What the verbs over the journal share: its runs, and a candidate by whatever a user calls it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser
from riwoa.errors import InputError, UsageError
from riwoa.paths import StatePaths, client_state
from riwoa.text import printable
from riwoa_storage.events import RunResumed
from riwoa_storage.history import PlacedIndividual, RunSummary
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import RunRecord

if TYPE_CHECKING:
    from riwoa.config.schema import Config

ARCH_HELP = (
    "a candidate: GENERATION/SLOT as status and pareto print it (RUN/GENERATION/SLOT of another run), the beginning of "
    "its name or of its architecture key, or a word: best, last"
)
_BEST = ("best", "winner", "leader")
_WORDS = (*_BEST, "last")
_PLACE = re.compile(r"(?:([0-9]{1,18})/)?([0-9]{1,18})/([0-9]{1,18})")
_MOST_SHOWN = 8


def add_run(parser: Parser, default: str = "the latest") -> None:
    """Add the option that names a run."""
    parser.add_argument("--run", type=int, metavar="ID", help=f"the run (default: {default})")


@contextmanager
def opened(options: Options) -> Iterator[tuple[JournalReader, StatePaths]]:
    """The journal of the state directory, and that.

    Raises:
        StorageError: there is none, or it cannot be read.
    """
    paths = client_state(options.state)
    with JournalReader(paths.journal) as reader:
        yield reader, paths


def chosen(reader: JournalReader, run_id: int | None) -> RunSummary:
    """The named run, or the latest.

    Raises:
        InputError: there is no such run, or none at all.
    """
    found = reader.history.latest_run() if run_id is None else reader.history.run(run_id)
    if found is not None:
        return found
    runs = [str(run.run_id) for run in reader.runs()]
    if not runs:
        raise InputError(f"{reader.name} holds no run yet; start riwoad (or make run) first")
    known = ", ".join(runs[-_MOST_SHOWN:])
    raise InputError(f"{reader.name} has no run {run_id}; it has {known} (`riwoactl runs` lists them)")


def in_force(reader: JournalReader, record: RunRecord) -> Config:
    """The configuration that a run stands on.

    Raises:
        ConfigError: it names an oracle of a package that is no longer installed.
    """
    from riwoa.config.loading import from_journal  # pydantic: only for verbs that need a configuration

    restarted: dict[str, Any] = {}  # keys that changed at a restart are in force without a revision
    for event in reader.events(record.run_id, RunResumed):
        restarted |= event.restarted
    return from_journal(reader.config_revisions(record.run_id)[-1].config, restarted)


def candidate(reader: JournalReader, word: str, run_id: int | None) -> PlacedIndividual:
    """The candidate that a word means, in the named run or the latest.

    Raises:
        InputError: there is none; the message names the nearest.
        UsageError: it may be several, or can be none.
    """
    place = _PLACE.fullmatch(word)
    if place is not None:
        named, generation, slot = place.groups()
        if named is not None and run_id is not None and int(named) != run_id:
            raise UsageError(f"{word} is of run {named}, and --run says {run_id}; leave one of them out")
        return _at(reader, chosen(reader, run_id if named is None else int(named)), int(generation), int(slot))
    run = chosen(reader, run_id)
    if not word.isprintable():  # bytes that are no text among them
        raise InputError(f"run {run.record.run_id} has no candidate {printable(ascii(word), 80)}; name another")
    if word.lower() in _WORDS:
        return _by_word(reader, run, word.lower())
    return _by_name(reader, run, word.lower().removeprefix("0x") if word.isalnum() else word)


def _at(reader: JournalReader, run: RunSummary, generation: int, slot: int) -> PlacedIndividual:
    found = reader.history.individual(run.record.run_id, (generation, slot))
    if found is not None:
        return found
    last = _last(reader, run)
    slots = reader.history.individuals(run.record.run_id, after=(generation, -1), limit=1)
    if generation < run.record.generations and slots:
        nearest = [i for i in _generation(reader, run, generation) if i.record.slot <= slot] or slots
        raise InputError(
            f"run {run.record.run_id} has no candidate {generation}/{slot}: "
            f"the nearest is {generation}/{nearest[-1].record.slot}"
        )
    raise InputError(
        f"run {run.record.run_id} has committed {run.record.generations} generations, the first is 0: there is no "
        f"candidate {generation}/{slot} yet; the last is {last.generation}/{last.record.slot}"
    )


def _generation(reader: JournalReader, run: RunSummary, generation: int) -> list[PlacedIndividual]:
    found = reader.history.individuals(run.record.run_id, after=(generation, -1), limit=10_000)
    return [i for i in found if i.generation == generation]


def _last(reader: JournalReader, run: RunSummary) -> PlacedIndividual:
    """The candidate that was committed last.

    Raises:
        InputError: none was.
    """
    found = _generation(reader, run, run.record.generations - 1) if run.record.generations else []
    if not found:
        raise InputError(
            f"run {run.record.run_id} has committed no candidate yet; `riwoactl status` tells what it does"
        )
    return found[-1]


def _by_word(reader: JournalReader, run: RunSummary, word: str) -> PlacedIndividual:
    last = _last(reader, run)
    if word not in _BEST:
        return last
    if run.leader is None:
        raise InputError(f"run {run.record.run_id} has no leader yet: no candidate could be evaluated")
    place = (int(run.leader["generation"]), int(run.leader["slot"]))
    found = reader.history.individual(run.record.run_id, place)
    if found is None:
        raise InputError(f"the leader of run {run.record.run_id} is not in the journal; `riwoactl verify` checks it")
    return found


def _by_name(reader: JournalReader, run: RunSummary, word: str) -> PlacedIndividual:
    run_id, names = run.record.run_id, reader.by_name
    is_hex = re.fullmatch("[0-9a-f]{1,16}", word) is not None
    found = names.named(run_id, word, _MOST_SHOWN + 1) if is_hex else []
    found = found or (names.keyed(run_id, word, _MOST_SHOWN + 1) if word else [])
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(_called(one) for one in found[:_MOST_SHOWN])
        more = "" if len(found) <= _MOST_SHOWN else ", ..."
        raise UsageError(f"{printable(word, 80)!r} may be {shown}{more}; write more of the one that is meant")
    _last(reader, run)  # in an empty run nothing is near
    nearest = names.nearest_named(run_id, word) if is_hex else None
    if nearest is None:
        raise InputError(
            f"run {run_id} has no candidate {printable(word, 80)!r}; {_near_word(word)}name one as GENERATION/SLOT, by "
            "the beginning of its name, or as best or last"
        )
    raise InputError(f"run {run_id} has no candidate named {word}; the nearest is {_called(nearest)}")


def _near_word(word: str) -> str:
    import difflib

    found = difflib.get_close_matches(word.lower(), _WORDS, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}? Otherwise " if found else ""


def _called(found: PlacedIndividual) -> str:
    return f"{found.name[:8]} ({found.generation}/{found.record.slot})"
