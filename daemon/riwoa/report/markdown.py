"""The report as Markdown: the page's facts without its charts, for a chat, an issue or a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from riwoa.operators import operator_words
from riwoa.report import words
from riwoa.report.facts import Report, Winner
from riwoa.text import printable

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\*_[]<>|#&"})
_MOST_TEXT = 4_000


def render(report: Report) -> str:
    """The document."""
    aim = f"riwoa searched for the network with {words.aim(report)}."
    head = [f"# riwoa: what run {report.run_id} found"]
    told = (aim, words.task(report), words.conventions(report), words.since(report))
    head += [line for sentence in told if sentence for line in ("", _text(sentence))]
    if report.winner is None:
        return "\n".join([*head, "", "No network was evaluated yet.", ""])
    parts = (
        _answers(report, report.winner),
        _list("What to do next", report.advice),
        _alike(report),
        _devices(report),
        _winner(report, report.winner),
        _course(report),
        _front(report),
        _descent(report, report.winner),
        _learning(report),
        _again(report),
    )
    return "\n".join([*head, *(line for part in parts for line in part), ""])


def _text(found: object) -> str:
    """Any text made safe for Markdown; `commands` in backquotes stay."""
    parts = printable(found, _MOST_TEXT).split("`")
    return "".join(f"`{part}`" if number % 2 else part.translate(_SPECIAL) for number, part in enumerate(parts))


def _list(title: str, sentences: Iterable[str]) -> list[str]:
    rows = [f"- {_text(sentence)}" for sentence in sentences]
    return ["", f"## {title}", "", *rows] if rows else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]


def _answers(report: Report, winner: Winner) -> list[str]:
    rows = [
        f"- **{ask}**: {_text(big)}" + (f" ({_text(rest.strip())})" if rest else "")
        for ask, big, rest in words.answers(report, winner)
    ]
    return ["", *rows]


def _devices(report: Report) -> list[str]:
    rows = words.device_rows(report)
    return ["", f"## {words.DEVICES_TITLE}", "", *_table(words.DEVICES_HEAD, rows)] if rows else []


def _winner(report: Report, winner: Winner) -> list[str]:
    test = "none" if winner.test is None else words.judged(report.aim, winner.test)
    rows = [f"validation {words.validated(report, winner)}; test {test}", f"latency {words.latency(winner)}"]
    if winner.from_largest is not None:
        rows.append(
            f"against the largest network of the space: {'; '.join(words.changes(winner.from_largest)) or 'the same'}"
        )
    rows += list(filter(None, (words.tie(report, winner), winner.note)))
    layers = [(layer.name, f"{layer.ms:.4f} ms") for layer in winner.layers]
    return [*_list("The winner", rows), *(["", *_table(("layer", "time"), layers)] if layers else [])]


def _alike(report: Report) -> list[str]:
    rows = words.alike_rows(report)
    told = ["", "## The next choices", "", _text(words.alternatives(report))]
    return [*told, "", *_table(words.alike_head(report), rows)] if rows else told


def _course(report: Report) -> list[str]:
    told = [f"evaluation {i.evaluations:,}: {i.words}" for i in report.incidents]
    return _list(
        "How the search went",
        (words.counted(report), *filter(None, [words.nodes(report)]), *told, *report.findings, *report.remarks),
    )


def _front(report: Report) -> list[str]:
    rows = [
        (p.place, words.milliseconds(p.latency_ms), words.judged(report.aim, p.value), "winner" if p.is_winner else "")
        for p in report.front
    ]
    head = ("network", "latency by the table", words.judged_on(report), "")
    return [
        "",
        "## What another latency would cost",
        "",
        _text(words.front_caption(report).strip()),
        "",
        *_table(head, rows),
    ]


def _descent(report: Report, winner: Winner) -> list[str]:
    steps = [
        (
            a.place,
            operator_words(a.operator),
            "" if a.gain is None else words.difference(report.aim, a.gain),
            "; ".join(words.changes(a.changes)),
        )
        for a in winner.descent
    ]
    credit = [
        (
            operator_words(c.operator),
            f"{c.proposals:,}",
            f"{c.wins:,}",
            f"{words.percent(c.low)} to {words.percent(c.high)}",
        )
        for c in report.operators
    ]
    head = ("by", "proposals", "fitter than what they changed", "95 %")
    return [
        "",
        "## Where it came from",
        "",
        *_table(("network", "by", "gain over its parent", "what changed"), steps),
        *(["", *_table(head, credit), "", _text(words.glossary(report))] if credit else []),
    ]


def _learning(report: Report) -> list[str]:
    found = report.learning
    if not found.model and not found.requests:
        return []
    reasons = [f"{words.training(t)}: {'; '.join(t.reasons)}" for t in found.trainings]
    return _list("What the language model did", (words.asked(found), *reasons, *found.failed))


def _again(report: Report) -> list[str]:
    recorded = json.dumps(report.provenance, indent=1, default=str)
    return [
        "",
        "## How to get it, check it and do it again",
        "",
        *_block("\n".join(report.commands)),
        *_block(recorded),
    ]


def _block(lines: str) -> list[str]:
    return [*(f"    {printable(line, _MOST_TEXT)}" for line in lines.splitlines()), ""]
