"""The report as one HTML page: no script, nothing from elsewhere; every text of the journal is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from riwoa.operators import operator_words
from riwoa.paths import shipped
from riwoa.report import charts, words
from riwoa.report.facts import Change, Report, Training, Winner
from riwoa.text import measured, printable

START = "<!doctype html>\n<!-- riwoa report -->"
_MOST_TEXT = 4_000
_CHANGES_TOLD = 6
_NO_PARENT = "It has no parent: it was drawn at random."
_BEGUN = "What came before a twentieth of the evaluations is left out where it lies far below."
_UNCHECKED = "Whether the device still runs as this table says was NOT checked in this run: `riwoactl lut drift` does."
_FRONT_ROWS = 100
_LOSS_KEYS = (("best", "line", "accepted"), ("incident", "line", "rejected"))
_LONG_CELL = 24  # letters, beyond which a cell of a table is broken into lines
_KINDS = ("training", "reload", "incident", "end")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # of a page that loads nothing and runs nothing


def render(report: Report) -> str:
    """The page."""
    sections = (
        _short(report),
        _advice(report),
        _alike(report),
        _devices(report),
        _winner(report),
        _course(report),
        _front(report),
        _origin(report),
        _learning(report),
        _landscape(report),
        _table(report),
        _again(report),
    )
    title = f"riwoa, run {report.run_id}"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{shipped('report.css').read_text(encoding='utf-8')}</style>"
    )
    body = "\n".join(filter(None, sections))
    return f'{START}\n<html lang="en"><head>{head}</head><body><main>\n{body}\n</main></body></html>\n'


def text(found: object) -> str:
    """Any text made safe for a page."""
    return escape(printable(found, _MOST_TEXT))


def prose(sentence: str) -> str:
    """A sentence whose `commands` stand in backquotes."""
    parts = text(sentence).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{text(title)}</h2>{''.join(filter(None, parts))}</section>"


def _p(sentence: str, kind: str = "") -> str:
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{prose(sentence)}</p>" if sentence else ""


def _figure(chart: str, caption: str, keys: Iterable[tuple[str, str, str]] = ()) -> str:
    """A chart with its legend, (colour, form, words) a key, and its caption."""
    if not chart:
        return ""
    named = [
        f'<span class="named"><span class="key {form} of-{of}"></span>{text(name)}</span>' for of, form, name in keys
    ]
    legend = f'<div class="legend">{" ".join(named)}</div>' if named else ""
    told = f"<figcaption>{prose(caption)}</figcaption>" if caption else ""
    return f"<figure>{chart}{legend}{told}</figure>"


def _beside(left: str, right: str) -> str:
    """Two things side by side, on a phone one below the other."""
    return f'<div class="charts"><div>{left}</div><div>{right}</div></div>'


def _details(summary: str, *parts: str) -> str:
    """What is folded away; "" where there is nothing."""
    inner = "".join(parts)
    return f"<details><summary>{text(summary)}</summary>{inner}</details>" if inner else ""


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; on a phone each row is a card, whose cells name their columns."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(_cell(name, found) for name, found in zip(head, row, strict=True)) + "</tr>" for row in rows
    )
    if not body:
        return ""
    # Where it is wider than its room it is scrolled sideways, by keyboard too.
    named = text("table: " + ", ".join(filter(None, head)))
    opening = f'<div class="scroll" tabindex="0" role="region" aria-label="{named}">'
    return f'{opening}<table><tr class="head">{top}</tr>{body}</table></div>'


def _cell(name: str, found: str) -> str:
    kind = ' class="long"' if len(found) > _LONG_CELL else ""
    return f'<td{kind} data-name="{text(name)}">{text(found)}</td>' if found else '<td class="none"></td>'


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows if value) + "</dl>"


# -- the sections ------------------------------------------------------------------------------------------------------


def _short(report: Report) -> str:
    """The questions that a reader comes with."""
    state = {"running": "is still running", "finished": "is finished", "abandoned": "was given up"}[report.status]
    head = (
        f"<h1>riwoa: what run {report.run_id} found</h1>"
        + _p(
            f"riwoa searched for the network with {words.aim(report)}. The search {state}. {words.task(report)} "
            f"Written {words.moment(report.made_unix_s)}.",
            "soft",
        )
        + _p(words.since(report))
    )
    winner = report.winner
    if winner is None:
        return head + _section("Nothing yet", _p("No network was evaluated yet; look again later."))
    answers = "".join(
        f'<div><div class="ask">{text(ask)}</div><div class="big">{text(big)}</div>{_p(rest, "soft")}</div>'
        for ask, big, rest in words.answers(report, winner)
    )
    return f'{head}<section><div class="answers">{answers}</div>{_p(words.conventions(report), "soft")}</section>'


def _advice(report: Report) -> str:
    if not report.advice:
        return ""
    return _section("What to do next", "<ul>" + "".join(f"<li>{prose(a)}</li>" for a in report.advice) + "</ul>")


def _devices(report: Report) -> str:
    """The network for each of several devices."""
    rows = words.device_rows(report)
    return _section(words.DEVICES_TITLE, _rows(words.DEVICES_HEAD, rows)) if rows else ""


def _winner(report: Report) -> str:
    w = report.winner
    if w is None:
        return ""
    kernels = [("k3", "3"), ("k5", "5"), ("k7", "7")]
    keys = [(key, "square", f"kernel {size}") for key, size in kernels]
    keys.append(("rest", "square", "first and last layers"))
    drawn = _figure(charts.layers(w.layers), "Each block as wide as its time by the latency table.", keys)
    largest = ""
    if w.from_largest is not None:
        told = _changes(w.from_largest, "It is the largest network of the space.")
        largest = f"<h3>Against the largest network of the space</h3>{told}"
    return _section(
        "The winner",
        _beside(_pairs(_winner_rows(report, w)), f"{drawn}{_layer_table(w)}{largest}"),
    )


def _winner_rows(report: Report, w: Winner) -> list[tuple[str, str]]:
    further = {k: v for k, v in w.metrics.items() if k in ("macs", "parameters") or k.startswith("energy")}
    exported = "" if w.files.accuracy is None else f"{words.value(report.aim, w.files.accuracy)} on {w.files.split}"
    return [
        ("name", f"{w.place}, or {w.name}"),
        ("test", words.judged(report.aim, w.test) if w.test is not None else w.untested or "none"),
        ("validation", words.validated(report, w)),
        ("exported", exported),
        ("latency", words.latency(w)),
        *((name, measured(name, value)) for name, value in further.items() if isinstance(value, int | float)),
        ("takes", w.files.takes),
        ("chosen", words.tie(report, w)),
        ("note", w.note),
    ]


def _layer_table(w: Winner) -> str:
    rows = [
        (layer.name, f"{layer.ms:.4f} ms", "" if layer.kernel is None else str(layer.kernel), str(layer.expand or ""))
        for layer in w.layers
    ]
    return _details("The layers as a table", _rows(("layer", "time", "kernel", "expansion"), rows))


def _changes(changes: tuple[Change, ...], none: str) -> str:
    found = words.changes(changes)
    if not found:
        return _p(none)
    first = _p("; ".join(found[:_CHANGES_TOLD]) + ".")
    if len(found) <= _CHANGES_TOLD:
        return first
    return first + _details(f"and {len(found) - _CHANGES_TOLD} more", _p("; ".join(found[_CHANGES_TOLD:]) + "."))


def _alike(report: Report) -> str:
    if report.winner is None:
        return ""
    chart = _figure(
        charts.against_winner(report), "", [("alike", "box", "difference"), ("alike", "line", "95 % interval")]
    )
    table = _rows(words.alike_head(report), words.alike_rows(report))
    told = _p(words.alternatives(report))
    return _section("The next choices", told, _beside(chart, table) if chart else table)


def _course(report: Report) -> str:
    if not report.steps:
        return ""
    seen = {incident.kind for incident in report.incidents}
    marks = [(kind, "upright", kind) for kind in _KINDS if kind in seen]
    best = ("best", "line", "best so far")
    random = [("shadow", "dash", "random search, estimated"), ("shadow", "band", "its 95 %")]
    drawn = charts.best_over_evaluations(report)
    listed = "".join(f"<li>{text(f'evaluation {i.evaluations:,}: {i.words}')}</li>" for i in report.incidents)
    steps = [
        (f"{s.evaluations:,}", s.place, words.value(report.aim, s.value), operator_words(s.operator))
        for s in report.steps
    ]
    return _section(
        "How the search went",
        '<div class="charts">',
        _figure(drawn, _BEGUN, [best, *(random if charts.draws_random(report) else []), *marks]),
        _figure(charts.best_over_time(report), "Pauses and stops are left out.", [best, *marks]),
        "</div>",
        _p(nodes) if (nodes := words.nodes(report)) else "",
        "".join(map(_p, report.findings)),
        _details("What happened on the way", f"<ul>{listed}</ul>" if listed else ""),
        _details("The best so far as a table", _rows(("evaluations", "network", "best", "by"), steps)),
        "".join(_p(remark, "soft") for remark in report.remarks),
    )


def _front(report: Report) -> str:
    chart = charts.front(report)
    if not chart:
        return ""
    keys = [
        ("win", "diamond", "the winner"),
        ("alike", "box", "cannot be told from it"),
        ("best", "line", "no other beats it"),
    ]
    keys += [("cloud", "point", "other networks")] if report.cloud.points else []
    keys += [("shadow", "dash", "random search, estimated")] if report.shadow.front else []
    rows = [
        (
            p.place,
            words.milliseconds(p.latency_ms),
            words.judged(report.aim, p.value),
            "" if p.test is None else words.judged(report.aim, p.test),
        )
        for p in report.front[-_FRONT_ROWS:]
    ]
    head = ("network", "latency", words.judged_on(report), words.judged_on(report, test=True))
    return _section(
        "What another latency would cost",
        _beside(
            _figure(chart, "", keys),
            _p(words.front_caption(report)) + _details("These networks as a table", _rows(head, rows)),
        ),
    )


def _origin(report: Report) -> str:
    w = report.winner
    if w is None:
        return ""
    rows = [
        (
            step.place,
            operator_words(step.operator),
            "" if step.value is None else words.value(report.aim, step.value),
            "" if step.gain is None else words.difference(report.aim, step.gain),
            "; ".join(words.changes(step.changes)),
        )
        for step in w.descent
    ]
    told = f"The steps to the winner gained {words.line(report, w)}." if w.ancestors else _NO_PARENT
    if w.ancestors and report.aim.is_accuracy:
        told += " Single gains are on validation and were not tested: small ones may be chance."
    some = f"the first and the last {len(rows) - 1:,} of {w.ancestors + 1:,}" if len(rows) <= w.ancestors else "all"
    named = {share.operator: share for share in w.line}
    credit = [
        (
            operator_words(c.operator),
            f"{c.proposals:,}",
            f"{c.wins:,}",
            f"{words.percent(c.low)} to {words.percent(c.high)}",
            str(named[c.operator].steps) if c.operator in named else "",
            words.difference(report.aim, named[c.operator].gain) if c.operator in named else "",
        )
        for c in report.operators
    ]
    head = ("by", "proposals", "fitter than what they changed", "95 %", "steps to the winner", "their gain")
    keys = [("best", "point", "rate"), ("best", "line", "95 % interval")]
    return _section(
        "Where it came from",
        _p(told),
        _details(
            f"Step by step ({some})",
            _rows(("network", "by", words.judged_on(report), "gain over its parent", "what changed"), rows),
        ),
        "<h3>How often a change was for the better</h3>",
        _beside(
            _figure(
                charts.operators(report.operators),
                "",
                [*keys, ("training", "box", "language model")] if report.learning.requests else keys,
            ),
            _p(words.counted(report))
            + _details("As a table, and what each does", _rows(head, credit), _p(words.glossary(report), "soft")),
        ),
    )


def _learning(report: Report) -> str:
    found = report.learning
    if not found.model and not found.requests:
        return ""
    told = words.asked(found)
    trainings = "".join(map(_training, found.trainings))
    return _section(
        "What the language model did",
        _p(told),
        _p(words.untrained(found)),
        f"<ul>{trainings}</ul>" if trainings else "",
        _figure(charts.losses(found.trainings), "Loss of its trainings; a mark ends each.", _LOSS_KEYS),
        "".join(_p(f"A training failed: {reason}") for reason in found.failed),
        _samples(report),
    )


def _training(found: Training) -> str:
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in found.reasons)
    return f"<li>{text(words.training(found))}<ul>{reasons}</ul></li>"


def _samples(report: Report) -> str:
    parts = []
    for sample in report.learning.samples:
        who = ", after training" if sample.adapted else ", before training" if report.learning.trainings else ""
        head = f"generation {sample.generation:,}{who}: {sample.verdict}"
        lines = "\n".join(printable(line, _MOST_TEXT) for line in sample.text.splitlines())
        parts.append(f'<p class="soft">{text(head)}</p><pre>{escape(lines)}</pre>')
    return _details("What it wrote, by example", *parts)


def _landscape(report: Report) -> str:
    seen, matters = charts.visited(report), charts.genes(report)
    if not seen and not matters:
        return ""
    of = report.visited.of if report.visited is not None else 0
    told = f"The {of:,} candidates, alike ones near each other (principal components of their choices)."
    return _section(
        "Where it looked, and what matters",
        '<div class="charts">',
        _figure(seen, told, [("low", "point", "worst"), ("high", "point", "best"), ("win", "diamond", "the winner")]),
        _figure(
            matters, f"Which choices decide {report.aim.metric}, by a linear model of the results, limits left aside."
        ),
        "</div>",
    )


def _table(report: Report) -> str:
    t = report.table
    if not t.device and not t.checks:
        return ""
    level = "" if t.level is None else f" ({words.percent(t.level)} of networks lie within)"
    rows = [
        ("device", t.device),
        ("measured in", t.runtime),
        ("good to", "" if t.interval is None else f"± {100 * t.interval:.1f} %{level}"),
        ("checked on", f"{t.networks} whole networks" if t.networks else ""),
        ("their order", "" if t.rank_correlation is None else f"rank correlation {t.rank_correlation:.3f}"),
    ]
    checks = [(words.moment(c.unix_s), c.verdict, f"{c.ratio:.3f}", "; ".join(c.affects)) for c in t.checks[-12:]]
    drift = _rows(("drift checked", "verdict", "times the table", "affects"), checks)
    return _section("The latency table", _pairs(rows), drift or _p(_UNCHECKED))


def _again(report: Report) -> str:
    commands = "\n".join(report.commands)
    recorded = json.dumps(report.provenance, indent=1, default=str)
    began, ended = words.moment(report.cost.began_unix_s), words.moment(report.cost.ended_unix_s)
    return _section(
        "How to get it, check it and do it again",
        f"<pre>{escape(commands)}</pre>",
        _p(f"From {began} to {ended}."),
        _details("What the result depends on", f"<pre>{escape(recorded)}</pre>"),
    )
