"""``riwoactl status``: ask the daemon; else what it last wrote; else the journal; else say that nothing is here.

Exits 0 running or finished, 3 stopped or nothing here, 4 unhealthy. It must start in milliseconds, so it imports little
of the standard library, and that where it is needed.
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
from riwoa.hardware.interval import advice, plus_minus
from riwoa.paths import StatePaths, client_state
from riwoa.service.status_check import checked_status
from riwoa.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from riwoa.service.status_object import (
        CognitionStatus,
        ConfigStatus,
        EvaluationsStatus,
        LeaderStatus,
        LearningStatus,
        OperatorStatus,
        ProposalsStatus,
        RunStatus,
        ScreeningStatus,
        StatusObject,
        WorkerStatus,
    )

ANSWER_TIMEOUT_S = 1.0
_MOST_CHARACTERS = 2000
STOPPED, UNHEALTHY = 3, 4
_FRESH_S = 45.0  # a daemon whose event loop is free writes status.json every 15 s
_ENDED = ("finished", "stopped", "unhealthy")  # what a daemon may leave behind in status.json
_DESCRIPTION = """Show what the daemon does: over its socket where it runs, else from status.json or the journal.
Exits 0 running or finished, 3 stopped or no run here, 4 unhealthy. The JSON object holds what the daemon wrote, and
"source": "daemon", "file", "journal" or "none", and "alive": whether a daemon holds the state directory."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the status; returns the exit code, which tells its kind."""
    if arguments:  # --help, or a mistake: the common case never pays for argparse
        from riwoa.ctl.command import Parser

        Parser(verb, description=_DESCRIPTION).parse_args(arguments)
    status = collect(client_state(options.state))
    print(json.dumps(status) if options.json else render(status))
    return exit_code(status["state"])


def exit_code(state: str) -> int:
    """The exit code for a state: 0 running or finished, 3 stopped or none, 4 unhealthy."""
    return {"stopped": STOPPED, "none": STOPPED, "unhealthy": UNHEALTHY}.get(state, 0)


def collect(paths: StatePaths) -> StatusObject:
    """The status object as it is at this moment, with ``source`` and ``alive`` added.

    Raises:
        ControlError: this user may not ask the daemon.
        StorageError: only the journal is left, and it cannot be read.
    """
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
    """The status after its daemon has ended: a search that it calls running has stopped."""
    status: StatusObject = {**last, "source": "file", "alive": False, "workers": [], "time_left_s": None}
    if last["state"] not in _ENDED:
        status["state"] = "stopped"
        when = _moment(last.get("updated_unix_s"))  # one that stops, or fails, says so at the end
        status["message"] = (
            f"the daemon was killed, or lost power, after {when}; start again to continue: nothing is lost"
        )
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
        },
        "leader": _journaled_leader(seen["leader"]) if seen["leader"] else None,
        "message": f"the daemon does not run; the journal's last entry is of {_moment(seen['committed_unix_s'])}",
    }


def _journaled_leader(leader: dict[str, Any]) -> LeaderStatus:
    metrics = leader.get("metrics", {})
    return {
        "accuracy": metrics.get("accuracy"),
        "latency_ms": metrics.get("latency_ms"),
        "fitness": leader.get("fitness"),
        "feasible": leader.get("feasible", False),
        "architecture_key": leader.get("architecture_key"),
        "origin": (leader.get("generation", 0), leader.get("slot", 0)),
    }


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


# -- for people ------------------------------------------------------------------------------------------------------


def render(status: StatusObject) -> str:
    """The status as aligned lines."""
    run, message, time_left_s = status.get("run"), status.get("message"), status.get("time_left_s")
    rows = [("state", _state(status))]
    if message:
        rows.append(("", message))
    rows += _run(run)
    rows += _evaluations(status.get("evaluations"))
    rows += _screening(status.get("screening"))
    if time_left_s is not None:
        rows.append(("time left", f"about {span(time_left_s)}"))
    rows += _leader(status.get("leader"), run.get("target_ms") if run else None)
    if status.get("pareto"):
        rows.append(("pareto", f"{status['pareto']} networks (riwoactl pareto)"))
    rows += [(("workers" if i == 0 else ""), _worker(w)) for i, w in enumerate(status.get("workers") or [])]
    rows += _without_model(status.get("cognition"))
    rows += _proposals(status.get("proposals"))
    rows += _operators(status.get("operators"))
    rows += _config(status.get("config"))
    rows.append(("files", str(status.get("state_directory"))))
    return "\n".join(f"{name:<13}{printable(value, _MOST_CHARACTERS)}" for name, value in rows)


def span(seconds: float) -> str:
    """A duration for people: 55 s, 3 min 10 s, 2 h 5 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _state(status: StatusObject) -> str:
    if not status.get("alive"):
        return str(status["state"]) if status["state"] != "none" else "no run here"
    since = status.get("started_unix_s")
    running = f", for {span(max(0.0, time.time() - since))}" if since else ""
    return f"{status['state']} (process {status.get('pid') or 'unknown'}{running})"


def _run(run: RunStatus | None) -> list[tuple[str, str]]:
    if not run:
        return []
    parts = [f"{run['run_id']}"]
    if run.get("strategy"):
        parts.append(f"{run['strategy']}, seed {run.get('seed')}")
    if run.get("resumed_from") is not None:
        parts.append(f"resumed at generation {run['resumed_from']}")
    # The schedule counts generations of the search; the polish comes on top.
    total = f" of {run['generations']}" if run.get("generations") and run.get("phase") == "search" else ""
    phase = f", {run['phase']}" if run.get("phase") else ""
    rows = [("run", "; ".join(parts)), ("generation", f"{run.get('generation')}{total}{phase}")]
    return [*rows, ("digest", str(run["digest"])[:16])] if run.get("digest") else rows


def _evaluations(counts: EvaluationsStatus | None) -> list[tuple[str, str]]:
    if not counts:
        return []
    text = f"{counts['unique']} unique, {counts.get('cache_hits', 0)} from the cache, {counts.get('failed', 0)} failed"
    if counts.get("per_s"):
        text += f"; {counts['per_s']:.1f} a second"
    if counts.get("queued"):
        text += f"; {counts['queued']} waiting"
    rows = [("evaluations", text)]
    if counts.get("dropped"):
        audited = counts.get("audited")
        tested = f"; {counts.get('missed', 0)} of {audited} tested would have mattered" if audited else ""
        rows.append(("", f"{counts['dropped']} candidates given up on a lower rung{tested}"))
    return rows


def _screening(screening: ScreeningStatus | None) -> list[tuple[str, str]]:
    """The row of the predictor that screens children, once it has predicted something."""
    covered = screening.get("covered") if screening else None
    if not screening or covered is None:
        return []
    text = f"a predictor knows {screening['examples'] + screening['prior']} evaluations; "
    text += f"{100 * covered:.0f} % of its latest {100 * screening['interval']:.0f} % intervals held"
    return [("screening", text)]


def _leader(leader: LeaderStatus | None, target_ms: float | None) -> list[tuple[str, str]]:
    if not leader or leader.get("accuracy") is None:
        return []
    text = f"{100 * leader['accuracy']:.2f} %"
    error, interval, origin = leader.get("accuracy_error"), leader.get("latency_interval"), leader.get("origin")
    if error is not None:
        text += f" ± {100 * error:.2f}"
    if leader.get("latency_ms") is not None:
        text += f" at {leader['latency_ms']:.3f} ms{plus_minus(interval)}"
    if target_ms is not None:
        text += f" (target {target_ms:.3f} ms{'' if leader.get('feasible') else ', not met yet'})"
    if origin:
        text += ", of generation {}, slot {}".format(*origin)
    rows, wide = [("leader", text)], advice(interval)
    return [*rows, ("", wide)] if wide else rows


def _worker(worker: WorkerStatus) -> str:
    text = f"{worker['name']}  {worker['state']}"
    if worker.get("job"):
        text += f" for {worker.get('since_s') or 0:.1f} s"
    text += f"; {worker.get('done', 0)} done"
    busy_share = worker.get("busy_share")
    if busy_share is not None:
        text += f", {100 * busy_share:.0f} % busy"
    return text + (f", {worker['restarts']} restarts" if worker.get("restarts") else "")


def _without_model(cognition: CognitionStatus | None) -> list[tuple[str, str]]:
    """The row that says why no model writes proposals, where one should."""
    if not cognition or cognition["state"] not in ("geometric only", "model gone"):
        return []
    return [("model", f"{cognition['state']}: {cognition.get('reason')}")]


def _proposals(proposals: ProposalsStatus | None) -> list[tuple[str, str]]:
    if not proposals:
        return []
    doing = f" ({_doing(proposals)})" if proposals.get("state") else ""
    counts = f"{proposals['answered']} answered, {proposals['waiting']} waiting"
    counts += f", {proposals.get('fallbacks', 0)} fallbacks"
    text = f"{proposals['model']}{doing}, lag {proposals.get('lag')}: {counts}"
    busy_share, tokens_per_s = proposals.get("busy_share"), proposals.get("tokens_per_s")
    if busy_share is not None:
        text += f"; {100 * busy_share:.0f} % busy"
    if tokens_per_s is not None:
        text += f", {tokens_per_s:.0f} tokens a second"
    text += f", {proposals['restarts']} restarts" if proposals.get("restarts") else ""
    return [("proposals", text), *_learning(proposals.get("learning"))]


def _doing(proposals: ProposalsStatus) -> str:
    left = f", {proposals['breaker_left']} batches left" if proposals.get("breaker_left") else ""
    reason = f": {proposals['reason']}" if proposals.get("reason") else ""
    return f"{proposals['state']}{left}{reason}"


def _learning(learning: LearningStatus | None) -> list[tuple[str, str]]:
    if not learning:
        return []
    adapter, swap, unusable = learning.get("adapter"), learning.get("swap"), learning.get("unusable")
    text = f"{adapter[:12]}, since generation {learning.get('since_generation')}" if adapter else "none yet"
    text += f"; trainings: {learning.get('accepted', 0)} accepted, {learning.get('rejected', 0)} rejected"
    text += f", {learning.get('failed', 0)} failed"
    if swap is not None:
        text += f"; one is under way for generation {swap}"
    else:
        text += f"; {learning.get('unconsumed', 0)} successes to learn from"
    rows = [("adapter", text)]
    if unusable:
        names = ", ".join(sha256[:12] for sha256 in unusable)
        rows.append(("", f"damaged, gone or refused, an older one is used: {names}"))
    return rows


def _operators(operators: dict[str, OperatorStatus] | None) -> list[tuple[str, str]]:
    """A row for each operator's credit, the most winning first."""
    counted = [(name, row) for name, row in (operators or {}).items() if row["proposals"]]
    ranked = sorted(counted, key=lambda pair: -pair[1]["win_rate"])
    return [("credit" if i == 0 else "", _credit(name, row)) for i, (name, row) in enumerate(ranked)]


def _credit(name: str, row: OperatorStatus) -> str:
    text = f"{name:<9} {row['wins']} of {row['proposals']} beat the parent: {100 * row['win_rate']:.0f} %"
    text += f" ({100 * row['win_rate_low']:.0f} to {100 * row['win_rate_high']:.0f})"
    text += f", mean gain {100 * row['mean_gain']:.3f} %"
    gain_per_s = row.get("gain_per_s")
    if gain_per_s is not None:
        text += f", {100 * gain_per_s:.4f} % a second"
    if row["valid"] < row["proposals"]:
        text += f"; {row['proposals'] - row['valid']} not valid"
    return text + (f"; {row['repeats']} repeats" if row.get("repeats") else "")


def _config(config: ConfigStatus | None) -> list[tuple[str, str]]:
    if not config:
        return []
    rows = [("config", f"{config.get('file') or 'defaults'}, revision {config.get('revision', 0)}")]
    if config.get("error"):
        rows.append(("", f"refused, the old one stays: {config['error']}"))
    restart_keys = config.get("restart_keys")
    if restart_keys:
        rows.append(("", f"cannot change in a run: {', '.join(restart_keys)}"))
    return rows


def _moment(unix_s: float | None) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s)) if unix_s else "an unknown time"
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "an unknown time"
