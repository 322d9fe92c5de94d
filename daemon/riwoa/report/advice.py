"""What to do next, in sentences that follow from the run's own numbers; most important first."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from riwoa.operators import operator_words
from riwoa.report import words
from riwoa.report.facts import Z95, OperatorCredit, Report, Winner
from riwoa.text import duration

_IDLE_SHARE, _IDLE_LEAST = 0.3, 50  # of the evaluations at the end that brought nothing
_ROOM = 1.15  # of where it stopped improving, to be safe
_LATE_SHARE = 0.1
_MATTERS = 0.15  # share of the spread from which a gene's range is worth widening
_DECIDES = 0.5  # share from which a gene is worth fixing
_WIDE = 0.10  # an interval; a quiet machine's are half of this
_FAILING = 0.05
_COARSE = 0.01  # a standard error of an accuracy


def advice_of(report: Report) -> tuple[str, ...]:
    """Sentences; none where the numbers advise nothing."""
    asked: tuple[Callable[[Report], str], ...] = (
        _limits,
        _drift,
        _deploy,
        _length,
        _model,
        _range,
        _pictures,
        _interval,
        _failures,
    )
    return tuple(filter(None, (ask(report) for ask in asked)))


def findings_of(report: Report) -> tuple[str, ...]:
    """Sentences on how the search went that ask for nothing."""
    return tuple(filter(None, (_random(report),)))


def commands_of(report: Report) -> tuple[str, ...]:
    """How to get at it, and to do it again: each command with what it is for."""
    run, other = f"--run {report.run_id}", report.next_choice
    return (
        f"riwoactl export {run}  # the winner's files",
        *((f"riwoactl export {run} --arch {other.place} --out DIR  # the next choice's",) if other is not None else ()),
        f"riwoactl pareto {run}  # the best within every latency",
        "riwoactl verify  # whether the journal is whole, and its digest",
        f"riwoad --foreground --new-run --set run.seed={report.provenance.get('seed', 0)}"
        "  # the same search again, with the same riwoa.toml, latency table and versions",
        "riwoactl verify --against OTHER/journal.db  # whether the run in the state directory OTHER went the same way",
    )


def _limits(report: Report) -> str:
    if report.winner is None or report.winner.within:
        return ""
    return "No network kept every limit; this is the nearest. Loosen the target, or allow a smaller network."


def _drift(report: Report) -> str:
    drifted = [check for check in report.table.checks if check.verdict == "drifted"]
    if not drifted:
        return ""
    return (
        f"The device ran {drifted[-1].ratio:.2f} times as long as its latency table says: build it anew with "
        "`riwoactl lut build` before these latencies are relied on."
    )


def _deploy(report: Report) -> str:
    """The one to deploy, and the one where it does not serve."""
    w, other = report.winner, report.next_choice
    if w is None or w.latency_ms is None or other is None:
        return ""
    saved = 100 * (1 - other.latency_ms / w.latency_ms)
    unless = (
        f"{saved:.0f} % less time is worth up to {words.worst(other)} of accuracy (95 %, on the same test pictures)"
    )
    if _may_miss(report, w) and words.limit_is_sure(report, other.latency_ms, other.measured_high_ms):
        unless = f"the limit must hold in every process, or {unless}"
    clock = "not timed" if other.measured_ms is None else f"{words.milliseconds(other.measured_ms)} by the clock"
    behind = words.points(w.validation.value - other.value.value)
    return (
        f"Deploy network {w.place}, unless {unless}: then network {other.place}, "
        f"{words.milliseconds(other.latency_ms)} by the latency table ({clock}). On validation, which chose the "
        f"winner, it is {behind} behind. `riwoactl export --run {report.run_id} --arch {other.place} --out DIR` "
        "writes it."
    )


def _may_miss(report: Report, winner: Winner) -> bool:
    high_ms = None if winner.timed is None else winner.timed.high_ms
    return not words.limit_is_sure(report, winner.latency_ms or 0.0, high_ms)


def _length(report: Report) -> str:
    total = report.cost.evaluations
    if not report.steps or total < _IDLE_LEAST or report.aim.whole_front:
        return ""
    last = report.steps[-1].evaluations
    needed = max(last, report.next_choice.found_after if report.next_choice else 0)
    if total - needed >= max(_IDLE_LEAST, _IDLE_SHARE * total):
        enough = 10 * round(needed * _ROOM / 10 + 0.5)
        return (
            f"The search had converged: the last {total - last:,} of {total:,} evaluations found nothing better"
            f"{_neighbours(report)}. Next time {enough:,} are enough (`run.evaluations = {enough}`)."
        )
    if total - last <= _LATE_SHARE * total:
        risen = _late_rise(report)
        if risen:
            return (
                f"It was still improving when this was written: the last quarter brought {risen}. "
                "A longer search may find more."
            )
    return ""


def _neighbours(report: Report) -> str:
    """What the neighbours of the best say of that it is the best; "" where they were not tried, or one was better."""
    polish = _credit(report, "polish")
    if polish is None or polish.wins:
        return ""
    return f", not even among {polish.proposals:,} neighbours of the best that were tried at the end"


def _late_rise(report: Report) -> str:
    """What the last quarter of the evaluations brought; "" where that is nothing."""
    late = 0.75 * report.cost.evaluations
    risen = sum(b.value - a.value for a, b in pairwise(report.steps) if b.evaluations > late and a.within == b.within)
    return words.difference(report.aim, risen) if abs(risen) > 0 else ""


def _range(report: Report) -> str:
    for gene in report.genes:
        explains = f"{gene.gene} explains {100 * gene.share:.0f} % of how {report.aim.metric} differs over the space"
        if gene.share >= _MATTERS and gene.at_end:
            return f"{explains}, and the winner has its {gene.at_end} choice ({gene.chosen}): consider a larger range."
        if gene.share >= _DECIDES:
            return (
                f"{explains}, and the winner has {gene.chosen}: a space in which that is the only choice "
                "spends every evaluation on what is left."
            )
    return ""


def _pictures(report: Report) -> str:
    w = report.winner
    if w is None or not report.aim.is_accuracy or w.validation.error is None or w.validation.error < _COARSE:
        return ""
    if w.validation.at_most:
        return ""
    return (
        f"The validation accuracy is known to ± {100 * Z95 * w.validation.error:.1f} points only (95 %): more "
        "validation pictures would choose more surely."
    )


def _interval(report: Report) -> str:
    interval = report.table.interval
    if interval is None or interval <= _WIDE:
        return ""
    return f"The latency table is good to ± {100 * interval:.0f} %: `riwoactl lut build` on an idle machine narrows it."


def _failures(report: Report) -> str:
    c = report.cost
    if c.evaluations == 0 or c.failures <= _FAILING * c.evaluations:
        return ""
    return (
        f"{c.failures:,} evaluations failed ({100 * c.failures / c.evaluations:.0f} %): the log and "
        f"`riwoactl events --run {report.run_id}` say why."
    )


def _model(report: Report) -> str:
    """Whether the language model's proposals pay, by random changes in its place and by the other operators."""
    model, chance = _credit(report, "semantic"), _credit(report, "placebo")
    if model is None:
        return ""
    others = [c for c in report.operators if c.operator not in ("semantic", "placebo") and c.proposals >= 10]
    best = max(others, key=lambda c: c.win_rate or 0.0, default=None)
    said = f"The language model's proposals beat their parents in {_rate(model)}"
    if report.learning.writing_s >= 1:
        said = (
            f"The language model wrote for {duration(report.learning.writing_s)}; its proposals beat their parents in "
        )
        said += _rate(model)
    without = 'a run without it (`cognition.provider = "none"`) may be as good'
    if best is not None and best.low > model.high:
        return f"{said}; those of the kind '{operator_words(best.operator)}' do in {_rate(best)}: {without}."
    more = "a larger `search.placebo_share` would tell"
    if chance is None:
        return f"{said}; nothing was left to chance in its place, so whether that is much is not known: {more}."
    versus = f"random changes in its place in {_rate(chance)}"
    if model.low > chance.high:
        return f"{said}, {versus}: it helped."
    if chance.low > model.high:
        return f"{said}, {versus}, which is more: {without}."
    return f"{said}, {versus}. Whether it helps is not known: {more}; {without}."


def _credit(report: Report, operator: str) -> OperatorCredit | None:
    """What an operator brought; None where it proposed nothing."""
    return next((c for c in report.operators if c.operator == operator and c.proposals), None)


def _rate(credit: OperatorCredit) -> str:
    rate = words.percent(credit.win_rate or 0.0)
    return f"{rate} of {credit.proposals:,} cases (95 %: {words.percent(credit.low)} to {words.percent(credit.high)})"


def _random(report: Report) -> str:
    s, w = report.shadow, report.winner
    if w is None or not s.middle or not w.within or s.evaluations[-1] < report.cost.evaluations:
        return ""
    a = report.aim
    low, high = words.value(a, s.low[-1]), words.value(a, s.high[-1])
    told = (
        f"Random search was not run. By {s.source}, its best after {s.evaluations[-1]:,} evaluations within the limit "
        f"would be about {words.value(a, s.middle[-1])} (95 %: {low} to {high})"
    )
    better = w.validation.value < s.low[-1] if a.lowered else w.validation.value > s.high[-1]
    beside = "better than that" if better else "no better than that"
    return f"{told}; the winner's {words.value(a, w.validation.value)} is {beside}."
