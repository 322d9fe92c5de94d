"""``riwoactl backup`` and ``riwoactl compact``: a copy of the journal, or one more in a folder; a smaller journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import VERBS, Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.screen import counted
from riwoa.files.lock import locked
from riwoa.paths import StatePaths, client_state
from riwoa.service.leftovers import KEPT_BACKUPS, backups_beyond
from riwoa_storage.backup import backup, compact

_MORE = {
    "backup": "To restore: stop the daemon, put the copy in the journal's place, owned by the daemon's "
    "user, remove journal.db-wal, start it.",
    "compact": "Drops the bytes of adapters that no run would use again (their hashes stay) and free pages. Stop the "
    "daemon first: exits 75 while one runs.",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Copy the journal, or make it smaller."""
    parser = Parser(verb, description=f"{VERBS[verb][1].capitalize()}. {_MORE[verb]}")
    if verb == "backup":
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("file", type=Path, metavar="FILE", nargs="?", help="the copy; must not exist yet")
        where.add_argument("--into", type=Path, metavar="DIR", help="a copy named by the time, and the oldest removed")
        parser.add_argument(
            "--keep",
            type=counted,
            default=KEPT_BACKUPS,
            metavar="N",
            help=f"copies that stay in DIR (default: {KEPT_BACKUPS})",
        )
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    if verb == "backup":
        removed: list[str] = []
        with bar("copying"):
            if given.into is None:
                data = _copied(paths, given.file)
            else:
                given.into.mkdir(parents=True, exist_ok=True)
                data = _copied(paths, given.into / time.strftime("riwoa-%Y%m%d-%H%M%S.db"))
                removed = _rotated(given.into, given.keep)  # only once there is a verified one more
        text = f"{data['file']}: {data['bytes']:,} bytes, verified; final digest {data['final_digest']}"
        emit(options, {**data, "removed": removed}, "\n".join([text, *(f"removed {file}" for file in removed)]))
        return 0
    with locked(paths), bar("compacting"):
        before, after = compact(paths.journal)
    emit(options, {"bytes_before": before, "bytes_after": after}, f"{before:,} -> {after:,} bytes")
    return 0


def _copied(paths: StatePaths, file: Path) -> dict[str, Any]:
    """Make a verified copy, and say what it is."""
    verified = backup(paths.journal, file.resolve())  # behind a symbolic link
    return {"file": str(file), "bytes": file.stat().st_size, "final_digest": verified.final_digest}


def _rotated(folder: Path, keep: int) -> list[str]:
    """Remove all but the newest copies."""
    old = backups_beyond(folder, keep)
    for file in old:
        file.unlink()
    return [str(file) for file in old]
