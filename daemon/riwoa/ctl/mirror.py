"""``riwoactl mirror``: copy the journal into PostgreSQL as it grows."""

from __future__ import annotations

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.follow import follow
from riwoa.paths import client_state
from riwoa.service.mirror import opener

_DESCRIPTION = """Copies every run, generation, candidate, reply and event into the schema `riwoa` of a database, which
it makes, and goes on with what comes until it is ended. It reads the journal, and the search does not wait for it; what
fails is said in a line and tried again, ever less often. Ended, killed and begun again it goes on. Several devices may
share a database. A password is best left to $PGPASSWORD or ~/.pgpass."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Copy the journal.

    Raises:
        SinkError: the database could not be told, and was to be told once.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("url", metavar="URL", help="postgresql://USER@HOST/DATABASE")
    parser.add_argument("--once", action="store_true", help="copy what is committed by now, and end")
    given = parser.parse_args(arguments)
    told, _ = follow(opener(client_state(options.state).journal, given.url), once=given.once)
    emit(options, {"generations": told}, f"copied {told:,} generations")
    return 0
