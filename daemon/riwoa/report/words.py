"""Numbers as a report writes them: accuracies in percent, differences in points, times with their units.

Whatever is not surely known is a range: 95 % of accuracies, rates and random search, and at a latency the table's own.
"""

from __future__ import annotations

import time

from riwoa.operators import DESCRIPTIONS, operator_words
from riwoa.report.facts import (
    Aim,
    Change,
    DeviceWinner,
    FrontPoint,
    Judged,
    Learning,
    Report,
    ServerUse,
    Timed,
    Training,
    Winner,
)
from riwoa.search.paired import LEVEL
from riwoa.text import duration, measured, named_measure

NO_VALUE, WINNER = "unknown", "the winner"
_LINE_TOLD = 3  # operators of the winner's line
_LITTLE_S = 60.0


def few(tries: int) -> str:
    """A remark on so few tries; "" where they are not few."""
    return f" ({tries} tries are few)" if tries < 30 else ""


def value(aim: Aim, found: float) -> str:
    """A value of what the run looks for."""
    return measured(aim.metric, found)


def judged(aim: Aim, found: Judged) -> str:
    """A value with its range."""
    told = span(found)
    return f"{value(aim, found.value)} ({told})" if told else value(aim, found.value)


def span(found: Judged) -> str:
    """The 95 % interval of an accuracy, in percent; "" where it is not known."""
    if found.interval is None:
        return ""
    low, high = found.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def difference(aim: Aim, less: float, interval: tuple[float, float] | None = None) -> str:
    """A difference of two values, in points where they are accuracies, with its range."""
    if not aim.is_accuracy:
        return f"{less:+.4g}"
    told = "" if interval is None else f" ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
    return f"{100 * less:+.2f} points{told}"


def percent(share: float) -> str:
    """A share; a small one with two digits, so that it does not read as none."""
    return f"{100 * share:.2g} %" if 1e-6 < share < 0.1 else f"{100 * share:.0f} %"


def milliseconds(ms: float) -> str:
    """A latency in four digits, so that a limit and what lies below it do not read alike."""
    return f"{ms:,.0f} ms" if ms >= 1000 else f"{ms:#.4g} ms"


def latency(winner: Winner) -> str:
    """The winner's latency with its range, by the clock where that was asked."""
    if winner.timed is not None:
        return f"{milliseconds(winner.timed.ms)} {by_clock(winner.timed)}"
    if winner.latency_ms is None:
        return NO_VALUE
    about = "" if winner.interval is None else f" ± {100 * winner.interval:.0f} %"
    return f"{milliseconds(winner.latency_ms)}{about}"


def by_clock(timed: Timed) -> str:
    """Where a time of the clock lies, to follow it."""
    return f"by the clock, in another process {milliseconds(timed.low_ms)} to {milliseconds(timed.high_ms)}"


def latency_source(report: Report) -> str:
    """What the winner's latency was measured in."""
    winner = report.winner
    if winner is None or winner.latency_ms is None:
        return "no latency was asked for"
    if winner.timed is not None:
        return (
            f"one picture at a time on {hardware(report)}{winner.timed.runtime}, as exported. "
            f"The latency table predicted {milliseconds(winner.latency_ms)}"
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
    if t.weights:
        later = "no network was trained while it searched"
        if t.finetune_epochs:
            later += (
                f"; the winner is trained on for {t.finetune_epochs} epochs afterwards, and figures here are before"
            )
        sentences.append(f"The weights are of {t.weights}: {later}.")
    return " ".join(sentences)


def conventions(report: Report) -> str:
    """How networks are named, and what the ranges are."""
    w = report.winner
    if w is None:
        return ""
    told = "A network's name is generation/slot: when the search tried it. "
    told += f"Ranges are 95 % intervals{_latency_level(report)}. "
    if report.aim.is_accuracy:
        chose = "Validation is what the search saw and chose by"
        told += f"{chose}; test pictures chose nothing. " if w.test is not None else f"{chose}. "
    types = [f"The search judged in {report.task.judged_in}"] if report.task.judged_in else []
    if types and w.test is not None and w.test.pictures is not None:
        types.append("test pictures judge in float32, as exported")
    if types and report.table.dtype:
        types.append(f"latencies are those of {report.table.dtype}")
    told += f"{'; '.join(types)}. " if types else ""
    if w.validation.at_most:
        told += (
            f"Each validation picture was shown in {w.validation.views} views, and nobody knows how far these agree: "
            "its ranges are drawn as wide as they can be. "
        )
    return told.strip()


def _latency_level(report: Report) -> str:
    w = report.winner
    level = w.timed.level if w is not None and w.timed is not None else report.table.level
    return "" if level is None else f", of latencies {percent(level)} intervals"


def judged_on(report: Report, *, test: bool = False) -> str:
    """The name of a column of values."""
    named = "test" if test else "validation"
    return named if report.aim.is_accuracy else report.aim.metric if not test else f"{report.aim.metric}, test"


def kept(report: Report, winner: Winner) -> str:
    """Whether the winner keeps the limits, and by what that is known."""
    if not winner.within:
        return "It does NOT keep every limit: no network did."
    limit_ms = report.aim.target_ms
    if limit_ms is None:
        return "It keeps every limit." if report.aim.limits else ""
    if winner.timed is None:
        if winner.latency_ms is None or limit_is_sure(report, winner.latency_ms, None):
            return "It keeps every limit by the table."
        most = milliseconds(winner.latency_ms * (1 + (winner.interval or 0.0)))
        return f"It keeps the limit of {milliseconds(limit_ms)} by the table, within whose error lies {most} too."
    if winner.timed.high_ms <= limit_ms:
        return "It keeps every limit, by the table and by the clock."
    most, limit = milliseconds(winner.timed.high_ms), milliseconds(limit_ms)
    if winner.timed.ms > limit_ms:
        return f"It keeps the limit of {limit} by the table; the clock says {milliseconds(winner.timed.ms)}."
    return f"It keeps the limit of {limit} by the table and by the clock, but another process may take up to {most}."


def limit_is_sure(report: Report, ms: float, high_ms: float | None) -> bool:
    """Whether a network by the table's latency, or the clock's upper end, is surely within the latency target."""
    target_ms = report.aim.target_ms
    if target_ms is None:
        return True
    return (ms * (1 + (report.table.interval or 0.0)) if high_ms is None else high_ms) <= target_ms


def change(found: Change) -> str:
    """A gene that differs."""
    if found.before is None:
        return f"{found.gene}: {found.after}, which was not there"
    return f"{found.gene}: {found.before} → {found.after}"


def changes(found: tuple[Change, ...]) -> list[str]:
    """What differs, but for what is gone: where a stage is shorter, so are the sizes of the blocks that it lost."""
    return [change(c) for c in found if c.after is not None]


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
        limits[0] += ", a limit that riwoa chose itself since none was set" if a.chosen_ms else ""
    return f"{what} within {' and '.join(limits)}" if limits else what


def counted(report: Report) -> str:
    """How candidates, evaluations and the operators' proposals add up."""
    c = report.cost
    parts = [f"{c.evaluations:,} evaluated"]
    parts += [f"{c.repeats:,} repeats, whose answer was known"] if c.repeats else []
    parts += [f"{c.dropped:,} given up on a cheaper evaluation"] if c.dropped else []
    told = f"{c.candidates:,} candidates: {', '.join(parts)}."
    if c.changed is not None and c.candidates > c.changed:
        told += (
            f" {c.changed:,} of them changed an earlier network, {c.candidates - c.changed:,} began anew. "
            "Proposals that came to no candidate are counted at their operator all the same."
        )
    return told


def nodes(report: Report) -> str:
    """Which nodes of a cluster evaluated, and their shares of the time; "" where this machine did alone."""
    if not report.nodes:
        return ""
    total_s = sum(node.seconds for node in report.nodes) or 1.0
    told = [
        f"{node.node} {node.evaluations:,} ({100 * node.seconds / total_s:.0f} % of the seconds)"
        for node in report.nodes
    ]
    return f"Evaluated on {len(told)} {'node' if len(told) == 1 else 'nodes'}: {', '.join(told)}."


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
    return "on the same test pictures" if tested(report) else "by validation"


def alternatives(report: Report) -> str:
    """How many networks cannot be told from the winner, by what that is judged, and what it does not mean."""
    count = len(report.alike)
    if count == 0:
        return f"No other network was found to be as good {basis(report)}."
    among = sum(point.test is not None and not point.is_winner for point in report.front)
    others = f"{count} of the {among} networks that were judged there" if tested(report) else f"{count} other networks"
    others = "One other network" if count == among == 1 or (count == 1 and not tested(report)) else others
    how = f"(paired, p ≥ {LEVEL} by an exact test)" if tested(report) else "(less than 1.96 standard errors apart)"
    told = f"{others} cannot be told from the winner {basis(report)} {how}. "
    if not report.aim.is_accuracy:
        return told.strip()
    told += "That is not to be as good: the last column says how much worse each may be. "
    if tested(report):
        told += "Ranges are approximate: where p is just above, one may leave 0 out. "
        told += "Choose among them by latency; one chosen by its test figure would look better than it is. "
        told += "On validation nobody knows which pictures each got right, so differences there have no range. "
    if any(point.measured_ms is None for point in report.alike) and any(p.measured_ms for p in report.front):
        told += "At the end of a run as many networks are timed as `run.finalists` says."
    return told.strip()


def tested(report: Report) -> bool:
    """Whether other networks than the winner were judged on test pictures."""
    return any(point.test is not None and not point.is_winner for point in report.front)


def validated(report: Report, winner: Winner) -> str:
    """The winner's value on what chose it, named so."""
    on = f" on {winner.validation.pictures:,} pictures" if winner.validation.pictures else ""
    shown = judged(report.aim, winner.validation)
    if not report.aim.is_accuracy:
        shown = named_measure(report.aim.metric, winner.validation.value)
    return f"{shown}{on}, the best of {report.cost.evaluations:,} tries"


def tie(report: Report, winner: Winner) -> str:
    """By what the winner was chosen among equals; "" where there were none."""
    if not winner.ties:
        return ""
    others = "One other network has" if winner.ties == 1 else f"{winner.ties:,} other networks have"
    by = "the fastest by the latency table" if winner.latency_ms is not None else "the first that was found"
    return f"{others} the same {judged_on(report)}: of equals {by} is taken."


DEVICES_TITLE = "The network for each device"
DEVICES_HEAD = ("device", "within", "test", "validation", "takes", "network")


def device_rows(report: Report) -> list[tuple[str, ...]]:
    """A row each of several devices, below ``DEVICES_HEAD``; none where the run serves one."""
    return [_device_row(report, found) for found in report.devices]


def _device_row(report: Report, found: DeviceWinner) -> tuple[str, ...]:
    within = f"{found.within_ms:g} ms"
    if found.value is None or found.latency_ms is None:
        return (found.device, within, "", "none found", "", "")
    test = "" if found.test is None else judged(report.aim, found.test)
    return (found.device, within, test, judged(report.aim, found.value), milliseconds(found.latency_ms), found.place)


def alike_head(report: Report) -> tuple[str, ...]:
    """What ``alike_rows`` tells, by column."""
    unit = "points " if report.aim.is_accuracy else ""
    by = f"{unit}against it on {judged_on(report, test=tested(report))}"
    if not tested(report):
        return "network", "by the table", "by the clock", by, "worse by at most"
    return "network", "by the table", "by the clock", judged_on(report), by, "worse by at most"


def alike_rows(report: Report) -> list[tuple[str, ...]]:
    """The winner and what cannot be told from it: place, latencies, values and how far these are from the winner's."""
    shown = [p for p in report.front if p.is_winner or p.alike] if report.alike else []
    return [_alike_row(report, point) for point in shown]


def _alike_row(report: Report, point: FrontPoint) -> tuple[str, ...]:
    a, w = report.aim, report.winner
    assert w is not None
    measured_ms = "not timed" if point.measured_ms is None else milliseconds(point.measured_ms)
    head = (point.place, milliseconds(point.latency_ms), measured_ms)
    less = "" if point.less is None else difference(a, point.less, point.behind)
    less, most = (WINNER, "") if point.is_winner else (less, worst(point))
    less, most = (shown.replace(" points", "") for shown in (less, most))  # the head says so
    if not tested(report):
        return (*head, less, most)
    behind = "" if point.is_winner else f" ({100 * (point.value.value - w.validation.value):+.2f})"
    return (*head, f"{value(a, point.value.value)}{behind}", less, most)


def worst(point: FrontPoint) -> str:
    """How much worse than the winner a network may be, 95 %; "" where that is not known."""
    return "" if point.behind is None else points(max(0.0, -point.behind[0]))


def points(share: float) -> str:
    """A difference of accuracies, without a sign of its own."""
    return f"{100 * share:.2f} points"


def front_caption(report: Report) -> str:
    """What the front is, and what it cannot be asked."""
    on = " on validation" if report.aim.is_accuracy else ""
    told = f"Networks that no other beats in both {report.aim.metric}{on} and latency by the table. "
    if not report.aim.whole_front and report.aim.target_ms is not None and _random_ahead(report):
        told += (
            "The search aimed at this limit alone: for faster networks random search would have done better. "
            'With `objective.kind = "front"` it looks for the best within every latency. '
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
    """The questions that a reader comes with: each with its short answer and what is to be said besides."""
    size, fast = milliseconds(winner.latency_ms) if winner.latency_ms is not None else NO_VALUE, latency_source(report)
    if winner.timed is not None:
        size, fast = milliseconds(winner.timed.ms), f"{by_clock(winner.timed)}; {fast}"
    elif winner.latency_ms is not None and winner.interval is not None:
        fast = f"± {100 * winner.interval:.1f} %, {fast}"
    return [
        ("What to deploy", f"network {winner.place}", " ".join(filter(None, (files(report), kept(report, winner))))),
        ("How good, how sure", *_sure(report, winner)),
        ("How fast", size, f"{fast}."),
        ("What it cost", f"{report.cost.evaluations:,} evaluations", cost(report)),
        ("What it came from", *_origin(report, winner)),
    ]


def files(report: Report) -> str:
    """Where the winner's files are, or what writes them."""
    winner, command = report.winner, f"`riwoactl export --run {report.run_id}`"
    assert winner is not None
    if not winner.files.names:
        what = (
            "its files, model.onnx among them" if report.task.weights else "its architecture; weights this run has none"
        )
        return f"{command} writes {what}."
    models = ", ".join(name for name in winner.files.names if name.startswith("model."))
    if not models:
        return "Its architecture lies in `export/` of the state directory; weights this run has none."
    return f"Its files lie in `export/` of the state directory: {models} and README.md, which says how to use them."


def _sure(report: Report, winner: Winner) -> tuple[str, str]:
    tries = f"the best of {report.cost.evaluations:,} tries"
    if winner.test is None:
        why = winner.untested or "no test pictures have judged it"
        sure = span(winner.validation)
        shown = f"95 %: {sure} %, on" if sure else "on"
        if not report.aim.is_accuracy:
            return named_measure(report.aim.metric, winner.validation.value), f"as the search saw it, {tries}"
        return value(report.aim, winner.validation.value), f"{shown} what chose it as {tries}, so it flatters: {why}."
    views = f", {winner.test.views} views each," if winner.test.views > 1 else ""
    on = f"{winner.test.pictures:,} test pictures{views} that chose nothing" if winner.test.pictures else "test data"
    sure = span(winner.test)
    chose = f"{value(report.aim, winner.validation.value)} on validation, which chose it as {tries}, flatters it"
    shown = f"95 %: {sure} %, on" if sure else "on"
    return value(report.aim, winner.test.value), f"{shown} {on}. Expect this figure: {chose}."


def cost(report: Report) -> str:
    """What the run took of time, in a sentence's words."""
    c = report.cost
    wall_s = c.ended_unix_s - c.began_unix_s
    many = "generation" if c.generations == 1 else "generations"
    told = f"in {duration(c.working_s)} of searching, {c.generations:,} {many}"
    told += f"; {c.failures:,} of them failed" if c.failures else ""
    if wall_s - c.working_s > _LITTLE_S:
        told += f". From first to last it was {duration(wall_s)}"
        rest_s = wall_s - c.working_s - c.stopped_s
        stopped = f"the daemon was not running for {duration(c.stopped_s)}" if c.stopped_s > 1 else ""
        waited = f"starts, pauses, judging and timing took {duration(rest_s)}" if rest_s > _LITTLE_S else ""
        parts = "; ".join(filter(None, (stopped, waited)))
        told += f": {parts}" if parts else ""
    return f"{told}."


def _origin(report: Report, winner: Winner) -> tuple[str, str]:
    if not winner.ancestors:
        return "a random draw", "nothing that the search tried later beat it."
    steps = f"{winner.ancestors:,} step{'s' if winner.ancestors > 1 else ''}"
    came = "from a network without a parent"
    if winner.first is not None:
        came += f", {value(report.aim, winner.first)}, to {value(report.aim, winner.validation.value)}"
    return steps, f"{came} ({judged_on(report)}): {line(report, winner)}."


def line(report: Report, winner: Winner) -> str:
    """What the steps to the winner gained, by operator."""
    shown = [
        f"{difference(report.aim, share.gain)} in {share.steps} step{'s' if share.steps > 1 else ''} "
        f"by {operator_words(share.operator)}"
        for share in winner.line[:_LINE_TOLD]
    ]
    more = winner.line[_LINE_TOLD:]
    rest = f"; {difference(report.aim, sum(s.gain for s in more))} by others" if more else ""
    return "; ".join(shown) + rest


def training(found: Training) -> str:
    """A training in a line."""
    verdict = "accepted" if found.accepted else "rejected"
    took = "" if found.duration_s is None else f" in {duration(found.duration_s)}"
    held = ""
    if found.held_out_before is not None and found.held_out_after is not None:
        held = f", loss on what was held out {found.held_out_before:.3f} → {found.held_out_after:.3f}"
    if found.tried_of is not None:
        return f"generation {found.generation:,}: the adapter of run {found.tried_of} was tried{took}{held}; {verdict}"
    return f"generation {found.generation:,}: {found.examples} examples{took}{held}; {verdict}"


def asked(found: Learning) -> str:
    """How often the language model was asked, how long it wrote, and what came of it."""
    who = found.model or "A script in the model's place"
    wrote = f" and wrote for {duration(found.writing_s)}, while the search went on" if found.writing_s >= 1 else ""
    told = (
        f"{who} was asked {found.requests:,} times{wrote}; "
        f"{found.successes:,} of its networks were fitter than their parents."
    )
    return told if found.server is None else f"{told} {_served(found.server)}"


def _served(found: ServerUse) -> str:
    cost = "" if found.cost is None else f", which cost {found.cost:.3g}"
    answered = f"; by its own word {' and '.join(found.answered)} answered" if found.answered else ""
    return f"The server read {found.tokens_in:,} tokens and wrote {found.tokens_out:,}{cost}{answered}."


def untrained(found: Learning) -> str:
    """Why the language model was not trained; "" where it was."""
    if any(t.tried_of is None for t in found.trainings):
        return ""
    if found.server is not None:
        return "It was not trained: a model on a server cannot be."
    return "It was not trained: too few of its proposals won for that."


def glossary(report: Report) -> str:
    """What the operators of this run do."""
    names = dict.fromkeys(c.operator for c in report.operators)
    told = [f"{operator_words(name)}: {DESCRIPTIONS[name]}" for name in names if name in DESCRIPTIONS]
    shares = [f"{operator_words(c.operator)} {percent(c.share)}" for c in report.operators if c.share is not None]
    learned = f" Of the pool that was chosen from, with their like, at the end: {', '.join(shares)}." if shares else ""
    return f"{'; '.join(told)}.{learned}" if told else ""
