"""Numbers as a report writes them: accuracies in percent, differences in points, times with their units."""

from __future__ import annotations

import time

from riwoa.operators import DESCRIPTIONS, operator_words
from riwoa.report.facts import Aim, Change, FrontPoint, Judged, Learning, Report, Timed, Training, Winner
from riwoa.search.paired import LEVEL
from riwoa.text import duration, measured, named_measure

NO_VALUE = "unknown"
_SHORT = 8  # digits of a name, where the whole one stands beside it
_FEW_TRIES = 30


def place(found: str) -> str:
    """Where "generation/slot" is, in words."""
    generation, _, slot = found.partition("/")
    return f"generation {generation}, slot {slot}"


def few(tries: int) -> str:
    """A remark on so few tries; "" where they are not few."""
    return f" ({tries} tries are few)" if tries < _FEW_TRIES else ""


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
        return f"{milliseconds(winner.timed.ms)} {by_clock(winner.timed)}"
    if winner.latency_ms is None:
        return NO_VALUE
    about = "" if winner.interval is None else f" ± {100 * winner.interval:.0f} %"
    return f"{milliseconds(winner.latency_ms)}{about}"


def by_clock(timed: Timed) -> str:
    """Where a time of the clock lies, to follow it."""
    return f"by the clock, {milliseconds(timed.low_ms)} to {milliseconds(timed.high_ms)}"


def latency_source(report: Report) -> str:
    """What the winner's latency was measured in."""
    winner = report.winner
    if winner is None or winner.latency_ms is None:
        return "no latency was asked for"
    if winner.timed is not None:
        level = winner.timed.level
        cases = "" if level is None else f" in {10 * level:.0f} of 10 cases"
        where = f"{hardware(report)}{winner.timed.runtime}"
        return (
            f"on {where}; the exported file, measured at the end of the run. The interval is where another process "
            f"is expected to find it{cases}. The latency table predicted {milliseconds(winner.latency_ms)}"
        )
    if report.table.runtime:
        return f"predicted by this device's latency table, measured on {hardware(report)}{report.table.runtime}"
    return "predicted by a latency table"


def hardware(report: Report) -> str:
    """What latencies were measured on, to be followed by the runtime; "" where the table is not at hand."""
    return f"{report.table.device}, " if report.table.device else ""


def task(report: Report) -> str:
    """What the networks are for, and where their weights come from; "" where the run's oracle does not tell."""
    t, w = report.task, report.winner
    classes = f"{t.classes:,} classes" if t.classes else ""
    told = ", ".join(filter(None, (t.data, classes)))
    sentences = [f"The task: {told}."] if told else []
    if w is not None:
        px, count = w.architecture.get("resolution"), w.metrics.get("parameters")
        reads = f"reads pictures of {px} × {px} px" if px else ""
        has = f"has {int(count):,} parameters" if count else ""
        if reads or has:
            sentences.append(f"The winner {' and '.join(filter(None, (reads, has)))}.")
    types = [f"accuracy judged in {t.judged_in}"] if t.judged_in else []
    types += [f"latency measured in {report.table.dtype}"] if report.table.dtype else []
    if types:
        sentences.append(f"Numbers: {', '.join(types)}.")
    if t.weights:
        later = "no network was trained while it searched"
        if t.finetune_epochs:
            later += (
                f"; the winner is trained on for {t.finetune_epochs} epochs afterwards, and figures here are before"
            )
        sentences.append(f"The weights are of {t.weights}: {later}.")
    return " ".join(sentences)


def errors(report: Report) -> str:
    """What ± means, and by what networks are told apart; "" where no error is known."""
    w = report.winner
    if w is None or (w.validation.error is None and (w.test is None or w.test.error is None)):
        return ""
    told = "± is one standard error, as of a draw of pictures."
    if w.test is not None and w.test.views_told and w.test.views > 1 and w.validation.views > 1:
        told += (
            f" Each picture was shown in {w.validation.views} views: the test's error is of the mean over a picture's "
            "views; validation's counts them as one, and is rather too large."
        )
    if _tested(report):
        return (
            f"{told} 'Cannot be told from' means p ≥ {LEVEL} in a paired test (sign flips) on the same test pictures."
        )
    return f"{told} 'Cannot be told from' means less than 1.96 standard errors apart on validation."


def judged_on(report: Report, *, test: bool = False) -> str:
    """The name of a column of values."""
    named = "test" if test else "validation"
    return named if report.aim.is_accuracy else report.aim.metric if not test else f"{report.aim.metric}, test"


def kept(report: Report, winner: Winner) -> str:
    """Whether the winner keeps the limits, and by what that is known."""
    if not winner.within:
        return "It does NOT keep every limit: no network did."
    limit_ms = report.aim.target_ms
    if winner.timed is None or limit_ms is None:
        return "It keeps every limit."
    if winner.timed.high_ms <= limit_ms:
        return "It keeps every limit, by the table and by the clock."
    beyond = f"the clock's interval reaches {milliseconds(winner.timed.high_ms)}"
    if winner.timed.ms > limit_ms:
        beyond = f"the clock says {milliseconds(winner.timed.ms)}"
    return f"It keeps every limit by the table; {beyond}, beyond the limit of {milliseconds(limit_ms)}."


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
    others = "One other network of the front" if count == 1 else f"{count} other networks of the front"
    return f"{others} cannot be told from the winner {basis(report)}."


def _tested(report: Report) -> bool:
    return any(point.test is not None and not point.is_winner for point in report.front)


def validated(report: Report, winner: Winner) -> str:
    """The winner's value on what chose it, named so."""
    on = f" on {winner.validation.pictures:,} pictures" if winner.validation.pictures else ""
    shown = judged(report.aim, winner.validation)
    if not report.aim.is_accuracy:
        shown = named_measure(report.aim.metric, winner.validation.value)
    return f"{shown}{on}, the best of {report.cost.evaluations:,} tries"


def alike_head(report: Report) -> tuple[str, ...]:
    """What ``alike_rows`` tells, by column."""
    named = judged_on(report, test=_tested(report))
    return "network", "latency by the table", "latency by the clock", named, "beyond the winner"


def alike_rows(report: Report) -> list[tuple[str, ...]]:
    """The winner and what cannot be told from it: place, latencies, value and how far that is from the winner's."""
    shown = [p for p in report.front if p.is_winner or p.alike] if report.alike else []
    return [_alike_row(report, point) for point in shown]


def _alike_row(report: Report, point: FrontPoint) -> tuple[str, ...]:
    shown = judged(report.aim, point.test if point.test is not None else point.value)
    less = "" if point.less is None else difference(report.aim, point.less, point.less_error)
    measured_ms = "not timed" if point.measured_ms is None else milliseconds(point.measured_ms)
    less = "the winner" if point.is_winner else less
    return point.place, milliseconds(point.latency_ms), measured_ms, shown, less


def front_caption(report: Report, *, drawn: bool) -> str:
    """What the front is, drawn or as a table, and what it cannot be asked."""
    on = " on validation" if report.aim.is_accuracy else ""
    told = f"Networks that no other beats in both {report.aim.metric}{on} and latency by the table. "
    if drawn and report.aim.target_ms is not None:
        told += f"The dotted upright is the limit, {milliseconds(report.aim.target_ms)}. "
    if not report.aim.whole_front and report.aim.target_ms is not None and _random_ahead(report):
        told += (
            "The search aimed at this limit alone: for faster networks random search's median lies above the front. "
            'Who wants the best within every latency runs with `objective.kind = "front"`. '
        )
    return told


def _random_ahead(report: Report) -> bool:
    """Whether random search would have found better than the front has, somewhere within the limit."""
    sign = -1.0 if report.aim.lowered else 1.0
    for ms, reached in report.shadow.front:
        found = [sign * p.value.value for p in report.front if p.latency_ms <= ms]
        if found and ms <= (report.aim.target_ms or 0.0) and sign * reached > max(found):
            return True
    return False


def answers(report: Report, winner: Winner) -> list[tuple[str, str, str]]:
    """The four questions that a reader comes with: each with its short answer and what is to be said besides."""
    seen = f"{validated(report, winner)}, is what chose it"
    if winner.test is not None:
        on = f"on {winner.test.pictures:,} test pictures that chose nothing" if winner.test.pictures else "on test data"
        sure = judged(report.aim, winner.test), f"{on}; validation, {seen}, so it flatters. {alternatives(report)}"
    else:
        why = winner.untested or "no test pictures have judged it yet"
        sure = judged(report.aim, winner.validation), f"on validation, which chose it ({why}). {alternatives(report)}"
    steps, origin = "a random draw", f"nothing that the search tried later beat it. {_credit(report)}"
    if winner.ancestors:
        steps = f"{winner.ancestors:,} step{'s' if winner.ancestors > 1 else ''} of search"
        made = operator_words(winner.operator)
        origin = f"from a network drawn at random; the last was of the kind '{made}'. {_credit(report)}"
    size, fast = latency(winner) if winner.latency_ms is not None else winner.name, f"{latency_source(report)}."
    if winner.timed is not None and winner.latency_ms is not None:
        size, fast = milliseconds(winner.timed.ms), f"{by_clock(winner.timed)}, {fast}"
    return [
        (
            "What to deploy",
            winner.name[:_SHORT],
            f"network {winner.name}; `riwoactl export --run {report.run_id}` writes its files. {kept(report, winner)}",
        ),
        ("How good, how sure", *sure),
        ("How fast", size, fast),
        ("What it cost", f"{report.cost.evaluations:,} evaluations, {duration(report.cost.working_s)}", _paid(report)),
        ("What it came from", steps, origin),
    ]


def _credit(report: Report) -> str:
    best = next((c for c in report.operators if c.best_gain > 0), None)
    if best is None:
        return ""
    gain = difference(report.aim, best.best_gain).lstrip("+")
    return f"The kind '{operator_words(best.operator)}' raised the best most, by {gain}."


def _paid(report: Report) -> str:
    if not report.shadow.middle:
        return ""
    reached = value(report.aim, report.shadow.middle[-1])
    have = (
        "" if report.winner is None else f", where the winner has {value(report.aim, report.winner.validation.value)}"
    )
    after = f"after {report.shadow.evaluations[-1]:,}"
    return f"random search would stand at about {reached} on validation {after}{have}"


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
    """What the operators of this run do, and what the columns of their table count."""
    names = dict.fromkeys(c.operator for c in report.operators)
    told = [f"{operator_words(name)}: {DESCRIPTIONS[name]}" for name in names if name in DESCRIPTIONS]
    counts = (
        "Networks without a parent, as those drawn at random at first, are not counted here, and a proposal whose "
        "answer is known costs no evaluation: so these do not add up to the evaluations. "
        "A gain over a parent raises the best only where the parent was the best, or near it."
    )
    shares = [f"{operator_words(c.operator)} {percent(c.share)}" for c in report.operators if c.share is not None]
    learned = f" Of the pool that was chosen from, with their like, at the end: {', '.join(shares)}." if shares else ""
    return f"{'; '.join(told)}. {counts}{learned}" if told else ""
