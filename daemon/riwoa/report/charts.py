"""The charts of a report, each from its facts alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from riwoa.operators import operator_words
from riwoa.report import words
from riwoa.report.facts import Layer, OperatorCredit, Report, Step, Training
from riwoa.report.svg import Axis, Bar, Plot, plain, strip
from riwoa.text import duration

_WORDS = {"training": "training", "reload": "reload", "incident": "incident", "end": "end"}
_SHADES = 5  # of a map's dots


def _values(report: Report, values: Sequence[float]) -> Axis:
    if report.aim.is_accuracy:
        return Axis.around("accuracy on validation, %", values, lambda v: f"{100 * v:.4g}")
    return Axis.around(report.aim.metric, values)


def best_over_evaluations(report: Report) -> str:
    """The best so far and random search's shadow over evaluations; "" for nothing to show."""
    total = max(1, report.cost.evaluations)
    shadow = report.shadow
    seen = [s.value for s in report.steps]
    shown = [*seen, *shadow.low[1:], *shadow.high]
    if not report.steps:
        return ""
    plot = Plot("best so far over evaluations", Axis("evaluations", 0, total), _values(report, shown))
    band = list(zip(shadow.evaluations, shadow.low, shadow.high, strict=True))
    if band:
        plot.band(band, "shadow", "random search: where its best would be in 8 of 10 searches")
        plot.line(list(zip(shadow.evaluations, shadow.middle, strict=True)), "shadow", "random search, median")
    _best(plot, report, lambda s: s.evaluations, total)
    for incident in report.incidents:
        plot.upright(incident.evaluations, incident.kind, f"{incident.words} (evaluation {incident.evaluations:,})")
    return str(plot)


def best_over_time(report: Report) -> str:
    """The best so far over the time that the search worked; "" for nothing to show."""
    total = report.cost.working_s
    if not report.steps or total <= 0:
        return ""
    unit, name = (3600.0, "hours") if total >= 7200 else (60.0, "minutes") if total >= 120 else (1.0, "seconds")
    x = Axis(f"{name} of work", 0, total / unit)
    plot = Plot("best so far over time", x, _values(report, [s.value for s in report.steps]))
    _best(plot, report, lambda s: s.seconds / unit, total / unit)
    for incident in report.incidents:
        plot.upright(incident.seconds / unit, incident.kind, f"{incident.words} (after {duration(incident.seconds)})")
    return str(plot)


def _best(plot: Plot, report: Report, across: Callable[[Step], float], end: float) -> None:
    points = [(across(step), step.value) for step in report.steps]
    plot.line([*points, (end, points[-1][1])], "best", stepped=True)
    for step in report.steps:
        kept = "" if step.within else ", beyond the limits"
        who = operator_words(step.operator)
        told = f"{words.value(report.aim, step.value)}{kept} by {who}, {step.evaluations:,} evaluations"
        plot.dot(across(step), step.value, "best" if step.within else "beyond", told)


def front(report: Report) -> str:
    """The front with error bars, random search's shadow and what else was evaluated; "" where nothing has a latency."""
    points = [p for p in report.front if p.latency_ms]
    if not points:
        return ""
    cloud = [(ms, v) for ms, v in report.cloud.points if ms > 0]
    errors = [p.value.error or 0.0 for p in points]
    ends = [p.value.value + s * e for p, e in zip(points, errors, strict=True) for s in (-1, 1)]
    target = [report.aim.target_ms] if report.aim.target_ms is not None else []
    x = Axis.around("latency, ms", [*(ms for ms, _ in cloud), *(p.latency_ms for p in points), *target])
    plot = Plot("the front", x, _values(report, [*ends, *(v for _, v in cloud)]))
    for ms, value in cloud:
        plot.dot(ms, value, "cloud", radius=1.2)
    plot.line([(ms, v) for ms, v in report.shadow.front if ms <= x.high], "shadow", "random search, median")
    if report.aim.target_ms is not None:
        plot.upright(report.aim.target_ms, "target", f"target: {words.milliseconds(report.aim.target_ms)}")
    plot.line([(p.latency_ms, p.value.value) for p in points], "front", stepped=True)
    for p, error in zip(points, errors, strict=True):
        if error and (len(points) <= 40 or p.is_winner or p.alike):
            plot.whisker(p.latency_ms, p.value.value - error, p.value.value + error, "front")
    for p in sorted(points, key=lambda p: p.is_winner):
        kind = "winner" if p.is_winner else "alike" if p.alike else "front"
        told = f"{p.place}: {words.judged(report.aim, p.value)} at {words.milliseconds(p.latency_ms)}"
        told += "; the winner" if p.is_winner else "; cannot be told from the winner" if p.alike else ""
        plot.dot(p.latency_ms, p.value.value, kind, told, radius=5 if p.is_winner else 3)
    return str(plot)


def layers(found: Sequence[Layer]) -> str:
    """A network's layers: as wide as they take time, as high as their expansion; "" where they are not known."""
    if not found:
        return ""
    most = max((layer.expand or 0) for layer in found) or 1
    bars = []
    for layer in found:
        what = "" if layer.kernel is None else f", kernel {layer.kernel}, expansion {layer.expand}"
        told = f"{layer.name}: {layer.ms:.4f} ms{what}"
        kind = "rest" if layer.kernel is None else f"kernel{layer.kernel}"
        bars.append(Bar(max(0.0, layer.ms), (layer.expand or most) / most, layer.stage, told, kind))
    return strip("the winner's layers, as wide as they take time", bars)


def operators(found: Sequence[OperatorCredit]) -> str:
    """How often each operator's children beat their parents, with intervals; "" for none."""
    rows = [c for c in found if c.proposals and c.win_rate is not None]
    if not rows:
        return ""
    x = Axis.around("share of proposals fitter than their parent, %", [0.0, *(100 * c.high for c in rows)])
    plot = Plot("win rates by operator", Axis(x.label, 0.0, x.high), Axis("", -0.5, len(rows) - 0.5), framed=False)
    plot.frame_rows([operator_words(credit.operator) for credit in rows])
    for row, c in enumerate(reversed(rows)):
        low, high, rate = 100 * c.low, 100 * c.high, 100 * (c.win_rate or 0.0)
        told = (
            f"{operator_words(c.operator)}: {c.wins:,} of {c.proposals:,} won, {rate:.1f} % ({low:.1f} to {high:.1f})"
        )
        kind = "model" if c.operator == "semantic" else "operator"
        plot.reach(low, high, row, kind)
        plot.dot(rate, row, kind, told, radius=4.5)
    return str(plot)


def losses(trainings: Sequence[Training]) -> str:
    """The loss of every training, one after another; "" for none."""
    told = [t for t in trainings if t.losses]
    if not told:
        return ""
    everything = [loss for t in told for loss in t.losses]
    x = Axis("training steps, one training after another", 0, max(2, len(everything)))
    plot, at = Plot("training loss", x, Axis.around("loss", everything)), 0
    for training in told:
        kind = "best" if training.accepted else "beyond"
        plot.line([(at + i, loss) for i, loss in enumerate(training.losses)], kind)
        at += len(training.losses)
        held = "" if training.held_out_after is None else f"held-out loss {training.held_out_after:.3f}; "
        verdict = "accepted" if training.accepted else "rejected"
        plot.upright(at, "training", f"generation {training.generation}: {held}{verdict}")
    return str(plot)


def visited(report: Report) -> str:
    """The map of what was visited, the better the darker; "" for none."""
    v = report.visited
    if v is None:
        return ""
    first, second = (f"component {n}: {words.percent(share)} of the spread" for n, share in enumerate(v.explained, 1))
    x = Axis.around(first, [p[0] for p in v.points])
    plot = Plot("what was visited", x, Axis.around(second, [p[1] for p in v.points], lambda _: ""))
    ranked = sorted(range(len(v.points)), key=lambda i: v.points[i][2] * (-1 if report.aim.lowered else 1))
    for rank, index in enumerate(ranked):
        px, py, value, generation = v.points[index]
        shade = rank * _SHADES // len(ranked)
        plot.dot(px, py, f"shade{shade}", f"{words.value(report.aim, value)}, generation {generation}", radius=2)
    if v.winner is not None:
        plot.dot(*v.winner, "winner", "the winner", radius=5)
    return str(plot)


def genes(report: Report) -> str:
    """How much of the spread each gene explains; "" where that is not known."""
    if not report.genes:
        return ""
    rows = report.genes
    x = Axis("share of what the value varies over the space, %", 0.0, 105 * max(g.share for g in rows) or 1.0, plain)
    plot = Plot("genes that matter", x, Axis("", -0.5, len(rows) - 0.5), framed=False)
    plot.frame_rows([g.gene for g in rows])
    for row, g in enumerate(reversed(rows)):
        end = f", its {g.at_end}" if g.at_end else ""
        plot.reach(0.0, 100 * g.share, row, "gene")
        told = f"{g.gene}: {words.percent(g.share)}; the winner has {g.chosen}{end}"
        plot.dot(100 * g.share, row, "gene", told, radius=4)
    return str(plot)
