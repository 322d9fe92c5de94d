"""What to do next, in sentences that follow from the run's own numbers; most important first."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from riwoa.operators import operator_words
from riwoa.report import words
from riwoa.report.facts import OperatorCredit, Report

_IDLE_SHARE, _IDLE_LEAST = 0.3, 50  # of the evaluations at the end that brought nothing
_ROOM = 1.15  # of where it stopped improving, to be safe
_LATE_SHARE = 0.1
_MATTERS = 0.15  # share of the spread from which a gene's range is worth widening
_WIDE = 0.10  # an interval; a quiet machine's are half of this
_FAILING = 0.05
_COARSE = 0.01  # a standard error of an accuracy
_TRUSTED_ERRORS = 2.0


def advice_of(report: Report) -> tuple[str, ...]:
    """Sentences; none where the numbers advise nothing."""
    asked: tuple[Callable[[Report], str], ...] = (
        _limits,
        _drift,
        _believe_test,
        _faster,
        _length,
        _range,
        _pictures,
        _interval,
        _failures,
        _without_model,
    )
    return tuple(filter(None, (ask(report) for ask in asked)))


def findings_of(report: Report) -> tuple[str, ...]:
    """Sentences on how the search went that ask for nothing."""
    return tuple(filter(None, (_model(report), _random(report))))


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


def _believe_test(report: Report) -> str:
    w = report.winner
    if w is None or w.test is None or w.validation.error is None or not report.aim.is_accuracy:
        return ""
    gap = w.validation.value - w.test.value
    error = ((w.test.error or 0.0) ** 2 + w.validation.error**2) ** 0.5
    if gap <= _TRUSTED_ERRORS * error:
        return ""
    return (
        f"Expect the test figure: validation is {100 * gap:.1f} points higher, because the winner is the best of "
        f"{report.cost.evaluations:,} tries on it."
    )


def _faster(report: Report) -> str:
    w = report.winner
    if w is None or w.latency_ms is None:
        return ""
    fastest = min((p for p in report.alike if p.within), key=lambda p: p.latency_ms, default=None)
    if fastest is None or fastest.latency_ms >= w.latency_ms:
        return ""
    saved = 1 - fastest.latency_ms / w.latency_ms
    return (
        f"A network that cannot be told from the winner {words.basis(report)} takes "
        f"{words.milliseconds(fastest.latency_ms)} by the latency table, {100 * saved:.0f} % less than the winner's "
        f"{words.milliseconds(w.latency_ms)} there: `riwoactl export --run {report.run_id} --arch {fastest.place}` "
        f"writes it ({words.place(fastest.place)})."
    )


def _length(report: Report) -> str:
    total = report.cost.evaluations
    if not report.steps or total < _IDLE_LEAST:
        return ""
    last = report.steps[-1].evaluations
    idle = total - last
    if idle >= max(_IDLE_LEAST, _IDLE_SHARE * total):
        enough = 10 * round(last * _ROOM / 10 + 0.5)
        return (
            f"Nothing has improved for the last {idle:,} of {total:,} evaluations{_late_equals(report)}: for the "
            f"best value alone {enough:,} are enough next time (`run.evaluations = {enough}`)."
        )
    if idle <= _LATE_SHARE * total:
        risen = _late_rise(report)
        if risen:
            return (
                f"It was still improving when this was written: the last quarter brought {risen}. "
                "A longer search may find more."
            )
    return ""


def _late_equals(report: Report) -> str:
    """What came after the best without beating it: networks as good and faster; "" where there are none."""
    w = report.winner
    if w is None or w.latency_ms is None:
        return ""
    last = _generation(report.steps[-1].place)
    later = [p for p in report.alike if p.latency_ms < w.latency_ms and _generation(p.place) > last]
    if not later:
        return ""
    fastest = words.milliseconds(min(p.latency_ms for p in later))
    many = "a network" if len(later) == 1 else f"{len(later)} networks"
    return f", though they brought {many} as good and faster (down to {fastest} by the table)"


def _generation(place: str) -> int:
    return int(place.partition("/")[0])


def _late_rise(report: Report) -> str:
    """What the last quarter of the evaluations brought; "" where that is nothing."""
    late = 0.75 * report.cost.evaluations
    risen = sum(b.value - a.value for a, b in pairwise(report.steps) if b.evaluations > late and a.within == b.within)
    return words.difference(report.aim, risen) if abs(risen) > 0 else ""


def _range(report: Report) -> str:
    for gene in report.genes:
        if gene.share >= _MATTERS and gene.at_end:
            return (
                f"{gene.gene} explains {100 * gene.share:.0f} % of what {report.aim.metric} varies over the space, and "
                f"the winner has its {gene.at_end} choice ({gene.chosen}): consider a larger range."
            )
    return ""


def _pictures(report: Report) -> str:
    w = report.winner
    if w is None or not report.aim.is_accuracy or w.validation.error is None or w.validation.error < _COARSE:
        return ""
    return (
        f"The validation accuracy is known to ± {100 * w.validation.error:.1f} points only: more validation pictures "
        "would choose more surely."
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


def _without_model(report: Report) -> str:
    """Whether another operator does so much better than the model that it may be left out."""
    model = _credit(report, "semantic")
    others = [c for c in report.operators if c.operator not in ("semantic", "placebo") and c.proposals >= 10]
    best = max(others, key=lambda c: c.win_rate or 0.0, default=None)
    if model is None or best is None or best.low <= model.high:
        return ""
    return (
        f"{_said(model)}; those of the kind '{operator_words(best.operator)}' do in {_rate(best)}, which is clearly "
        "more: a run without the model may be as good."
    )


def _model(report: Report) -> str:
    """Whether the model's proposals can be told from chance's."""
    model, chance = _credit(report, "semantic"), _credit(report, "placebo")
    if model is None:
        return ""
    said = _said(model)
    if chance is not None:
        verdict = "surely better" if model.low > chance.high else "not surely better"
        few = words.few(chance.proposals)
        return f"{said}: {verdict} than random changes of the same kind, which do in {_rate(chance)}{few}."
    return f"{said}; no proposals were left to chance, so there is no saying whether that is much."


def _credit(report: Report, operator: str) -> OperatorCredit | None:
    """What an operator brought; None where it proposed nothing."""
    return next((c for c in report.operators if c.operator == operator and c.proposals), None)


def _said(model: OperatorCredit) -> str:
    return f"The language model's proposals beat their parents in {_rate(model)}"


def _rate(credit: OperatorCredit) -> str:
    rate = words.percent(credit.win_rate or 0.0)
    return f"{rate} of {credit.proposals:,} cases (95 %: {words.percent(credit.low)} to {words.percent(credit.high)})"


def _random(report: Report) -> str:
    s, w = report.shadow, report.winner
    if w is None or not s.middle or not w.within or s.evaluations[-1] < report.cost.evaluations:
        return ""
    ahead = w.validation.value - s.middle[-1]
    ahead = -ahead if report.aim.lowered else ahead
    better = w.validation.value < s.low[-1] if report.aim.lowered else w.validation.value > s.high[-1]
    if better:
        return (
            f"Random search would be {words.difference(report.aim, ahead).lstrip('+')} behind after as many "
            "evaluations: the search paid."
        )
    return "Random search would have come as far with as many evaluations: there was little to find within the limits."
