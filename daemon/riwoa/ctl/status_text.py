"""The status object as lines for people, in the order in which they ask. ``riwoactl status`` imports this: it is quick.

What only an engineer asks is in ``status_detail``, for ``--verbose``.
"""

from __future__ import annotations

import time

from riwoa.hardware.interval import advice, plus_minus
from riwoa.service.champion_status import champion_words, look_words
from riwoa.service.limit_text import further, hypervolume_words, limit_line, value_words
from riwoa.service.progress import improvement_words, steps, time_left_words
from riwoa.service.target_text import target_lines
from riwoa.text import broken, duration, points, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from riwoa.service.status_object import (
        ConfigStatus,
        JudgementStatus,
        LeaderStatus,
        LimitStatus,
        ProposalsStatus,
        RunStatus,
        StatusObject,
        TimedStatus,
        WorkerStatus,
    )

    Rows = list[tuple[str, str]]  # a name, which is empty where the row goes on, and what there is to say

_MOST_CHARACTERS = 2000  # of a row
_NAME_COLUMNS = 13
_FAILED_SHARE = 0.1  # of the evaluations, from which on something is wrong
_TROUBLED = ("breaker open", "unavailable")  # states of a language model that is not asked
_ENDED_AT = {"killed": "after"}  # its last sign of life; others said goodbye


def render(status: StatusObject, more: Sequence[tuple[str, str]] = (), *, columns: int | None = None) -> str:
    """The status as aligned lines.

    Args:
        status: the object.
        more: rows to follow those for everybody.
        columns: of the terminal, into which long rows are broken; None leaves each row a line.
    """
    rows = [("state", _state(status)), *_now(status), *_best(status), *_latency(status), *_targets(status)]
    rows += [
        *_progress(status),
        *_improvement(status),
        *_served(status),
        *_champion(status),
        *_wrong(status),
        *_next(status),
    ]
    rows += [*more, ("files", str(status.get("state_directory")))]
    lines = [f"{name:<{_NAME_COLUMNS}}{printable(value, _MOST_CHARACTERS)}" for name, value in rows]
    return "\n".join(
        lines if columns is None else [part for line in lines for part in broken(line, columns, _NAME_COLUMNS)]
    )


def _state(status: StatusObject) -> str:
    state = str(status["state"]) if status["state"] != "none" else "no run here"
    # A daemon of before tells only when it was started.
    since = status.get("state_since_unix_s") or (status.get("started_unix_s") if status.get("alive") else None)
    if since is None:
        return state
    if not status.get("alive"):
        return f"{state} {_ENDED_AT.get(state, 'at')} {moment(since)}"
    return f"{state} for {duration(max(0.0, time.time() - since))}, since {moment(since)}"


def _now(status: StatusObject) -> Rows:
    """What it is doing."""
    message, run = status.get("message") or "", status.get("run")
    if status["state"] == "unhealthy":  # that is what is wrong
        return []
    parts = [message] if message else []
    if status["state"] == "exporting" and not message:
        parts = ["the winner's files are written"]
    if status.get("alive") and run and status["state"] in ("running", "polishing") and not message:
        parts = [_doing(status, run)]
    return [("now" if status.get("alive") else "", "; ".join(parts))] if parts else []


def _doing(status: StatusObject, run: RunStatus) -> str:
    workers, proposals = status.get("workers") or [], status.get("proposals")
    doing = f"{'polish around the leader' if run['phase'] == 'polish' else 'search'}, generation {run['generation']}"
    if workers:
        doing += f"; {sum(bool(w.get('job')) for w in workers)} of {len(workers)} workers evaluate"
    if proposals and proposals.get("state") in ("generating", "training"):
        doing += f"; the language model {'writes' if proposals['state'] == 'generating' else 'is trained'}"
    return doing


# -- what was found ----------------------------------------------------------------------------------------------------


def _best(status: StatusObject) -> Rows:
    """What the best network is worth: on pictures that chose nothing, where they were asked."""
    test, leader = status.get("test"), status.get("leader")
    is_judged = bool(test and test.get("accuracy") is not None)
    rows = _test(test) + _validation(leader, is_judged=is_judged) + _equal(test)
    return [("" if i else "best", text) for i, text in enumerate(rows)]


def _test(test: JudgementStatus | None) -> list[str]:
    if not test:
        return []
    accuracy = test.get("accuracy")
    if accuracy is None:
        return [f"no test: {test['reason']}"] if test.get("reason") else []
    error, views = test.get("accuracy_error"), test.get("views") or 1
    text = f"{100 * accuracy:.2f} %" + (f" ± {100 * error:.2f}" if error is not None else "")
    text += f" on {test.get('pictures')} test pictures" + (f", {views} views each," if views > 1 else "")
    return [f"{text} that chose nothing"]


def _equal(test: JudgementStatus | None) -> list[str]:
    """The fastest network that cannot be told from the best."""
    fastest = test.get("fastest_equal") if test else None
    if not fastest:
        return []
    by = f"{points(fastest['difference'], fastest['difference_error'])} points, p = {fastest['p']:.2g}"
    return [f"as good as far as can be told, and faster: {fastest['latency_ms']:.3f} ms ({by})"]


def _validation(leader: LeaderStatus | None, *, is_judged: bool) -> list[str]:
    """What chose the best, named as what it is."""
    text = value_words(leader) if leader else ""
    if not leader or not text:
        return []
    error, tries, images = leader.get("accuracy_error"), leader.get("tries"), leader.get("images")
    if error is not None and (leader.get("metric") or "accuracy") == "accuracy":
        text += f" ± {100 * error:.2f}"
    if images:
        text += f" on {images} validation images"
    if tries:
        text += f", the best of {tries} tries"
        text += "" if is_judged or not images else ", so a little too good"
    return [text]


def _latency(status: StatusObject) -> Rows:
    """The best network's latency by the table and by the clock, against the target; other limits below."""
    leader, run, timed = status.get("leader"), status.get("run"), status.get("timed")
    rows: list[str] = []
    target_ms = run.get("target_ms") if run else None
    if leader and leader.get("latency_ms"):  # 0: a table without latencies
        interval = leader.get("latency_interval")
        rows.append(f"{leader['latency_ms']:.3f} ms{plus_minus(interval)}{_against(leader, target_ms)}")
    rows += _timed(timed)
    rows += [limit_line(row) for row in _further(leader)]
    return [("" if i else "latency", text) for i, text in enumerate(rows)]


def _targets(status: StatusObject) -> Rows:
    """The best network for each of several devices."""
    lines = target_lines(status.get("targets") or [])
    return [("" if i else "targets", line) for i, line in enumerate(lines)]


def _further(leader: LeaderStatus | None) -> Sequence[LimitStatus]:
    return further(leader.get("limits") or []) if leader else []


def _against(leader: LeaderStatus, target_ms: float | None) -> str:
    if target_ms is None:
        return ""
    met = leader.get("feasible") or (leader.get("latency_ms") or 0.0) <= target_ms
    if met:
        return f", within the target of {target_ms:.3f} ms"
    return f", NOT within the target of {target_ms:.3f} ms: no network that is has been found yet"


def _timed(timed: TimedStatus | None) -> list[str]:
    """The winner by the clock, beside what the table says."""
    if not timed:
        return []
    ms, note = timed.get("latency_ms"), timed.get("note")
    words = []
    if ms is not None:
        words = [f"{ms:.3f} ms ({timed.get('low_ms'):.3f} to {timed.get('high_ms'):.3f}) measured as exported, in "
                 f"{timed.get('runtime')}"]  # fmt: skip
    return [*words, *([note] if note else [])]


# -- how far it is -----------------------------------------------------------------------------------------------------


def _progress(status: StatusObject) -> Rows:
    run, counts = status.get("run"), status.get("evaluations")
    rows = []
    if run:
        parts = [_bounds(status, run)]
        if counts and counts.get("per_s") and status.get("alive") and not _is_over(status):
            parts.append(f"{counts['per_s']:.1f} a second")
        if status.get("pareto"):
            parts.append(f"{status['pareto']} networks on the front{hypervolume_words(status)}")
        rows.append(("progress", "; ".join(parts)))
    if status.get("alive") and status["state"] != "finished":
        rows.append(("time left", time_left_words(status)))
    return rows


def _bounds(status: StatusObject, run: RunStatus) -> str:
    """How far the run is on the way that ends it first, and what else bounds it."""
    counts = status.get("evaluations")
    unique = counts["unique"] if counts else None
    if status["state"] == "finished":
        return f"{unique} evaluations in {run['generation']} generations" if unique is not None else "done"
    if _is_over(status) and unique is not None:
        return f"search and polish are done: {unique} evaluations in {run['generation']} generations"
    done, total, unit = steps(status)
    if unit == "evaluations" and run["phase"] == "polish" and not run.get("most_evaluations"):
        return f"polish: {done} of at most {total} evaluations; {unique} in all"
    share = f" ({100 * done / total:.0f} %)" if total else ""
    if unit == "evaluations":
        return f"{done} of {total} evaluations{share}, generation {run['generation']}"
    generations = f"generation {done}" + (f" of {total}{share}" if run.get("generations") else "")
    return generations if unique is None else f"{generations}, {unique} evaluations"


def _is_over(status: StatusObject) -> bool:
    """Whether search and polish are over, and the winner is judged, timed or exported."""
    run = status.get("run")
    done, total, _ = steps(status)
    return status["state"] == "exporting" or bool(run and run["phase"] == "polish" and done >= total > 0)


def _improvement(status: StatusObject) -> Rows:
    found = status.get("improvement")
    if not found:
        return []
    ago_s = time.time() - found["found_unix_s"]
    recent = status.get("alive") and status["state"] != "finished" and ago_s >= 0
    when = f"{duration(ago_s)} ago" if recent else f"at {moment(found['found_unix_s'])}"
    return [("improved", improvement_words(found, status.get("leader"), when))]


def _served(status: StatusObject) -> Rows:
    """What a language model on a server costs, and that it does not learn."""
    proposals = status.get("proposals")
    server = proposals.get("server") if proposals else None
    if not proposals or not server:
        return []
    text = f"{server.get('model') or proposals['model'].removeprefix('http:')} at {server['url']}: "
    text += f"{server['night_in'] + server['night_out']:,} tokens since noon"
    budget, cost = server.get("budget"), server.get("night_cost")
    text += f" of {budget:,}" if budget else ""
    text += f", {cost_words(cost)}" if cost is not None else ""
    text += "; they are spent, it is asked again at noon" if proposals.get("state") == "budget spent" else ""
    return [("model", f"{text}; a model on a server does not learn")]


def cost_words(cost: float) -> str:
    """A cost by the prices that are configured, which name no currency."""
    return f"cost {cost:,.2f}" if cost >= 1 else f"cost {cost:.2g}"


# -- what is deployed ------------------------------------------------------------------------------------------------


def _champion(status: StatusObject) -> Rows:
    """What is deployed, and how it did on fresh pictures when ``riwoad --continuous`` looked last."""
    champion = status.get("champion")
    if not champion:
        return []
    look = champion.get("watched")
    return [("champion", champion_words(champion)), *([("watched", look_words(look))] if look else [])]


# -- what is wrong, and what to do -------------------------------------------------------------------------------------


def _wrong(status: StatusObject) -> Rows:
    """Everything that a person should look at; "nothing" where a daemon is alive and well."""
    rows = [str(status.get("message"))] if status["state"] == "unhealthy" and status.get("message") else []
    rows += [*(status.get("warnings") or []), *_wrong_config(status.get("config")), *_wrong_workers(status)]
    rows += _wrong_model(status)
    drift, leader = status.get("latency"), status.get("leader")
    if drift and drift.get("verdict") == "drifted":
        affects = f" ({', '.join(drift.get('affects') or [])})" if drift.get("affects") else ""
        rows.append(
            f"this device no longer runs as its latency table says{affects}: `riwoactl lut build` measures anew"
        )
    if wide := advice(leader.get("latency_interval") if leader else None):
        rows.append(wide)
    if "socket" in status and status["socket"] is None and status.get("alive"):
        rows.append("no control socket: pause, resume, stop and reload do not reach it; see its log")
    if not rows and status.get("alive"):
        rows = ["nothing"]
    return [("" if i else "wrong", text) for i, text in enumerate(rows)]


def _wrong_config(config: ConfigStatus | None) -> list[str]:
    if not config:
        return []
    if config.get("error"):
        return [f"configuration, the old one stays: {config['error']}"]
    told = config.get("outcome") if config.get("restart_keys") else None
    return [f"configuration: {told}"] if told else []


def _wrong_workers(status: StatusObject) -> list[str]:
    counts, rows = status.get("evaluations"), []
    failed, unique = (counts.get("failed") or 0, counts["unique"]) if counts else (0, 0)
    if failed and failed >= _FAILED_SHARE * (failed + unique):
        rows.append(f"{failed} of {failed + unique} evaluations failed; the log says why")
    if cluster := status.get("cluster"):
        rows += [f"the cluster is lost, for now: {cluster['lost']}"] if cluster.get("lost") else []
        refused = [node for node in cluster["nodes"] if node.get("refused")]
        rows += [f"node {node['name']} is not used: {node['refused']}" for node in refused]
    rows += [_restarted(worker) for worker in status.get("workers") or [] if worker.get("restarts")]
    return rows


def _restarted(worker: WorkerStatus) -> str:
    return f"{worker['name']} was started again {worker['restarts']} times; the log says why, nothing is lost"


def _wrong_model(status: StatusObject) -> list[str]:
    """Why no model writes, where one should; the search goes on without it."""
    cognition, proposals = status.get("cognition"), status.get("proposals")
    rows = []
    if cognition and cognition["state"] in ("geometric only", "model gone"):
        reason = cognition.get("reason")
        rows.append(f"{cognition['state']}: {reason}; the search goes on without a language model")
    if status.get("alive") and proposals and proposals.get("state") in _TROUBLED:
        rows.append(f"the language model: {model_state(proposals)}; the search goes on without it")
    server = proposals.get("server") if proposals else None
    if server and server.get("changed"):
        rows.append(f"the server's model changed in the run: {server['changed']}")
    learning = proposals.get("learning") if proposals else None
    if learning and learning.get("unusable"):
        names = ", ".join(sha256[:12] for sha256 in learning["unusable"] or [])
        rows.append(f"adapters damaged, gone or refused, an older one is used: {names}")
    return rows


def model_state(proposals: ProposalsStatus) -> str:
    """What the language model's process does, with the reason where it does nothing."""
    left = f", {proposals['breaker_left']} batches left" if proposals.get("breaker_left") else ""
    reason = f": {proposals['reason']}" if proposals.get("reason") else ""
    return f"{proposals['state']}{left}{reason}"


def _next(status: StatusObject) -> Rows:
    """What waits, and how to go on."""
    config = status.get("config")
    rows = []
    if config and status.get("alive") and not config.get("error"):
        if config.get("waiting"):
            rows.append(("config", f"applies at the next generation: {config['waiting']}"))
        elif config.get("outcome") and not config.get("restart_keys"):
            rows.append(("config", str(config["outcome"])))
    if not status.get("alive") and status["state"] not in ("finished", "none"):
        rows.append(("go on", status.get("go_on") or f"riwoad --state {status.get('state_directory')}"))
    return rows


def moment(unix_s: float) -> str:
    """The local time of day, with the date where it is not today's; "at an unknown time" beyond all calendars."""
    try:
        then, now = time.localtime(unix_s), time.localtime()
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "an unknown time"
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
