"""The rows of ``riwoactl status --verbose``: the search's inner life, for who works on it."""

from __future__ import annotations

from riwoa.ctl.status_text import cost_words, model_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from riwoa.ctl.status_text import Rows
    from riwoa.service.status_object import (
        ClusterStatus,
        ConfigStatus,
        EvaluationsStatus,
        ExperienceStatus,
        GovernorStatus,
        LatencyStatus,
        LeaderStatus,
        LearningStatus,
        LessonStatus,
        NodeStatus,
        OperatorStatus,
        PatchesStatus,
        PromptStatus,
        ProposalsStatus,
        ScreeningStatus,
        ServerStatus,
        StatusObject,
        WorkerStatus,
    )


def detail_rows(status: StatusObject) -> Rows:
    """What follows the rows for everybody."""
    proposals = status.get("proposals")
    patches = proposals.get("patches") if proposals else None
    return [
        *_run(status),
        *_evaluations(status.get("evaluations")),
        *_screening(status.get("screening")),
        *_experience(status.get("experience"), status.get("leader")),
        *[(("workers" if i == 0 else ""), _worker(w)) for i, w in enumerate(status.get("workers") or [])],
        *_cluster(status.get("cluster")),
        *_cognition(status),
        *_patches(patches, status.get("leader")),
        *_operators(status.get("operators"), status.get("leader")),
        *_leaders(status.get("operators"), patches),
        *_governor(status.get("governor")),
        *_drift(status.get("latency")),
        *_config(status.get("config")),
        *_daemon(status),
    ]


def _run(status: StatusObject) -> Rows:
    run, leader = status.get("run"), status.get("leader")
    if not run:
        return []
    parts = [f"{run['run_id']}"]
    if run.get("strategy"):
        parts.append(f"{run['strategy']}, seed {run.get('seed')}")
    if (last := run.get("resumed_from")) is not None:
        parts.append(f"resumed at generation {last + 1}")
    rows = [("run", "; ".join(parts))]
    if run.get("memory"):
        rows.append(("memory", f"began with {run['memory']}"))
    if leader and (origin := leader.get("origin")):
        rows.append(("leader", "generation {}, slot {}".format(*origin)))
    return [*rows, ("digest", str(run["digest"])[:16])] if run.get("digest") else rows


def _evaluations(counts: EvaluationsStatus | None) -> Rows:
    if not counts:
        return []
    text = f"{counts['unique']} unique, {counts.get('cache_hits', 0)} from the cache, {counts.get('failed', 0)} failed"
    if counts.get("queued"):
        text += f"; {counts['queued']} waiting"
    rows = [("evaluations", text)]
    if counts.get("dropped"):
        audited = counts.get("audited")
        tested = f"; {counts.get('missed', 0)} of {audited} tested would have mattered" if audited else ""
        rows.append(("", f"{counts['dropped']} candidates given up on a lower rung{tested}"))
    return rows


def _screening(screening: ScreeningStatus | None) -> Rows:
    """The predictor that screens children, once it has predicted something."""
    covered = screening.get("covered") if screening else None
    if not screening or covered is None:
        return []
    text = f"a predictor knows {screening['examples'] + screening['prior']} evaluations; "
    text += f"{100 * covered:.0f} % of its latest {100 * screening['interval']:.0f} % intervals held"
    if screening.get("related"):
        text += f"; another oracle's are followed, rank correlation {screening['related']:.2f}"
    return [("screening", text)]


def _experience(experience: ExperienceStatus | None, leader: LeaderStatus | None) -> Rows:
    """What steps from parents to children came to, the most frequent first."""
    if not experience or not experience["steps"]:
        return []
    lessons = experience.get("lessons") or []
    known = experience.get("lessons_known") or 0
    text = f"{experience['steps']} from parents to children; {known or 'no'} lesson{'' if known == 1 else 's'}"
    metric = (leader.get("metric") if leader else None) or "accuracy"
    shown = ", the most frequent:" if known > len(lessons) else ":" if known else ""
    scale, unit = _unit_of(metric)
    told = [f"{row['about']} {scale * row['gain']:+.2f}" for row in experience.get("strongest") or []]
    beside = [("", f"beside all else: {', '.join(told)} {unit}")] if told else []
    return [("steps", text + shown), *[("", _lesson(lesson, metric)) for lesson in lessons], *beside]


def _lesson(lesson: LessonStatus, metric: str) -> str:
    scale, unit = _unit_of(metric)
    text = f"{lesson['about']}: {lesson['wins']} of {lesson['tries']} gained"
    text += " (mixed)" if lesson["verdict"] == "mixed" else ""
    text += f", {scale * lesson['value_gain']:+.2f} {unit}"
    change_ms = lesson.get("latency_change_ms")
    return text + (f", {change_ms:+.2f} ms" if change_ms is not None else "")


def _unit_of(metric: str) -> tuple[float, str]:
    """What gains of a metric are told in: the factor and the unit."""
    return (100.0, "points") if metric == "accuracy" else (1.0, f"of {metric}")


def _worker(worker: WorkerStatus) -> str:
    text = f"{worker['name']}  {worker['state']}"
    if worker.get("job"):
        text += f" for {worker.get('since_s') or 0:.1f} s"
    text += f"; {worker.get('done', 0)} done"
    busy_share = worker.get("busy_share")
    if busy_share is not None:
        text += f", {100 * busy_share:.0f} % busy"
    text += f", {worker['restarts']} restarts" if worker.get("restarts") else ""
    text += f", on {worker['node']}" if worker.get("node") else ""
    return text + (f"; {worker['says']}" if worker.get("says") else "")


def _cluster(cluster: ClusterStatus | None) -> Rows:
    if not cluster:
        return []
    nodes = cluster["nodes"]
    busy, workers = sum(node["busy"] for node in nodes), sum(node["workers"] for node in nodes)
    text = f"{len(nodes)} nodes, {busy} of {workers} workers evaluate, {cluster.get('queued') or 0} evaluations wait"
    text += f"; {cluster['retried']} given to another worker" if cluster.get("retried") else ""
    text += f"; {cluster['asked_twice']} asked twice" if cluster.get("asked_twice") else ""
    text += f"; connected {cluster['connections']} times" if (cluster.get("connections") or 1) > 1 else ""
    rows = [("cluster", f"lost: {cluster['lost']}" if cluster.get("lost") else text)]
    return rows + [("", _node(node)) for node in nodes]


def _node(node: NodeStatus) -> str:
    text = f"{node['name']}  {node.get('address')}, {node.get('cpus') or 0:g} cores"
    text += f", {node['gpus']:g} GPUs" if node.get("gpus") else ""
    if node.get("refused"):
        return f"{text}; not used: {node['refused']}"
    return f"{text}; {node['busy']} of {node['workers']} workers evaluate"


def _cognition(status: StatusObject) -> Rows:
    cognition, proposals = status.get("cognition"), status.get("proposals")
    rows = []
    if cognition and not proposals:
        rows.append(("model", f"{cognition['state']}: {cognition.get('reason')}"))
    return rows + (_proposals(proposals) if proposals else [])


def _proposals(proposals: ProposalsStatus) -> Rows:
    doing = f" ({model_state(proposals)})" if proposals.get("state") else ""
    counts = f"{proposals['answered']} answered, {proposals['waiting']} waiting"
    counts += f", {proposals.get('fallbacks', 0)} fallbacks"
    text = f"{proposals['model']}{doing}, lag {proposals.get('lag')}: {counts}"
    busy_share, tokens_per_s = proposals.get("busy_share"), proposals.get("tokens_per_s")
    if busy_share is not None:
        text += f"; {100 * busy_share:.0f} % busy"
    if tokens_per_s is not None:
        text += f", {tokens_per_s:.0f} tokens a second"
    text += f", {proposals['restarts']} restarts" if proposals.get("restarts") else ""
    server = proposals.get("server")
    more = _server(server) if server else _learning(proposals.get("learning"))
    return [("proposals", text), *more, *_prompts(proposals.get("prompts"))]


def _prompts(prompts: dict[str, PromptStatus] | None) -> Rows:
    """A row for each strategy of prompt: how many replies that joined held a patch that was chosen and won."""
    rows: Rows = []
    for name, row in (prompts or {}).items():
        low, high = 100 * row["win_rate_low"], 100 * row["win_rate_high"]
        share = 100 * row["won"] / row["joined"] if row["joined"] else 0.0
        text = f"{name}: {row['won']} of {row['joined']} replies won: {share:.0f} % ({low:.0f} to {high:.0f})"
        rows.append(("" if rows else "prompts", text))
    return rows


def _server(server: ServerStatus) -> Rows:
    text = f"{server['run_in']:,} tokens read and {server['run_out']:,} written in this run"
    cost = server.get("run_cost")
    text += f", {cost_words(cost)}" if cost is not None else ""
    held = "takes the schema of legal patches" if server.get("constrained") else "takes no schema"
    return [("server", f"{text}; it {held}")]


def _learning(learning: LearningStatus | None) -> Rows:
    if not learning:
        return []
    adapter, swap = learning.get("adapter"), learning.get("swap")
    text = f"{adapter[:12]}, since generation {learning.get('since_generation')}" if adapter else "none yet"
    text += f"; trainings: {learning.get('accepted', 0)} accepted, {learning.get('rejected', 0)} rejected"
    text += f", {learning.get('failed', 0)} failed"
    if swap is not None:
        text += f"; one is under way for generation {swap}"
    else:
        after = f" of {learning['train_after']}" if learning.get("train_after") else ""
        text += f"; {learning.get('unconsumed', 0)}{after} {learning.get('lessons') or 'successes'} to learn from"
    if learning.get("possible") is not None:
        text += (
            f"; room for {learning['possible']} in all" if learning["possible"] else "; no training fits into this run"
        )
    return [("adapter", text), *_inherited(learning)]


_TRIALS = {
    "waiting": "not in force before the run's first lessons have judged it",
    "accepted": "let through by the run's first lessons",
    "rejected": "rejected by the run's first lessons",
    "failed": "left out: it could not be tried; the log says why",
}


def _inherited(learning: LearningStatus) -> Rows:
    """What the run began with, and why other adapters were left out."""
    inherited, trial = learning.get("inherited"), learning.get("trial")
    told = [f"{inherited}; {_TRIALS.get(str(trial), trial)}"] if inherited else []
    told += [f"not {why}" for why in learning.get("left_out") or []]
    return [("" if n else "inherited", text) for n, text in enumerate(told)]


def _patches(patches: PatchesStatus | None, leader: LeaderStatus | None) -> Rows:
    """What the search made of the language model's patches."""
    if not patches:
        return []
    text = f"{patches['picked']} of {patches['joined']} picked ({100 * patches['share_picked']:.0f} %), "
    text += f"{patches['picked_won']} beat the parent; led to {patches['led_to']}, {patches['led_to_won']} beat it"
    if (greedy := patches.get("greedy_share")) is not None:
        text += f"; {100 * greedy:.0f} % of the picked are the greedy rule's"
    if (seconds := patches.get("seconds_a_pick")) is not None:
        text += f"; {seconds:.2f} s of the model each"
    metric = (leader.get("metric") if leader else None) or "accuracy"
    scale, unit = _unit_of(metric)
    gain, low, high = patches.get("gain"), patches.get("gain_low"), patches.get("gain_high")
    against = f"{patches['pairs'] or 'no'} pair{'' if patches['pairs'] == 1 else 's'} evaluated"
    if gain is not None and low is not None and high is not None:
        against = f"{scale * gain:+.2f} {unit} ({scale * low:+.2f} to {scale * high:+.2f}, {patches['pairs']} pairs)"
    return [("patches", text), ("", f"against what would have been asked without them: {against}")]


def _operators(operators: dict[str, OperatorStatus] | None, leader: LeaderStatus | None) -> Rows:
    """A row for each operator's credit, the most winning first."""
    counted = [(name, row) for name, row in (operators or {}).items() if row["proposals"]]
    metric = (leader.get("metric") if leader else None) or "accuracy"
    scale, unit = _unit_of(metric)
    ranked = sorted(counted, key=lambda pair: -pair[1]["win_rate"])
    return [("credit" if i == 0 else "", _credit(name, row, scale, unit)) for i, (name, row) in enumerate(ranked)]


def _credit(name: str, row: OperatorStatus, scale: float, unit: str) -> str:
    """Wins over the parent with their interval, and what a proposal gains on average."""
    text = f"{name:<9} {row['wins']} of {row['proposals']} beat the parent: {100 * row['win_rate']:.0f} %"
    text += f" ({100 * row['win_rate_low']:.0f} to {100 * row['win_rate_high']:.0f})"
    text += f", {scale * row['mean_gain']:.3f} {unit} gained a proposal"
    seconds = row.get("seconds")
    if seconds:
        text += f" of {seconds / row['proposals']:.2f} s"
    if (share := row.get("share")) is not None:
        text += f"; {100 * share:.0f} % of the pool"
    if row["valid"] < row["proposals"]:
        text += f"; {row['proposals'] - row['valid']} not valid"
    return text + (f"; {row['repeats']} repeats" if row.get("repeats") else "")


def _leaders(operators: dict[str, OperatorStatus] | None, patches: PatchesStatus | None) -> Rows:
    """Who brought the leaders, most first."""
    counts = [(row.get("leaders") or 0, name) for name, row in (operators or {}).items()]
    told = [f"{name} {count}" for count, name in sorted(counts, key=lambda pair: (-pair[0], pair[1])) if count]
    of_patches = patches.get("leaders") if patches else None
    more = f"; {of_patches} of them came of the model's patches" if of_patches is not None else ""
    return [("new leaders", ", ".join(told) + more)] if told else []


def _governor(governor: GovernorStatus | None) -> Rows:
    """What the machine says of itself, in the units of the governor's keys."""
    if not governor:
        return []
    readings = (governor.get("readings") or {}).items()
    parts = [f"{name} {_reading(name, value)}" for name, value in readings if value is not None]
    return [("governor", ", ".join(parts))] if parts else []


def _reading(name: str, value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if name.endswith("_bytes") else f"{value:.2f}"


def _drift(drift: LatencyStatus | None) -> Rows:
    if not drift:
        return []
    ratios = {"networks": drift.get("networks"), "operators": drift.get("operators")}
    told = [f"{name} take {ratio:.3f} of the table's times" for name, ratio in ratios.items() if ratio is not None]
    return [("table check", "; ".join([drift["verdict"], *told]))]


def _config(config: ConfigStatus | None) -> Rows:
    if not config:
        return []
    return [("config", f"{config.get('file') or 'defaults'}, revision {config.get('revision', 0)}")]


def _daemon(status: StatusObject) -> Rows:
    parts = [f"riwoa {status['version']}"] if status.get("version") else []
    if status.get("alive") and status.get("pid"):
        parts.append(f"process {status['pid']}")
    if status.get("socket"):
        parts.append(f"socket {status['socket']}")
    return [("daemon", ", ".join(parts))] if parts else []
