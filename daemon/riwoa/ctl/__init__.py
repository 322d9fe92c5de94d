"""riwoactl: one module a verb.

The verb's name is looked up first and its module alone imported: ``riwoactl status`` must start in milliseconds, so
nothing here may cost more than the standard library's lightest modules (a test holds the list).
"""

from __future__ import annotations

import sys

from riwoa.console.streams import GuardedStreams, OutputError
from riwoa.errors import UsageError
from riwoa.files.ownership import deny_writing_to_others
from riwoa.paths import ORDER
from riwoa.text import printable

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    from collections.abc import Sequence

# verb -> (module below riwoa.ctl, what it does)
VERBS = {
    "init": ("init", "look at a folder of pictures, and write a configuration for a search on them"),
    "run": ("run", "search as riwoa.toml says, with progress; killed and run again, it continues"),
    "status": ("status", "what the daemon does, or how its last run stands"),
    "watch": ("watch", "the search on one screen, live: status, best so far, front, workers"),
    "pause": ("control", "start no new evaluations until resumed"),
    "resume": ("control", "go on after a pause"),
    "stop": ("control", "finish the transaction and end the daemon"),
    "reload": ("control", "read the configuration file again"),
    "verify": ("verify", "check the journal and its digest chain; compare two histories"),
    "backup": ("backup", "copy the journal, consistent and verified, while the daemon goes on"),
    "compact": ("backup", "make the journal of a stopped daemon smaller"),
    "gc": ("gc", "what may go of the state directory, with sizes; --yes deletes it"),
    "runs": ("runs", "every search in the journal: what for, how it ended, its best"),
    "show": ("show", "one candidate: its genes, accuracy, latency, rank, parent, children"),
    "why": ("why", "where a candidate came from, step by step to its first ancestor"),
    "compare": ("compare", "two candidates side by side, or two runs"),
    "replies": ("replies", "what the language model wrote, and what came of it"),
    "events": ("events", "what happened to the runs; --follow waits for more"),
    "alerts": ("alerts", "try how you are told of what happens, and what was told"),
    "follow": ("follow", "tell MLflow or Weights & Biases of a run as it goes on"),
    "mirror": ("mirror", "copy the journal into PostgreSQL as it grows, for dashboards"),
    "doctor": ("doctor", "whether machine, configuration and state are fit for a search; what mends them"),
    "logs": ("logs", "what the daemon logged, or where that is"),
    "dump": ("dump", "every candidate as CSV or Parquet"),
    "pareto": ("pareto", "the networks that no other beats in accuracy and latency"),
    "answer": ("answer", "the best network for any device, by its latency table and from any journal"),
    "report": ("report", "the morning report: what a run found, on one page"),
    "check": ("check", "which limits of the objective an architecture keeps"),
    "time": ("time", "networks of a run by the clock, as they would be exported"),
    "export": ("export", "write the winner's files, or another network's"),
    "finetune": ("finetune", "train the winner on, and export it with the weights it then has"),
    "promote": ("champion", "have an export be the deployed one, if it is clearly better on fresh pictures"),
    "rollback": ("champion", "deploy the champion before again"),
    "champion": ("champion", "which export is deployed, and whether it still does what it did"),
    "classify": ("classify", "say what an exported model sees in pictures"),
    "pictures": ("pictures", "which pictures judge, one a line, for programs of one's own"),
    "lut": ("lut", "build, check, watch or show this device's latency table"),
    "train": ("train", "train the supernet for one's own pictures"),
    "supernet": ("supernet", "pull a published supernet, train one, or check one"),
    "predictor": ("predictor", "learn an accuracy predictor from a journal, or check one"),
    "table": ("table", "make a table of a benchmark's official file"),
    "model": ("model", "pull, check or list language models"),
    "service": ("service", "install riwoa as a systemd service, remove it, or show it"),
    "config": ("config", "show the configuration, or check a file"),
    "web": ("web", "a page that shows and controls the search, for a browser"),
    "token": ("token", "who may use the page: create, list, revoke"),
    "validate": ("validate", "search, retrain the winner from scratch, test it, also under corruptions"),
    "bench": ("bench", "benchmarks, by name; `riwoactl help benches` tells of each"),
    "completion": ("completion", "a script that has bash, zsh or fish complete these command lines"),
    "help": ("help", "the handbook: a list of its topics, or one page"),
}

# What people try first -> the verb that does it, where spelling would suggest another.
_MEANT = {
    **dict.fromkeys(("list", "ls", "history"), "runs"),
    **dict.fromkeys(("best", "candidate", "info"), "show"),
    **dict.fromkeys(("explain", "lineage", "blame"), "why"),
    **dict.fromkeys(("top", "live"), "watch"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("clean", "cleanup", "prune"), "gc"),
    **{"diff": "compare", "front": "pareto", "journal": "events", "csv": "dump", "start": "run"},
}

INTERRUPTED, BROKEN_PIPE = 130, 141
_IO_ERROR, _BUG = 74, 70
_MOST_CHARACTERS = 4000


class Options:
    """What every verb takes: the state directory, if one was named, and whether to print JSON."""

    __slots__ = ("json", "state")

    def __init__(self, state: str | None = None, json: bool = False) -> None:
        self.state = state
        self.json = json


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code. Errors become one line, and with --json an object on standard output too."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = Options(json="--json" in arguments)
    with GuardedStreams(strict=True):
        deny_writing_to_others()
        try:
            try:
                return _run(arguments, options)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except OutputError as error:
            if error.reader_gone:  # as `riwoactl pareto | head` means it
                return BROKEN_PIPE
            print(f"riwoactl: {error}", file=sys.stderr)
            return _IO_ERROR


def _run(arguments: list[str], options: Options) -> int:
    try:
        return _dispatch(_take_common(arguments, options), options)
    except OutputError:
        raise
    except Exception as error:
        own_code: int | None = getattr(error, "exit_code", _IO_ERROR if isinstance(error, OSError) else None)
        return _report_bug(error, options) if own_code is None else _report(error, own_code, options)


def _take_common(arguments: list[str], options: Options) -> list[str]:
    """Take --state and --json out, wherever they stand; what remains is the verb and its own arguments."""
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--json":
            options.json = True
        elif argument == "--state" or argument.startswith("--state="):
            value = argument[8:] if "=" in argument else next(remaining, "")
            if not value or value.startswith("-") or "\0" in value:
                raise UsageError("--state needs a directory, for example --state .riwoa")
            options.state = value
        else:
            rest.append(argument)
    return rest


def _dispatch(rest: list[str], options: Options) -> int:
    if not rest:
        raise UsageError(f"name a verb: {', '.join(VERBS)}; riwoactl --help tells what they do")
    verb = rest[0]
    if verb in ("-h", "--help"):
        print(usage())
        return 0
    if verb == "--version":
        from riwoa import __version__

        print(f"riwoactl {__version__}")
        return 0
    if verb not in VERBS:
        raise UsageError(f"unknown {'option' if verb.startswith('-') else 'verb'} {verb!r}{_nearest(verb)}")
    name = f"riwoa.ctl.{VERBS[verb][0]}"
    __import__(name)  # importlib's own import_module would cost another import
    code: int = sys.modules[name].run(verb, rest[1:], options)
    return code


def usage() -> str:
    """What ``riwoactl --help`` prints."""
    from textwrap import fill

    from riwoa.ctl.help import TOPICS, exit_codes

    verbs = "\n".join(f"  {verb:<12}{what}" for verb, (_, what) in VERBS.items())
    return f"""\
usage: riwoactl [--state DIR] [--json] VERB ...

{verbs}

  --state DIR  the run's directory (default: {ORDER}, if no run lies
               there either the service's)
  --json       print one JSON object
  --version    print the version
Both of the first may stand before or after the verb; riwoactl VERB --help tells more.

{fill(f"handbook, by riwoactl help TOPIC: {', '.join(TOPICS)}", 80)}

exit codes, of riwoad too:
{exit_codes()}"""


def _nearest(verb: str) -> str:
    import difflib

    found = [_MEANT[verb]] if verb in _MEANT else difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else f"; verbs are {', '.join(VERBS)}"


def _report_bug(error: Exception, options: Options) -> int:
    import traceback

    traceback.print_exception(error)
    bug = RuntimeError(f"a bug: {type(error).__name__}: {error}; please report it with the lines above")
    return _report(bug, _BUG, options)


def _report(error: Exception, code: int, options: Options) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = printable(message, _MOST_CHARACTERS)
    print(f"riwoactl: {message}", file=sys.stderr)
    if options.json:
        import json

        print(json.dumps({"error": message, "exit_code": code}))
    return code
