"""``riwoactl verify``: is the journal intact, and are two histories the same?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.files.ownership import regular_file
from riwoa.paths import client_state
from riwoa_storage.replay import Verification, compare
from riwoa_storage.replay import verify as verify_journal

DIFFERENT = 3
_DESCRIPTION = """Check SQLite's integrity and recompute the digest chain of every run; print the final digest.
With --against, check the other journal too and say whether the latest runs of both are the same history, and if not,
where they part. Exits 0 intact (and the same), 3 different, 65 damaged. Safe beside a running daemon."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Verify one journal, or two and compare them."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--db", type=Path, metavar="FILE", help="the journal (default: the state directory's)")
    parser.add_argument("--against", type=Path, metavar="OTHER.db", help="another journal to compare with")
    given = parser.parse_args(arguments)
    for named in filter(None, (given.db, given.against)):
        regular_file(named)
    path = given.db or client_state(options.state).journal
    with bar("verifying"):
        verified = verify_journal(path)
    data = {"db": str(path), **asdict(verified)}
    if given.against is None:
        emit(options, data, render(path, verified))
        return 0
    with bar("comparing"):
        verify_journal(given.against)
        found = compare(path, given.against)
    comparison = {"against": str(given.against), **asdict(found), "message": found.message}
    emit(options, {**data, "comparison": comparison}, f"{path}\n{given.against}\n{found.message}")
    return 0 if found.same else DIFFERENT


def render(path: Path, verified: Verification) -> str:
    """The runs as a table, and the final digest."""
    if not verified.runs:
        return f"{path}: intact; no run was begun yet"
    head = ["run", "status", "generations", "digest"]
    rows = [[str(r.run_id), str(r.status), str(r.generations), r.digest] for r in verified.runs]
    return f"{path}: intact\n{columns([head, *rows])}\nfinal digest {verified.final_digest}"
