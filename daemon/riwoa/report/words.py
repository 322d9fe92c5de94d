"""Numbers as a report writes them: accuracies in percent, differences in points, times with their units."""

from __future__ import annotations

import time

from riwoa.report.facts import Aim, Change, FrontPoint, Judged, Learning, Report, Training, Winner
from riwoa.text import duration, measured, named_measure

NO_VALUE = "unknown"
ALIKE_HEAD = ("network", "latency", "value", "beyond the winner")
OPERATORS = {
    "init": "drawn at random",
    "spiral": "a whale's move around the best",
    "encircle": "a whale's move towards the best",
    "search": "a whale's move towards another network",
    "recombine": "a crossing of two of the best",
    "mutate": "one of the best with a few choices drawn anew",
    "climb": "a few single steps from one of the best, where the surrogate expects most",
    "restart": "drawn at random in the place of one that was stuck",
    "polish": "a neighbour of the winner, tried at the end",
    "semantic": "a change that the language model proposed",
    "placebo": "a change drawn by chance in the place of the language model's",
}


def value(aim: Aim, found: float) -> str:
    """A value of what the run looks for."""
    return measured(aim.metric, found)


def judged(aim: Aim, found: Judged) -> str:
    """A value with its standard error."""
    if found.error is None:
        return value(aim, found.value)
    return f"{100 * found.value:.2f} % ± {100 * found.error:.2f}"


def difference(aim: Aim, less: float, error: float | None = None) -> str:
    """A difference of two values, in points where they are accuracies."""
    if not aim.is_accuracy:
        return f"{less:+.4g}"
    return f"{100 * less:+.2f}{'' if error is None else f' ± {100 * error:.2f}'} points"


def percent(share: float) -> str:
    """A share; a small one with two digits, so that it does not read as none."""
    return f"{100 * share:.2g} %" if 1e-6 < share < 0.1 else f"{100 * share:.0f} %"


def milliseconds(ms: float) -> str:
    """A latency."""
    return f"{ms:.3g} ms" if ms >= 100 else f"{ms:.3f} ms" if ms < 10 else f"{ms:.2f} ms"


def latency(winner: Winner) -> str:
    """The winner's latency with its interval, by the clock where that was asked."""
    if winner.timed is not None:
        t = winner.timed
        return f"{milliseconds(t.ms)}, between {milliseconds(t.low_ms)} and {milliseconds(t.high_ms)}"
    if winner.latency_ms is None:
        return NO_VALUE
    about = "" if winner.interval is None else f" ± {100 * winner.interval:.0f} %"
    return f"{milliseconds(winner.latency_ms)}{about}"


def latency_source(report: Report) -> str:
    """What the winner's latency was measured in."""
    winner = report.winner
    if winner is None or winner.latency_ms is None:
        return "no latency was asked for"
    if winner.timed is not None:
        by_table = f"; the latency table predicted {milliseconds(winner.latency_ms)}"
        return f"measured at the end of the run in {winner.timed.runtime}, as exported{by_table}"
    if report.table.runtime:
        return f"predicted by this device's latency table, measured in {report.table.runtime}"
    return "predicted by a latency table"


def change(found: Change) -> str:
    """A gene that differs."""
    if found.before is None:
        return f"{found.gene}: new, {found.after}"
    if found.after is None:
        return f"{found.gene}: {found.before}, gone"
    return f"{found.gene}: {found.before} → {found.after}"


def moment(unix_s: float) -> str:
    """A time of the clock here."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def aim(report: Report) -> str:
    """What was looked for, in a sentence's words."""
    a = report.aim
    what = f"the {'smallest' if a.lowered else 'highest'} {a.metric}"
    limits = list(a.limits)
    if not limits and a.target_ms is not None:
        limits = [f"{milliseconds(a.target_ms)} a picture"]
    return f"{what} within {' and '.join(limits)}" if limits else what


def cost(report: Report) -> str:
    """What the run cost, in a sentence's words."""
    c = report.cost
    failed = f", {c.failures:,} of them failed" if c.failures else ""
    return f"{c.evaluations:,} networks evaluated{failed} in {duration(c.working_s)} of work"


def since(report: Report) -> str:
    """What happened since the time that was named; "" where none was."""
    s = report.since
    if s is None:
        return ""
    gone = "nothing is known of a best"
    if s.now is not None and s.before is not None:
        gone = f"the best went from {value(report.aim, s.before)} to {value(report.aim, s.now)}"
        if s.now == s.before:
            gone = f"the best stayed at {value(report.aim, s.now)}"
    elif s.now is not None:
        gone = f"the best is {value(report.aim, s.now)}; there was none before"
    return f"Since {moment(s.unix_s)}: {s.evaluations:,} evaluations in {duration(s.working_s)}; {gone}."


def basis(report: Report) -> str:
    """By what networks are compared with the winner."""
    return "on the same test pictures" if _tested(report) else "by validation"


def alternatives(report: Report) -> str:
    """How many networks cannot be told from the winner, and by what that is judged."""
    count = len(report.alike)
    if count == 0:
        return f"No other network of the front was found to be as good {basis(report)}."
    few = "One other network of the front" if count == 1 else f"{count} other networks of the front"
    return f"{few} cannot be told from the winner {basis(report)}."


def _tested(report: Report) -> bool:
    return any(point.test is not None and not point.is_winner for point in report.front)


def validated(report: Report, winner: Winner) -> str:
    """The winner's value on what chose it, named so."""
    on = f" on {winner.validation.pictures:,} pictures" if winner.validation.pictures else ""
    shown = judged(report.aim, winner.validation)
    if not report.aim.is_accuracy:
        shown = named_measure(report.aim.metric, winner.validation.value)
    return f"{shown}{on}, the best of {report.cost.evaluations:,} tries"


def alike_row(report: Report, point: FrontPoint) -> tuple[str, str, str, str]:
    """Place, latency, value and how far that is from the winner's."""
    shown = judged(report.aim, point.test if point.test is not None else point.value)
    less = "" if point.less is None else difference(report.aim, point.less, point.less_error)
    return point.place, milliseconds(point.latency_ms), shown, less


def answers(report: Report, winner: Winner) -> list[tuple[str, str, str]]:
    """The four questions that a reader comes with: each with its short answer and what is to be said besides."""
    seen = f"{validated(report, winner)}, is what chose it"
    if winner.test is not None:
        on = f"on {winner.test.pictures:,} test pictures that chose nothing" if winner.test.pictures else "on test data"
        sure = judged(report.aim, winner.test), f"{on}; validation, {seen}, so it flatters. {alternatives(report)}"
    else:
        why = winner.untested or "no test pictures have judged it yet"
        sure = judged(report.aim, winner.validation), f"on validation, which chose it ({why}). {alternatives(report)}"
    kept = "It keeps every limit." if winner.within else "It does NOT keep every limit: no network did."
    steps, origin = "a random draw", f"nothing that the search tried later beat it. {_credit(report)}"
    if winner.ancestors:
        steps = f"{winner.ancestors:,} step{'s' if winner.ancestors > 1 else ''} of search"
        made = OPERATORS.get(winner.operator, "")
        origin = f"from a network drawn at random; the last was {winner.operator}, {made}. {_credit(report)}"
    size = latency(winner) if winner.latency_ms is not None else winner.name
    return [
        (
            "What to deploy",
            winner.name,
            f"this network; `riwoactl export --run {report.run_id}` writes its files. {kept}",
        ),
        ("How good, how sure", *sure),
        ("How fast", size, f"{latency_source(report)}."),
        ("What it cost", f"{report.cost.evaluations:,} evaluations, {duration(report.cost.working_s)}", _paid(report)),
        ("What it came from", steps, origin),
    ]


def _credit(report: Report) -> str:
    best = next((c for c in report.operators if c.best_gain > 0), None)
    if best is None:
        return ""
    return f"{best.operator} raised the best most, by {difference(report.aim, best.best_gain).lstrip('+')}."


def _paid(report: Report) -> str:
    if not report.shadow.middle:
        return ""
    reached = value(report.aim, report.shadow.middle[-1])
    return f"random search would stand at about {reached} after {report.shadow.evaluations[-1]:,}"


def training(found: Training) -> str:
    """A training in a line."""
    verdict = "accepted" if found.accepted else "rejected"
    took = "" if found.duration_s is None else f" in {duration(found.duration_s)}"
    held = ""
    if found.held_out_before is not None and found.held_out_after is not None:
        held = f", loss on what was held out {found.held_out_before:.3f} → {found.held_out_after:.3f}"
    return f"generation {found.generation:,}: {found.examples} examples{took}{held}; {verdict}"


def asked(found: Learning) -> str:
    """How often the language model was asked, and what came of it."""
    who = found.model or "A script in the model's place"
    return (
        f"{who} was asked {found.requests:,} times; {found.successes:,} of its networks were fitter than their parents."
    )


def glossary(report: Report) -> str:
    """What the operators of this run do."""
    names = dict.fromkeys(c.operator for c in report.operators)
    told = [f"{name}: {OPERATORS[name]}" for name in names if name in OPERATORS]
    return f"{'; '.join(told)}." if told else ""
