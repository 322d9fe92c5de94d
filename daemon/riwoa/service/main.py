"""``riwoad``: the command line, and the exit code that it ends with."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from riwoa import __version__
from riwoa.config.loading import Loaded, load
from riwoa.console.streams import GuardedStreams
from riwoa.errors import FullDiskError, RiwoaError, StateLockedError, UsageError
from riwoa.files.lock import locked
from riwoa.files.ownership import deny_writing_to_others
from riwoa.ipc.child import die_with_parent
from riwoa.log import configure, get_logger
from riwoa.paths import ORDER, StatePaths, daemon_state
from riwoa.service.daemon import Daemon
from riwoa.service.foreground import attach, show_end, show_progress
from riwoa.service.logs import configure_log
from riwoa.service.nights import plan_night
from riwoa.service.notify import Notifier
from riwoa.service.tasks import first_error, stop_task
from riwoa.text import printable
from riwoa_storage.errors import StorageError

_log = get_logger("service")
_MOST_CHARACTERS = 4000  # of a last line


def main(argv: Sequence[str] | None = None) -> int:
    """Search until finished or told to stop; returns the exit code."""
    with GuardedStreams():
        deny_writing_to_others()
        configure("info", "auto")  # until the configuration is read
        try:
            return _main(_parser().parse_args(argv))
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            return _report(first_error(error))


def _report(error: BaseException) -> int:
    """One line on standard error, and the exit code; a bug has its traceback in the log too."""
    if isinstance(error, (RiwoaError, StorageError)):
        print(f"riwoad: {printable(error, _MOST_CHARACTERS)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):  # a disk, a permission, a limit of this machine: no bug
        _log.debug("failed", exc_info=error)
        print(f"riwoad: {error}; mend that and start again, it continues", file=sys.stderr)
        return FullDiskError.exit_code
    _log.error("bug", exc_info=error)
    print(f"riwoad: a bug: {type(error).__name__}: {error}; please report it with the log above", file=sys.stderr)
    return RiwoaError.exit_code


def _main(options: argparse.Namespace) -> int:
    loaded = load(options.config, options.set)
    if options.state == "":
        raise UsageError("--state needs a directory, for example --state .riwoa")
    paths = daemon_state(options.state)
    if _lacks_task(loaded, paths):
        return _nothing_to_do(
            "nothing says what to search for, and the embedded digits are a demo (`make run`): name [oracle] keys in "
            f"{loaded.file or 'a file for --config'}; `riwoactl init FOLDER --out FILE` writes them for a folder of "
            "pictures"
        )
    if options.continuous:
        return _go_round(options, loaded, paths)
    renew_before_unix_s = 0.0
    if options.nightly:
        plan = plan_night(options.nightly, paths, loaded)
        if plan is None:
            return _nothing_to_do(f"it is not {options.nightly} now; nothing to do")
        options.set += plan.overrides
        loaded = load(loaded.source, options.set)
        renew_before_unix_s = plan.renew_before_unix_s
    configure_log(loaded.config, foreground=options.foreground)
    if loaded.warning is not None:
        _log.warning("config_keys_renamed", reason=loaded.warning)
    is_watched = sys.stdout.isatty()  # by a person who started it by hand
    try:
        with locked(paths) as lock:
            _log.info("state_directory", path=paths.directory)
            if is_watched or options.foreground:
                _say_place(paths)
            if lock.warning is not None:
                _log.warning("no_flock", reason=lock.warning)

            async def serve() -> int:
                daemon = Daemon(
                    paths,
                    loaded,
                    options.set,
                    lock=lock,
                    new_run=options.new_run,
                    foreground=options.foreground,
                    renew_before_unix_s=renew_before_unix_s,
                )
                if options.foreground:
                    return await _serve_in_foreground(daemon, paths)
                code = await daemon.run()
                if is_watched:
                    show_end(daemon.board.look(), paths)
                return code

            return asyncio.run(serve())
    except StateLockedError as error:
        if options.nightly:
            return _nothing_to_do(str(error))
        if not options.foreground:
            raise
        return asyncio.run(attach(paths))


def _go_round(options: argparse.Namespace, loaded: Loaded, paths: StatePaths) -> int:
    """Searches, each a process of its own, and the watch between them."""
    from riwoa.service.continuous import Plan, serve  # onnxruntime: only here

    if options.nightly or options.new_run:
        raise UsageError("--continuous goes round by itself: without --nightly and --new-run")
    configure_log(loaded.config, foreground=options.foreground)
    config = [] if options.config is None else ["--config", str(options.config)]
    sets = [part for setting in options.set for part in ("--set", setting)]
    search = [sys.executable, "-P", "-m", "riwoa.service.main", "--foreground", "--state", paths.directory]
    target = loaded.config.objective.latency_ms
    within_ms = float(target) if isinstance(target, int | float) else None
    build = [sys.executable, "-P", "-m", "riwoa.ctl", "lut", "build", "--state", paths.directory, *config, *sets]
    every_s = loaded.config.latency.drift_every_s
    return serve(Plan(paths, options.continuous, within_ms, [*search, *config, *sets], build, every_s))


def _say_place(paths: StatePaths) -> None:
    """Tell a person where everything is written."""
    print(f"riwoad writes into {paths.directory}: journal.db, status.json, at the end export/", flush=True)


def _lacks_task(loaded: Loaded, paths: StatePaths) -> bool:
    """Whether this is a service that nobody gave anything to search for; one that has searched before goes on."""
    named = any(key.startswith("oracle.") and where != "default" for key, where in loaded.origin.items())
    return bool(os.environ.get("NOTIFY_SOCKET")) and not named and not paths.journal.exists()


def _nothing_to_do(why: str) -> int:
    print(f"riwoad: {why}")
    Notifier().ready()  # systemd takes an end before it for a failure
    return 0


async def _serve_in_foreground(daemon: Daemon, paths: StatePaths) -> int:
    """Show the progress, and at the end the result.

    A foreground run ends with the shell or `make` that started it, in good order: the next one continues. A terminal
    that merely goes away ends nothing: SIGHUP reloads, and what cannot be shown is not.
    """
    die_with_parent(signal.SIGTERM)
    view = asyncio.create_task(show_progress(daemon.board.look), name="progress")
    try:
        code = await daemon.run()
    finally:
        await stop_task(view)
    show_end(daemon.board.look(), paths)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see riwoad --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="riwoad",
        description="Search, unattended and resumable, for the best neural network for this device.",
        epilog="Exit codes: `riwoactl help recovery`, at its end.",
    )
    environment = os.environ.get("RIWOA_CONFIG")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(environment) if environment else None,
        help="a TOML file; watched and reloaded (default: $RIWOA_CONFIG)",
    )
    parser.add_argument("--state", metavar="DIR", help=f"the state directory (default: {ORDER})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, run.seed=1")
    parser.add_argument("--new-run", action="store_true", help="start another run in the same journal")
    parser.add_argument(
        "--nightly",
        metavar="FROM-UNTIL",
        help="search within these hours alone, 21:00-07:00: go on with the unfinished run or begin another, and have "
        "the best answer exported by their end; outside of them, do nothing",
    )
    parser.add_argument(
        "--continuous",
        type=Path,
        metavar="FOLDER",
        help="search, deploy, watch what is deployed by FOLDER's labelled pictures, search again when it has fallen",
    )
    parser.add_argument("--foreground", action="store_true", help="show progress; attach where a daemon is alive")
    parser.add_argument("--version", action="version", version=f"riwoad {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
