"""``riwoactl pause | resume | stop | reload``: verbs that the running daemon carries out."""

from __future__ import annotations

from riwoa.ctl import VERBS, Options
from riwoa.ctl.ask import ask
from riwoa.ctl.command import Parser, emit
from riwoa.errors import DaemonUnavailableError
from riwoa.files.lock import holder
from riwoa.paths import client_state

_TIMEOUT_S = {"pause": 10.0, "resume": 10.0, "reload": 10.0, "stop": 15.0}  # stopping may take the daemon 10 s
_MORE = {
    "reload": "All of it applies at the next generation, or none; says what applies and what was refused, and exits 78 "
    "where the file was refused. "
}
_DONE = {
    "pause": "paused; evaluations under way still finish. `riwoactl resume` goes on",
    "resume": "resumed",
    "reload": "the configuration is read",
    "stop": "stopping; start again to continue where it was",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Send the verb and print what came of it."""
    parser = Parser(
        verb, description=f"{VERBS[verb][1].capitalize()}. {_MORE.get(verb, '')}Exits 69 where no daemon runs."
    )
    if verb == "reload":
        parser.add_argument("--partial", action="store_true", help="apply the keys that may change in a run, though "
                            "the file changes others, too")  # fmt: skip
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    request = f"{verb} --partial" if getattr(given, "partial", False) else verb
    try:
        answer = ask(paths, request, _TIMEOUT_S[verb])
    except DaemonUnavailableError:
        if (process := holder(paths)) is None:
            raise
        signals = f"; `kill -TERM {process}` stops it, `kill -HUP {process}` has it reload" if process else ""
        raise DaemonUnavailableError(f"the daemon of {paths.directory} has no control socket yet{signals}") from None
    emit(options, answer, str(answer.get("message") or _DONE[verb]))
    return 0
