"""``riwoactl backup FILE`` and ``riwoactl compact``: a copy of the journal, and a smaller journal."""

from __future__ import annotations

from pathlib import Path

from riwoa.console.bar import bar
from riwoa.ctl import VERBS, Options
from riwoa.ctl.command import Parser, emit
from riwoa.files.lock import locked
from riwoa.paths import client_state
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
        parser.add_argument("file", type=Path, metavar="FILE", help="the copy; must not exist yet")
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    if verb == "backup":
        with bar("copying"):
            verified = backup(paths.journal, given.file.resolve())  # behind a symbolic link
        size_bytes = given.file.stat().st_size
        data = {"file": str(given.file), "bytes": size_bytes, "final_digest": verified.final_digest}
        emit(options, data, f"{given.file}: {size_bytes:,} bytes, verified; final digest {verified.final_digest}")
        return 0
    with locked(paths), bar("compacting"):
        before, after = compact(paths.journal)
    emit(options, {"bytes_before": before, "bytes_after": after}, f"{before:,} -> {after:,} bytes")
    return 0
