"""The status object as lines for people. ``riwoactl status`` imports this, so it imports nothing slow to start."""

from __future__ import annotations

import time

from riwoa.hardware.interval import advice, plus_minus
from riwoa.service.limit_text import further, hypervolume_words, limit_line, value_words
from riwoa.text import duration, points, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from riwoa.service.status_object import (
        CognitionStatus,
        ConfigStatus,
        EvaluationsStatus,
        JudgementStatus,
        LeaderStatus,
        LearningStatus,
        OperatorStatus,
        ProposalsStatus,
        RunStatus,
        ScreeningStatus,
        StatusObject,
        TimedStatus,
        WorkerStatus,
    )

_MOST_CHARACTERS = 2000  # of a line


def render(status: StatusObject) -> str:
    """The status as aligned lines."""
    run, message, time_left_s = status.get("run"), status.get("message"), status.get("time_left_s")
    rows = [("state", _state(status))]
    if message:
        rows.append(("", message))
    rows += [("warning", warning) for warning in status.get("warnings") or []]
    rows += _run(run)
    rows += _evaluations(status.get("evaluations"))
    rows += _screening(status.get("screening"))
    if time_left_s is not None:
        rows.append(("time left", f"about {duration(time_left_s)}"))
    rows += _test(status.get("test"))
    rows += _leader(status.get("leader"), run.get("target_ms") if run else None)
    rows += _timed(status.get("timed"))
    if status.get("pareto"):
        rows.append(("pareto", f"{status['pareto']} networks{hypervolume_words(status)} (riwoactl pareto)"))
    rows += [(("workers" if i == 0 else ""), _worker(w)) for i, w in enumerate(status.get("workers") or [])]
    rows += _without_model(status.get("cognition"))
    rows += _proposals(status.get("proposals"))
    rows += _operators(status.get("operators"), status.get("leader"))
    rows += _config(status.get("config"))
    rows.append(("files", str(status.get("state_directory"))))
    return "\n".join(f"{name:<13}{printable(value, _MOST_CHARACTERS)}" for name, value in rows)


def _state(status: StatusObject) -> str:
    if not status.get("alive"):
        return str(status["state"]) if status["state"] != "none" else "no run here"
    since = status.get("started_unix_s")
    running = f", for {duration(max(0.0, time.time() - since))}" if since else ""
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
    if run.get("memory"):
        rows.append(("memory", f"began with {run['memory']}"))
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
    if screening.get("related"):
        text += f"; another oracle's are followed, rank correlation {screening['related']:.2f}"
    return [("screening", text)]


def _test(test: JudgementStatus | None) -> list[tuple[str, str]]:
    """What pictures that chose nothing say of the winner, and what is as good and faster."""
    if not test:
        return []
    accuracy = test.get("accuracy")
    if accuracy is None:
        return [("test", f"none: {test['reason']}")] if test.get("reason") else []
    error, views = test.get("accuracy_error"), test.get("views") or 1
    text = f"{100 * accuracy:.2f} %" + (f" ± {100 * error:.2f}" if error is not None else "")
    text += f" on {test.get('pictures')} pictures" + (f", {views} views each," if views > 1 else "")
    rows = [("test", f"{text} that chose nothing")]
    if fastest := test.get("fastest_equal"):
        by = f"{points(fastest['difference'], fastest['difference_error'])} points"
        by += f", p = {fastest['p']:.2g}"
        rows.append(("", f"not told from it, and faster: {fastest['latency_ms']:.3f} ms ({by})"))
    return rows


def _timed(timed: TimedStatus | None) -> list[tuple[str, str]]:
    """The winner by the clock, beside what the table says."""
    if not timed:
        return []
    ms, note = timed.get("latency_ms"), timed.get("note")
    words = f"{ms:.3f} ms ({timed.get('low_ms'):.3f} to {timed.get('high_ms'):.3f})" if ms is not None else ""
    rows = [("measured", f"{words} in {timed.get('runtime')}, as exported")] if words else []
    return rows + ([("" if rows else "measured", note)] if note else [])


def _leader(leader: LeaderStatus | None, target_ms: float | None) -> list[tuple[str, str]]:
    text = value_words(leader) if leader else ""
    if not leader or not text:
        return []
    error, interval, origin = leader.get("accuracy_error"), leader.get("latency_interval"), leader.get("origin")
    if error is not None and (leader.get("metric") or "accuracy") == "accuracy":
        text += f" ± {100 * error:.2f}"
    if leader.get("tries"):
        images = f" on {leader['images']} images" if leader.get("images") else ""
        text += f", the best of {leader['tries']} tries{images}"
    if leader.get("latency_ms"):  # 0: a table without latencies
        text += f"{',' if leader.get('tries') else ''} at {leader['latency_ms']:.3f} ms{plus_minus(interval)}"
    if target_ms is not None:
        met = leader.get("feasible") or (leader.get("latency_ms") or 0.0) <= target_ms
        text += f" (target {target_ms:.3f} ms{'' if met else ', not met yet'})"
    if origin:
        text += ", of generation {}, slot {}".format(*origin)
    rows, wide = [("leader", text)], advice(interval)
    limits = further(leader.get("limits") or [])
    rows += [("", wide)] if wide else []
    return rows + [("" if i else "limits", limit_line(row)) for i, row in enumerate(limits)]


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


def _operators(operators: dict[str, OperatorStatus] | None, leader: LeaderStatus | None) -> list[tuple[str, str]]:
    """A row for each operator's credit, the most winning first."""
    counted = [(name, row) for name, row in (operators or {}).items() if row["proposals"]]
    metric = (leader.get("metric") if leader else None) or "accuracy"
    scale, unit = (100.0, " %") if metric == "accuracy" else (1.0, f" of {metric}")
    ranked = sorted(counted, key=lambda pair: -pair[1]["win_rate"])
    return [("credit" if i == 0 else "", _credit(name, row, scale, unit)) for i, (name, row) in enumerate(ranked)]


def _credit(name: str, row: OperatorStatus, scale: float, unit: str) -> str:
    text = f"{name:<9} {row['wins']} of {row['proposals']} beat the parent: {100 * row['win_rate']:.0f} %"
    text += f" ({100 * row['win_rate_low']:.0f} to {100 * row['win_rate_high']:.0f})"
    text += f", mean gain {scale * row['mean_gain']:.3f}{unit}"
    gain_per_s = row.get("gain_per_s")
    if gain_per_s is not None:
        text += f", {scale * gain_per_s:.4f}{unit} a second"
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
