"""``riwoactl gc``: what may go of a state directory, with sizes; deleted where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.screen import counted, facts, paragraph
from riwoa.errors import StateLockedError
from riwoa.files.lock import Lock, holder, locked
from riwoa.paths import StatePaths, client_state
from riwoa.service.leftovers import KEPT_BACKUPS, Leftover, find_leftovers
from riwoa_storage.backup import reclaimable_bytes

_DESCRIPTION = """Lists what may go of the state directory, with sizes: what killed processes left, copies of adapters
that no run under way uses, backups older than the newest. With --yes it is deleted; the daemon must be stopped for that
(exits 75 while one runs). What a run, verify, why or dump needs always stays: the journal, table, supernet, exports."""
_WORTH_BYTES = 1_000_000  # from which on compacting is worth a line


def run(verb: str, arguments: list[str], options: Options) -> int:
    """List what may go, or delete it."""
    parser = Parser(verb, description=_DESCRIPTION)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="delete it")
    how.add_argument("--dry-run", action="store_true", help="list it and delete nothing: the default")
    parser.add_argument("--caches", action="store_true", help="also what is made again when it is needed, which takes "
                        "time: other copies of adapters, and decoded pictures (all of this user)")  # fmt: skip
    parser.add_argument("--keep", type=counted, default=KEPT_BACKUPS, metavar="N",
                        help=f"backups that stay in backups/ (default: {KEPT_BACKUPS})")  # fmt: skip
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    compact_bytes = reclaimable_bytes(paths.journal)
    if given.yes:
        with _alone(paths):
            found = find_leftovers(paths, kept_backups=given.keep, caches=given.caches)
            for leftover in found:
                leftover.remove()
    else:
        found = find_leftovers(paths, kept_backups=given.keep, caches=given.caches)
    data = {
        "state_directory": paths.directory,
        "deleted": given.yes,
        "bytes": sum(leftover.size_bytes for leftover in found),
        "leftovers": [{"path": str(one.path), "bytes": one.size_bytes, "why": one.why} for one in found],
        "compact_bytes": compact_bytes,
    }
    again = " ".join(["riwoactl gc --yes", *(["--caches"] if given.caches else []), *_kept(given.keep)])
    emit(options, data, _text(paths, found, data, again))
    return 0


def _alone(paths: StatePaths) -> Lock:
    """The state directory's lock.

    Raises:
        StateLockedError: a daemon has it.
    """
    try:
        return locked(paths)
    except StateLockedError:
        process = holder(paths)
        who = f"process {process}" if process else "a daemon"
        raise StateLockedError(
            f"{who} works in {paths.directory}: `riwoactl stop` ends it; without --yes it is listed meanwhile"
        ) from None


def _kept(keep: int) -> list[str]:
    return [] if keep == KEPT_BACKUPS else [f"--keep {keep}"]


def _text(paths: StatePaths, found: Sequence[Leftover], data: dict[str, Any], again: str) -> str:
    if found:
        rows = [(size_words(one.size_bytes), f"{_place(paths, one.path)}: {one.why}") for one in found]
        places = f"{size_words(data['bytes'])} in {len(found)} place{'s' if len(found) > 1 else ''}"
        end = f"deleted: {places}" if data["deleted"] else f"{places}; nothing is deleted yet: `{again}` deletes it"
        lines = [facts(rows), paragraph(end)]
    else:
        lines = [paragraph(f"nothing may go of {paths.directory}")]
    if data["compact_bytes"] >= _WORTH_BYTES:
        words = f"`riwoactl compact` makes the journal about {size_words(data['compact_bytes'])} smaller"
        lines.append(paragraph(words))
    return "\n".join(lines)


def _place(paths: StatePaths, path: Path) -> str:
    return str(path.relative_to(paths.directory)) if path.is_relative_to(paths.directory) else str(path)


def size_words(size_bytes: int) -> str:
    """Bytes as people tell them: ``1.8 MB``."""
    for unit, of_it in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= of_it:
            return f"{size_bytes / of_it:.1f} {unit}"
    return f"{size_bytes} B"
