"""``riwoactl status``: ask the daemon; else what it last wrote; else the journal; else say that nothing is here.

Exits 0 running or finished, 3 stopped, killed or nothing here, 4 unhealthy. It must start in milliseconds, so it
imports little of the standard library, and that where it is needed.
"""

from __future__ import annotations

import json
import os
import time

from riwoa.ctl import Options
from riwoa.ctl.ask import SilentError, ask_status
from riwoa.errors import ControlError, DaemonUnavailableError
from riwoa.files.lock import holder
from riwoa.files.ownership import json_object
from riwoa.paths import StatePaths, client_state
from riwoa.service.champion_status import champion_status
from riwoa.service.status_check import checked_status
from riwoa.service.target_text import targets_view
from riwoa.service.timed_status import timed_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from riwoa.service.status_object import (
        EvaluationsStatus,
        ImprovementStatus,
        JudgementStatus,
        LeaderStatus,
        LimitStatus,
        StatusObject,
        TimedStatus,
    )

ANSWER_TIMEOUT_S = 1.0
STOPPED, UNHEALTHY = 3, 4
_FRESH_S = 45.0  # a daemon whose event loop is free writes status.json every 15 s
_ENDED = ("finished", "stopped", "unhealthy")  # what a daemon may leave behind in status.json
KILLED = "killed"  # it left another state behind
_DESCRIPTION = """Show what the daemon does: over its socket where it runs, else from status.json or the journal.
Exits 0 running or finished, 3 stopped, killed or no run here, 4 unhealthy. The JSON object holds what the daemon wrote,
and "source": "daemon", "file", "journal" or "none", "alive": whether a daemon holds the state directory, and
"champion": the export that is deployed, or null."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the status; returns the exit code, which tells its kind."""
    verbose = arguments in (["--verbose"], ["-v"])
    if arguments and not verbose:  # --help, or a mistake: the common case never pays for argparse
        from riwoa.ctl.command import Parser

        parser = Parser(verb, description=_DESCRIPTION)
        parser.add_argument("-v", "--verbose", action="store_true", help="also the search's inner life: credit, "
                            "screening, model and adapter, workers, governor, digest, revision")  # fmt: skip
        parser.parse_args(arguments)
    status = collect(client_state(options.state))
    if options.json:
        print(json.dumps(status))
    else:
        from riwoa.ctl.status_text import render

        print(render(status, _details(status) if verbose else (), columns=_columns()))
    return exit_code(status["state"])


def _details(status: StatusObject) -> list[tuple[str, str]]:
    from riwoa.ctl.status_detail import detail_rows

    return detail_rows(status)


def _columns() -> int | None:
    """The width of the terminal; None where standard output is none, and lines stay whole for other programs."""
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def exit_code(state: str) -> int:
    """The exit code for a state: 0 running or finished, 3 stopped, killed or none, 4 unhealthy."""
    return {"stopped": STOPPED, KILLED: STOPPED, "none": STOPPED, "unhealthy": UNHEALTHY}.get(state, 0)


def collect(paths: StatePaths) -> StatusObject:
    """The status object as it is at this moment, with ``source``, ``alive`` and ``champion`` added.

    Raises:
        ControlError: this user may not ask the daemon.
        StorageError: only the journal is left, and it cannot be read.
    """
    return {**_collect(paths), "champion": champion_status(paths)}


def _collect(paths: StatePaths) -> StatusObject:
    silent = False
    try:
        return {**ask_status(paths, ANSWER_TIMEOUT_S), "source": "daemon", "alive": True}
    except DaemonUnavailableError:
        pass
    except SilentError:
        silent = True
    except ControlError as error:
        last = _last_words(paths)  # group-readable for this very reader
        if last is None:
            raise
        return {**last, "source": "file", "alive": True, "message": str(error)}
    pid = holder(paths)
    last = _last_words(paths)
    if pid is not None or silent:
        return _silent_daemon(paths, pid, last, listening=silent)
    if last is not None:
        return _after_the_daemon(last)
    return _from_journal(paths)


def _last_words(paths: StatePaths) -> StatusObject | None:
    """The status that the daemon wrote last; None where there is none.

    status.json is replaced whole, so it is never half-written.
    """
    return checked_status(json_object(paths.name("status.json")))


def _silent_daemon(paths: StatePaths, pid: int | None, last: StatusObject | None, *, listening: bool) -> StatusObject:
    """The status of a daemon that gives no answer: it is just starting, just ending, or hangs.

    Args:
        paths: of its state directory.
        pid: of the process that holds the lock.
        last: what status.json holds.
        listening: somebody listens on the control socket, and was asked in vain.
    """
    blank = _blank(paths)
    status: StatusObject = {**blank, **(last or blank), "source": "file" if last else "none", "alive": True}
    owns = last is not None and last.get("pid") == pid
    if not listening and not owns:
        message = f"process {pid} is starting" if pid else "a daemon is starting"
        return {**status, "state": "starting", "pid": pid or None, "message": message}
    if not listening and status["state"] in (*_ENDED, "starting"):
        return status
    if not listening and "socket" in status and status["socket"] is None:  # it could open none, and said so
        words = f"it has no control socket; as of {_moment(status.get('updated_unix_s'))}"
        return {**status, "message": "; ".join(filter(None, (status.get("message"), words)))}
    if owns and status["state"] == "starting" and _fresh(status):  # a start keeps a small machine busy
        return status
    who = f"process {pid}" if pid else "a process"
    message = f"{who} holds {paths.directory} but does not answer; see its log, or kill it: nothing is lost"
    return {**status, "state": "unhealthy", "pid": pid, "message": message}


def _fresh(status: StatusObject) -> bool:
    """Whether the daemon wrote this status a moment ago."""
    said_unix_s = status.get("updated_unix_s")
    return isinstance(said_unix_s, int | float) and 0 <= time.time() - said_unix_s < _FRESH_S


def _after_the_daemon(last: StatusObject) -> StatusObject:
    """The status after its daemon has ended: one that says goodbye leaves another state behind than a killed one."""
    status: StatusObject = {**last, "source": "file", "alive": False, "workers": [], "cluster": None}
    status["time_left_s"] = None
    if last["state"] not in _ENDED:
        status["state"] = KILLED
        status["state_since_unix_s"] = last.get("updated_unix_s")
        doing = f" while {last['state']}" + (f" ({last['message']})" if last.get("message") else "")
        when = _moment(last.get("updated_unix_s"))
        status["message"] = f"the daemon was killed, or lost power, after {when}{doing}; nothing committed is lost"
    return status


def _from_journal(paths: StatePaths) -> StatusObject:
    blank = _blank(paths)
    journal = paths.name("journal.db")
    if not os.path.exists(journal):
        return {**blank, "message": f"no run in {paths.directory}: start one with riwoad or make run"}
    from riwoa_storage.overview import overview

    seen = overview(journal)
    if seen is None:
        return {**blank, "message": f"no run was begun in {paths.directory} yet"}
    return {
        **blank,
        "source": "journal",
        "state": "finished" if seen["status"] == "finished" else "stopped",
        "started_unix_s": seen["created_unix_s"],
        "updated_unix_s": seen["committed_unix_s"] or seen["created_unix_s"],
        "run": {
            "run_id": seen["run_id"],
            "phase": seen["phase"],
            "generation": seen["generations"],
            "digest": seen["digest"],
            "target_ms": (seen["leader"] or {}).get("target_ms"),
        },
        "evaluations": _journaled_counts(seen["counters"] or {}),
        "leader": _journaled_leader(seen) if seen["leader"] else None,
        "targets": targets_view(seen["objective"], seen["counters"] or {}),
        "improvement": _journaled_improvement(seen),
        "test": _journaled_test(seen["test"]) if seen["test"] else None,
        "timed": _journaled_timed(seen["timed"], seen["leader"] or {}) if seen["timed"] else None,
        "message": f"the daemon does not run; the journal's last entry is of {_moment(seen['committed_unix_s'])}",
        "go_on": f"riwoad --state {paths.directory}",
    }


def _journaled_test(judged: dict[str, Any]) -> JudgementStatus:
    names = ("accuracy", "accuracy_error", "pictures", "views")
    error = judged.get("error")
    return {"reason": error} if error else {name: judged.get(name) for name in names}  # type: ignore[return-value]


def _journaled_timed(timed: dict[str, Any], leader: dict[str, Any]) -> TimedStatus:
    key, networks = leader.get("architecture_key"), timed.get("networks", [])
    network: dict[str, Any] = next((n for n in networks if n.get("architecture_key") == key), {})
    return timed_status(network, timed.get("runtime"), len(networks), timed.get("note"))


def _journaled_counts(counters: dict[str, Any]) -> EvaluationsStatus | None:
    if "evaluations" not in counters:
        return None
    return {
        "unique": counters["evaluations"],
        "cache_hits": counters.get("cache_hits"),
        "failed": counters.get("failures"),
        "per_s": 0.0,
    }


def _journaled_improvement(seen: dict[str, Any]) -> ImprovementStatus | None:
    from riwoa.service.progress import improvement_view

    found, objective = seen["improvement"], seen["objective"]
    metric = objective.get("minimize") or objective.get("maximize") or "accuracy"
    return improvement_view(found, found["leader"], metric) if found else None


def _journaled_leader(seen: dict[str, Any]) -> LeaderStatus:
    leader, counters, objective = seen["leader"], seen["counters"] or {}, seen["objective"]
    metrics = leader.get("metrics", {})
    metric = objective.get("minimize") or objective.get("maximize") or "accuracy"
    limits = _journaled_limits(objective, leader) if objective.get("constraints") or objective.get("devices") else []
    return {
        "metric": metric,
        "value": metrics.get(metric),
        "accuracy": metrics.get("accuracy"),
        "limits": limits,
        "tries": counters.get("evaluations"),
        "images": metrics.get("images"),
        "latency_ms": metrics.get("latency_ms"),
        "fitness": leader.get("fitness"),
        "feasible": leader.get("feasible", False),
        "architecture_key": leader.get("architecture_key"),
        "origin": (leader.get("generation", 0), leader.get("slot", 0)),
    }


def _journaled_limits(objective: dict[str, Any], leader: dict[str, Any]) -> list[LimitStatus]:
    """What a leader makes of each limit; this alone imports what is slow."""
    from riwoa.run.limits import journaled_objective, standings
    from riwoa.service.limit_text import limits_view

    found = journaled_objective({"objective": objective}, leader.get("target_ms"))
    return limits_view(standings(found, leader.get("metrics", {})))


def _blank(paths: StatePaths) -> StatusObject:
    return {
        "schema": 1,
        "state": "none",
        "state_directory": paths.directory,
        "source": "none",
        "alive": False,
        "pid": None,
        "run": None,
        "leader": None,
        "workers": [],
        "message": "",
    }


def _moment(unix_s: float | None) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s)) if unix_s else "an unknown time"
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "an unknown time"
