"""The report as one HTML page: no script, nothing from elsewhere; every text of the journal is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from riwoa.operators import operator_words
from riwoa.paths import shipped
from riwoa.report import charts, words
from riwoa.report.facts import Change, Report, Training, Winner
from riwoa.text import duration, measured, printable

START = "<!doctype html>\n<!-- riwoa report -->"
_MOST_TEXT = 4_000
_CHANGES_TOLD, _CHANGES_IN_CELL = 6, 3
_NO_PARENT = "It has no parent: it was drawn at random."
_LONG_CELL = 24  # letters, beyond which a cell of a table is broken into lines
_KINDS = ("training", "reload", "incident", "end")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # of a page that loads nothing and runs nothing


def render(report: Report) -> str:
    """The page."""
    sections = (
        _short(report),
        _advice(report),
        _winner(report),
        _alike(report),
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


def _figure(chart: str, caption: str, keys: Iterable[tuple[str, str]] = ()) -> str:
    if not chart:
        return ""
    # A square never stands on another line than its words.
    legend = " ".join(f'<span class="named"><span class="key of-{of}"></span>{text(name)}</span>' for of, name in keys)
    return f"<figure>{chart}<figcaption>{prose(caption)}{legend}</figcaption></figure>"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    # On a phone it is scrolled sideways, by keyboard too.
    named = "table: " + ", ".join(filter(None, head))
    opening = f'<div class="scroll" tabindex="0" role="region" aria-label="{text(named)}">'
    return f"{opening}<table><tr>{top}</tr>{body}</table></div>"


def _cell(found: str) -> str:
    kind = ' class="long"' if len(found) > _LONG_CELL else ""
    return f"<td{kind}>{text(found)}</td>"


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows if value) + "</dl>"


# -- the sections ------------------------------------------------------------------------------------------------------


def _short(report: Report) -> str:
    """The four questions that a reader comes with."""
    state = {"running": "is still running", "finished": "is finished", "abandoned": "was given up"}[report.status]
    head = (
        f"<h1>riwoa: what run {report.run_id} found</h1>"
        + _p(
            f"The search {state}. It looked for {words.aim(report)}. Written {words.moment(report.made_unix_s)}.",
            "soft",
        )
        + _p(words.task(report))
        + _p(words.errors(report), "soft")
        + _p(words.since(report))
    )
    winner = report.winner
    if winner is None:
        return head + _section("Nothing yet", _p("No network was evaluated yet; look again later."))
    answers = "".join(
        f'<div><div class="ask">{text(ask)}</div><div class="big">{text(big)}</div>{_p(rest, "soft")}</div>'
        for ask, big, rest in words.answers(report, winner)
    )
    return f'{head}<section><div class="answers">{answers}</div></section>'


def _advice(report: Report) -> str:
    if not report.advice:
        return ""
    return _section("What to do next", "<ul>" + "".join(f"<li>{prose(a)}</li>" for a in report.advice) + "</ul>")


def _winner(report: Report) -> str:
    w = report.winner
    if w is None:
        return ""
    keys = [("k3", "kernel 3"), ("k5", "kernel 5"), ("k7", "kernel 7"), ("rest", "stem, head")]
    told = "Each block as wide as its share of the latency, as high as its expansion."
    largest = ""
    if w.from_largest is not None:
        changes = _changes(w.from_largest, "It is the largest network of the space.")
        largest = f"<h3>Beside the largest network of the space</h3>{changes}"
    return _section(
        "The winner",
        _pairs(_winner_rows(report, w)),
        _figure(charts.layers(w.layers), told, keys),
        _layer_table(w),
        "<h3>Beside its parent</h3>",
        _changes(w.from_parent, _NO_PARENT if w.ancestors == 0 else "Nothing differs."),
        largest,
    )


def _winner_rows(report: Report, w: Winner) -> list[tuple[str, str]]:
    further = {k: v for k, v in w.metrics.items() if k in ("macs", "parameters") or k.startswith("energy")}
    test = words.judged(report.aim, w.test) if w.test is not None else f"none{': ' if w.untested else ''}{w.untested}"
    return [
        ("name", f"{w.name}; {words.place(w.place)} of the journal"),
        ("test", test),
        ("validation", words.validated(report, w)),
        ("latency", f"{words.latency(w)}: {words.latency_source(report)}"),
        ("limits", words.kept(report, w)),
        *((name, measured(name, value)) for name, value in further.items() if isinstance(value, int | float)),
        ("note", w.note),
    ]


def _layer_table(w: Winner) -> str:
    if not w.layers:
        return ""
    rows = [
        (layer.name, f"{layer.ms:.4f} ms", "" if layer.kernel is None else str(layer.kernel), str(layer.expand or ""))
        for layer in w.layers
    ]
    table = _rows(("layer", "time", "kernel", "expansion"), rows)
    return f"<details><summary>The layers as a table</summary>{table}</details>"


def _changes(changes: Sequence[Change], none: str) -> str:
    if not changes:
        return _p(none)
    first = _p("; ".join(map(words.change, changes[:_CHANGES_TOLD])) + ".")
    if len(changes) <= _CHANGES_TOLD:
        return first
    rest = _p("; ".join(map(words.change, changes[_CHANGES_TOLD:])) + ".")
    return f"{first}<details><summary>and {len(changes) - _CHANGES_TOLD} more</summary>{rest}</details>"


def _alike(report: Report) -> str:
    if report.winner is None:
        return ""
    rows = words.alike_rows(report)
    table = _rows(words.alike_head(report), rows) if rows else ""
    how = f"`riwoactl export --run {report.run_id} --arch NETWORK` writes any of them; its name is generation/slot."
    how = how if rows else ""
    return _section("As good as the winner", _p(words.alternatives(report)), table, _p(how, "soft"))


def _course(report: Report) -> str:
    if not report.steps:
        return ""
    seen = {incident.kind for incident in report.incidents}
    marks = [(kind, kind) for kind in _KINDS if kind in seen]
    shadow = f" The grey band is random search, {report.shadow.source}." if report.shadow.source else ""
    where = [("best", "best so far"), *([("shadow", "random search")] if report.shadow.middle else []), *marks]
    listed = "".join(f"<li>{text(f'evaluation {i.evaluations:,}: {i.words}')}</li>" for i in report.incidents)
    return _section(
        "How the search went",
        _p(f"It cost {words.cost(report)}, in {report.cost.generations:,} generations."),
        '<div class="charts">',
        _figure(charts.best_over_evaluations(report), f"The best so far over evaluations.{shadow}", where),
        _figure(
            charts.best_over_time(report),
            "The best so far over working time; pauses and stops are left out.",
            [("best", "best so far"), *marks],
        ),
        "</div>",
        f"<details><summary>What happened on the way</summary><ul>{listed}</ul></details>" if listed else "",
        "".join(map(_p, report.findings)),
        "".join(_p(remark, "soft") for remark in report.remarks),
    )


def _front(report: Report) -> str:
    chart = charts.front(report)
    if not chart:
        return ""
    keys = [("best", "front"), ("win", "winner"), ("alike", "as good as the winner"), ("cloud", "evaluated")]
    if report.shadow.front:
        keys.append(("shadow", f"random search after {report.cost.evaluations:,} evaluations"))
    told = words.front_caption(report, drawn=True)
    return _section("What another latency would cost", _figure(chart, told, keys))


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
            _first_changes(step.changes),
        )
        for step in w.descent
    ]
    told = f"The winner has {w.ancestors:,} ancestors." if w.ancestors != 1 else "The winner has one ancestor."
    if len(rows) <= w.ancestors:
        told += f" The first and the last {len(rows) - 1:,} steps:"
    chart = _figure(
        charts.operators(report.operators),
        "How often an operator's proposal was fitter than its parent, with 95 % intervals (Wilson).",
        [("best", "operator"), ("training", "language model")] if report.learning.requests else (),
    )
    return _section(
        "Where it came from",
        _p(told),
        _p("'at' is generation/slot in the journal.", "soft"),
        _rows(("at", "by", words.judged_on(report), "gain over its parent", "what changed"), rows),
        "<h3>Who brought the gain</h3>",
        chart,
        _credit(report),
        _p(words.glossary(report), "soft"),
    )


def _first_changes(changes: Sequence[Change]) -> str:
    """As many as have room in a cell, and how many there are besides."""
    more = len(changes) - _CHANGES_IN_CELL
    return "; ".join(map(words.change, changes[:_CHANGES_IN_CELL])) + (f"; and {more} more" if more > 0 else "")


def _credit(report: Report) -> str:
    rows = [
        (
            operator_words(c.operator),
            f"{c.proposals:,}",
            f"{c.wins:,}",
            words.percent(c.win_rate or 0.0),
            f"{words.percent(c.low)} to {words.percent(c.high)}",
            f"{c.best_steps:,}",
            words.difference(report.aim, c.best_gain),
        )
        for c in report.operators
    ]
    head = ("operator", "proposals", "fitter than parent", "rate", "95 %", "new bests", "raised the best by")
    return _rows(head, rows) if rows else ""


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
        _figure(charts.losses(found.trainings), "Loss of its trainings; a mark ends each."),
        "".join(_p(f"A training failed: {reason}") for reason in found.failed),
        _samples(report),
    )


def _training(found: Training) -> str:
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in found.reasons)
    return f"<li>{text(words.training(found))}<ul>{reasons}</ul></li>"


def _samples(report: Report) -> str:
    parts = []
    for sample in report.learning.samples:
        who = "after training" if sample.adapted else "before any training"
        head = f"generation {sample.generation:,}, {who}: {sample.verdict}"
        lines = "\n".join(printable(line, _MOST_TEXT) for line in sample.text.splitlines())
        parts.append(f'<p class="soft">{text(head)}</p><pre>{escape(lines)}</pre>')
    return f"<details><summary>What it wrote</summary>{''.join(parts)}</details>" if parts else ""


def _landscape(report: Report) -> str:
    seen, matters = charts.visited(report), charts.genes(report)
    if not seen and not matters:
        return ""
    of = report.visited.of if report.visited is not None else 0
    told = f"The {of:,} candidates by their genes (principal components): near is alike."
    return _section(
        "Where it looked, and what matters",
        '<div class="charts">',
        _figure(seen, told, [("low", "worst"), ("high", "best"), ("win", "winner")]),
        _figure(matters, f"What a linear model of this run says of {report.aim.metric} over the whole space."),
        "</div>",
    )


def _table(report: Report) -> str:
    t = report.table
    if not t.device and not t.checks:
        return ""
    rows = [
        ("device", t.device),
        ("measured in", t.runtime),
        (
            "good to",
            "" if t.interval is None else f"± {100 * t.interval:.1f} % in {10 * (t.level or 0.9):.0f} of 10 cases",
        ),
        ("checked on", f"{t.networks} whole networks" if t.networks else ""),
        ("their order", "" if t.rank_correlation is None else f"rank correlation {t.rank_correlation:.3f}"),
        ("load then", "" if t.load_average is None else f"{t.load_average:.1f}"),
    ]
    checks = [(words.moment(c.unix_s), c.verdict, f"{c.ratio:.3f}", "; ".join(c.affects)) for c in t.checks[-12:]]
    drift = _rows(("drift checked", "verdict", "times the table", "affects"), checks) if checks else ""
    return _section("The latency table", _pairs(rows), drift or _p("No drift was checked during the run."))


def _again(report: Report) -> str:
    commands = "\n".join(report.commands)
    recorded = json.dumps(report.provenance, indent=1, default=str)
    began, ended = words.moment(report.cost.began_unix_s), words.moment(report.cost.ended_unix_s)
    return _section(
        "How to get it, check it and do it again",
        f"<pre>{escape(commands)}</pre>",
        _p(f"Searched from {began} to {ended}: {duration(report.cost.working_s)} of work."),
        f"<details><summary>What the result depends on</summary><pre>{escape(recorded)}</pre></details>",
    )
