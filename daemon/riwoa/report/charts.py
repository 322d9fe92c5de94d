"""The charts of a report, each from its facts alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from riwoa.operators import operator_words
from riwoa.report import words
from riwoa.report.facts import FrontPoint, Layer, OperatorCredit, Report, Step, Training
from riwoa.report.svg import Axis, Bar, Plot, plain, strip
from riwoa.text import duration

_SHADES = 5  # of a map's dots
_BEGIN = 0.05  # of the evaluations: what was best before that is not drawn, for it presses the rest together
_BETTER = 0.75  # of the front is drawn
_LEAST_SHARE = 0.01  # of a gene that is worth a bar


def _values(report: Report, values: Sequence[float]) -> Axis:
    if report.aim.is_accuracy:
        return Axis.around("accuracy on validation, %", values, lambda v: f"{100 * v:.4g}")
    return Axis.around(report.aim.metric, values)


def best_over_evaluations(report: Report) -> str:
    """The best so far and random search's shadow over evaluations; "" for nothing to show."""
    total, shadow = max(1, report.cost.evaluations), report.shadow
    if not report.steps:
        return ""
    drawn = [
        random
        for random in zip(shadow.evaluations, shadow.low, shadow.middle, shadow.high, strict=True)
        if random[0] >= _BEGIN * total
    ]
    ends = [end for _, low, _, high in drawn for end in (low, high)]
    y = _upper(report, ends)
    plot = Plot("best so far over evaluations", Axis("evaluations", 0, total), y)
    if drawn:
        plot.band([(n, low, high) for n, low, _, high in drawn], "shadow", "random search, 95 %")
        plot.line([(n, middle) for n, _, middle, _ in drawn], "shadow", "random search, median")
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
    x = Axis(f"{name} of searching", 0, total / unit)
    plot = Plot("best so far over time", x, _upper(report))
    _best(plot, report, lambda s: s.seconds / unit, total / unit)
    for incident in report.incidents:
        plot.upright(incident.seconds / unit, incident.kind, f"{incident.words} (after {duration(incident.seconds)})")
    return str(plot)


def _upper(report: Report, besides: Sequence[float] = ()) -> Axis:
    """An axis of values from where the search stood when it had begun: what came before is off the picture."""
    begin = _BEGIN * report.cost.evaluations
    begun = [s.value for s in report.steps if s.evaluations <= begin][-1:]
    return _values(report, [*begun, *(s.value for s in report.steps if s.evaluations > begin), *besides])


def _best(plot: Plot, report: Report, across: Callable[[Step], float], end: float) -> None:
    steps = [s for s in report.steps if plot.shows(s.value)]
    points = [(across(step), step.value) for step in steps]
    plot.line([*points, (end, points[-1][1])], "best", stepped=True)
    for step in steps:
        kept = "" if step.within else ", beyond the limits"
        who = operator_words(step.operator)
        told = f"{words.value(report.aim, step.value)}{kept} by {who}, {step.evaluations:,} evaluations"
        plot.dot(across(step), step.value, "best" if step.within else "beyond", told)
    plot.note(end, points[-1][1], words.value(report.aim, points[-1][1]), above=-14 if report.aim.is_accuracy else 7)


def front(report: Report) -> str:
    """The front with error bars, random search's shadow and what else was evaluated; "" where nothing has a latency.

    Only the better part is drawn, for the worst would press what people choose among into a line.
    """
    shown = _better_part(report, [p for p in report.front if p.latency_ms])
    if not shown:
        return ""
    target = [report.aim.target_ms] if report.aim.target_ms is not None else []
    x = Axis.around("latency by the table, ms", [*(p.latency_ms for p in shown), *target])
    best = shown[0].value
    y = _values(report, [*(p.value.value for p in shown), *(best.interval or ())])
    shown.sort(key=lambda p: p.latency_ms)
    plot = Plot("the front", x, y)
    for ms, value in report.cloud.points:
        if x.low <= ms <= x.high and y.low <= value <= y.high:
            plot.dot(ms, value, "cloud", radius=1.4)
    random = [(ms, v) for ms, v in report.shadow.front if x.low <= ms <= x.high and y.low <= v <= y.high]
    plot.line(random, "shadow", "random search, median")
    if report.aim.target_ms is not None:
        limit = f"limit {words.milliseconds(report.aim.target_ms)}"
        plot.upright(report.aim.target_ms, "target", limit)
        plot.label_upright(report.aim.target_ms, limit)
    plot.line([(p.latency_ms, p.value.value) for p in shown], "front", stepped=True)
    for p in shown:
        if p.value.interval and (len(shown) <= 40 or p.is_winner or p.alike):
            plot.whisker(p.latency_ms, *p.value.interval, "front")
    for p in sorted(shown, key=lambda p: p.is_winner):
        _front_network(plot, report, p)
    return str(plot)


def _front_network(plot: Plot, report: Report, p: FrontPoint) -> None:
    told = f"{p.place}: {words.judged(report.aim, p.value)} at {words.milliseconds(p.latency_ms)}"
    if p.is_winner:
        plot.sign(p.latency_ms, p.value.value, "winner", f"{told}; the winner", radius=6)
    elif p.alike:
        plot.sign(p.latency_ms, p.value.value, "alike", f"{told}; cannot be told from the winner", radius=3)
    else:
        plot.dot(p.latency_ms, p.value.value, "front", told, radius=3)
    if p == report.next_choice:
        px, py = plot.at(p.latency_ms, p.value.value)
        plot.text(px - 7, py - 7, p.place, "end", "label")


def _better_part(report: Report, points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The front but for the worst quarter of its networks."""
    ordered = sorted(points, key=lambda p: p.value.value, reverse=not report.aim.lowered)
    return ordered[: max(2, math.ceil(_BETTER * len(ordered)))]


def against_winner(report: Report) -> str:
    """How far what cannot be told from the winner is from it, with 95 % intervals; "" where that is not known."""
    rows = [p for p in report.alike if p.behind is not None and p.less is not None]
    if not rows or not report.aim.is_accuracy:
        return ""
    ends = [100 * end for p in rows for end in p.behind or ()]
    on = "test" if words.tested(report) else "validation"
    x = Axis.around(f"points against the winner on {on}", [0.0, *ends])
    plot = Plot("against the winner", x, Axis("", -0.5, len(rows) - 0.5), framed=False)
    plot.frame_rows([f"{p.place} · {words.milliseconds(p.latency_ms)}" for p in rows])
    plot.upright(0.0, "target", "the winner")
    plot.label_upright(0.0, "as good as the winner")
    for row, p in enumerate(reversed(rows)):
        low, high = p.behind or (0.0, 0.0)
        plot.reach(100 * low, 100 * high, row, "alike")
        told = f"{p.place}: {words.difference(report.aim, p.less or 0.0, p.behind)}"
        plot.sign(100 * (p.less or 0.0), row, "alike", told, radius=4)
    return str(plot)


def layers(found: Sequence[Layer]) -> str:
    """A network's layers, as wide as they take time; "" where they are not known."""
    bars = []
    for layer in found:
        what = "" if layer.kernel is None else f", kernel {layer.kernel}, expansion {layer.expand}"
        kind = "rest" if layer.kernel is None else f"kernel{layer.kernel}"
        bars.append(Bar(max(0.0, layer.ms), layer.stage, f"{layer.name}: {layer.ms:.4f} ms{what}", kind))
    return strip("the winner's layers, as wide as they take time", bars) if bars else ""


def operators(found: Sequence[OperatorCredit]) -> str:
    """How often each operator's children beat their parents, with intervals; "" for none."""
    rows = [c for c in found if c.proposals and c.win_rate is not None]
    if not rows:
        return ""
    x = Axis.around("fitter than what it changed, % of proposals", [0.0, *(100 * c.high for c in rows)])
    plot = Plot("win rates by operator", Axis(x.label, 0.0, x.high), Axis("", -0.5, len(rows) - 0.5), framed=False)
    plot.frame_rows([operator_words(credit.operator) for credit in rows])
    for row, c in enumerate(reversed(rows)):
        low, high, rate = 100 * c.low, 100 * c.high, 100 * (c.win_rate or 0.0)
        told = (
            f"{operator_words(c.operator)}: {c.wins:,} of {c.proposals:,} won, {rate:.1f} % ({low:.1f} to {high:.1f})"
        )
        kind = "model" if c.operator == "semantic" else "operator"
        plot.reach(low, high, row, kind)
        if kind == "model":
            plot.sign(rate, row, kind, told)
        else:
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
    first, second = (
        f"{name}: {words.percent(share)} of how they differ"
        for name, share in zip(("across", "upwards"), v.explained, strict=True)
    )
    x = Axis.around(first, [p[0] for p in v.points], lambda _: "")
    plot = Plot("what was visited", x, Axis.around(second, [p[1] for p in v.points], lambda _: ""))
    ranked = sorted(range(len(v.points)), key=lambda i: v.points[i][2] * (-1 if report.aim.lowered else 1))
    for rank, index in enumerate(ranked):
        px, py, value, generation = v.points[index]
        shade = rank * _SHADES // len(ranked)
        plot.dot(px, py, f"shade{shade}", f"{words.value(report.aim, value)}, generation {generation}", radius=2)
    if v.winner is not None:
        plot.sign(*v.winner, "winner", "the winner", radius=6)
    return str(plot)


def genes(report: Report) -> str:
    """How much of the spread each gene explains; "" where that is not known."""
    rows = [g for g in report.genes if g.share >= _LEAST_SHARE]
    if not rows:
        return ""
    x = Axis(f"of how {report.aim.metric} differs over the space, %", 0.0, 118 * max(g.share for g in rows), plain)
    plot = Plot("genes that matter", x, Axis("", -0.5, len(rows) - 0.5), framed=False)
    plot.frame_rows([g.gene for g in rows])
    for row, g in enumerate(reversed(rows)):
        end = f", its {g.at_end}" if g.at_end else ""
        plot.reach(0.0, 100 * g.share, row, "gene")
        told = f"{g.gene}: {words.percent(g.share)}; the winner has {g.chosen}{end}"
        plot.dot(100 * g.share, row, "gene", told, radius=4)
        px, py = plot.at(100 * g.share, row)
        plot.text(px + 8, py + 4, words.percent(g.share), kind="label")
    return str(plot)
