"""Prompts made from what the search knows; the words are data files (``riwoa/data/prompts``), frozen by tests.

The system message holds what is the same for every request of a run, so that the model's process computes it once.
Names and choices are anybody's: they go in as ``spelling`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template as Words
from typing import Any, Literal

from riwoa.cognition.protocol import Choice, GenerationRequest, GenerationSettings
from riwoa.cognition.spelling import in_json, in_words
from riwoa.search.fitness import Constraint
from riwoa.search.space import Space
from riwoa.text import measured, printable
from riwoa_storage.records import RequestRecord

_OF_A_RUN = ("space", "choices", "goal", "aim", "also", "within", "genes")  # the same in every prompt of a run
Offered = Mapping[str, Sequence[Choice]]
LatencyAfter = Callable[[Mapping[str, Choice]], float]  # of the parent with this patch, in milliseconds
ListedChange = tuple[dict[str, Choice], float | None]  # a patch and the milliseconds that it adds, where they are known
_EXAMPLE_CHARACTERS = 200  # of what a search learned and of a step alike: a strategy is not to win by its length
_ABOUT_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class EarlierPatch:
    """An earlier patch: what it changed, and what came of it."""

    patch: Mapping[str, Choice]
    before: Mapping[str, Choice]  # the parent's choices of the same genes
    gain: float | None = None  # of fitness, where the child was evaluated
    reason: str | None = None  # why it was rejected


@dataclass(frozen=True, slots=True)
class Belief:
    """What the surrogate believes that a patch brings: the gain's mean and standard deviation; its milliseconds."""

    patch: Mapping[str, Choice]
    before: Mapping[str, Choice]  # the parent's choices of the same genes
    gain: float
    deviation: float
    added_ms: float | None = None  # where latencies are known


@dataclass(frozen=True, slots=True)
class EarlierStep:
    """From an evaluated network to its evaluated child."""

    patch: Mapping[str, Choice]
    before: Mapping[str, Choice]  # the parent's choices of the same genes
    gain: float  # of the metric, the more the better
    added_ms: float | None = None  # where latencies are known
    won: bool = True  # whether the child is the better one, all limits considered


@dataclass(frozen=True, slots=True)
class EarlierLesson:
    """What steps that changed the same came to (``riwoa.learning.bank``).

    Attributes:
        about: what they changed.
        verdict: by the newer rather than the older.
        tries: steps.
        wins: of them, better than their parents, all limits considered.
        gain: of the metric, their mean.
        added_ms: likewise; None where latencies are not known.
        example: one of them.
    """

    about: str
    verdict: Literal["gains", "loses", "mixed"]
    tries: int
    wins: int
    gain: float
    added_ms: float | None
    example: EarlierStep


@dataclass(frozen=True, slots=True)
class Goal:
    """What a run looks for, where that is more than accuracy within a latency target.

    Attributes:
        metric: that is optimised.
        lowered: whether it is to be made smaller.
        limits: the others, each with what the parent makes of it: None where that is not known.
        keeps: whether the parent with a patch keeps those of them that are known beforehand; None where none is.
    """

    metric: str = "accuracy"
    lowered: bool = False
    limits: Sequence[tuple[Constraint, float | None]] = ()
    keeps: Callable[[Mapping[str, Choice]], bool] | None = None

    @property
    def words(self) -> str:
        """What is to be done."""
        return f"{'lower' if self.lowered else 'raise'} its {in_words(self.metric)}"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the search knows of one parent."""

    space: Space
    parent: Mapping[str, Choice]  # active genes only
    accuracy: float | None  # or what else the goal's metric is
    latency_ms: float | None
    target_ms: float | None
    layer_ms: Mapping[str, float]  # layer ("stage1.block2") -> milliseconds in the latency table; {} when unknown
    latency_after: LatencyAfter | None  # the table is free to ask
    successes: Sequence[EarlierPatch] = ()
    rejected: Sequence[EarlierPatch] = ()
    goal: Goal = Goal()
    neighbours: Sequence[EarlierPatch] = ()  # evaluated networks near the parent, as patches on it
    beliefs: Sequence[Belief] = ()
    lessons: Sequence[EarlierLesson] = ()
    newest: Sequence[EarlierStep] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """The words of a prompt and how much of each part it holds: one strategy of prompting."""

    name: str
    system: str
    user: str
    lead: str  # what the reasoning begins with: a small model left to itself copies the list until its budget ends
    options: int  # changes that are listed
    memories: int  # successes, and as many rejected patches
    neighbours: int = 0  # evaluated networks near the parent
    beliefs: int = 0  # changes of which the surrogate's belief is told
    lessons: int = 0  # of the bank
    newest: int = 0  # steps, as they come: what lessons are compared with


@cache
def pool_templates() -> tuple[Template, ...]:
    """The package's strategies for several patches at once, by name."""
    found = (files("riwoa") / "data" / "prompts").iterdir()
    names = sorted(file.name.removesuffix(".json") for file in found if file.name.startswith("pool_"))
    return tuple(load_template(name) for name in names)


@cache
def load_template(name: str) -> Template:
    """A template of the package."""
    table = json.loads((files("riwoa") / "data" / "prompts" / f"{name}.json").read_text(encoding="utf-8"))
    return Template(**{**table, "name": name, "system": "\n".join(table["system"]), "user": "\n".join(table["user"])})


def compose(situation: Situation, choices: Offered, template: Template, most_genes: int = 1) -> tuple[str, str]:
    """The system message and the request.

    Args:
        situation: what is known.
        choices: the genes that may change, each with the choices on offer.
        template: the words.
        most_genes: that a patch may change.
    """
    s = situation
    heading, changes = listed_changes(s, choices, template.options) if template.options else ("", [])
    values = {
        "space": in_words(s.space.name),
        "choices": _choices(s.space),
        "target": "none" if s.target_ms is None else f"{s.target_ms:.2f} ms",
        "goal": s.goal.words,
        "aim": _aim(s.goal),
        "also": " and the other limits" if s.goal.limits else "",
        "limits": _limits(s.goal),
        "metric": in_words(s.goal.metric),
        "accuracy": "unknown" if s.accuracy is None else measured(s.goal.metric, s.accuracy),
        "latency": "unknown" if s.latency_ms is None else f"{s.latency_ms:.2f} ms",
        "context": _context(s),
        "layers": "\n".join(_layers(s)),
        "heading": heading,
        "options": "\n".join(_option(patch, ms) for patch, ms in changes),
        "successes": _told(s.successes, template.memories, s.goal.metric),
        "rejected": _told(s.rejected, template.memories, s.goal.metric),
        "within": "" if s.target_ms is None else ", keep its latency within the target",
        "standing": _standing(s),
        "genes": "1 gene" if most_genes == 1 else f"1 to {most_genes} genes",
        "neighbours": "\n".join(_memory(m, s.goal.metric) for m in s.neighbours[: template.neighbours]) or "none yet",
        "beliefs": "\n".join(_belief(b, s.goal.metric) for b in s.beliefs[: template.beliefs]) or "nothing yet",
        "lessons": "\n".join(_lesson(one, s) for one in _agreed(s.lessons)[: template.lessons]) or "nothing yet",
        "newest": "\n".join(_step(one, s) for one in s.newest[: template.newest]) or "nothing yet",
    }
    system = Words(template.system).substitute({k: values[k] for k in _OF_A_RUN})
    return system, Words(template.user).substitute(values)


def parameters_of(
    system: str,
    choices: Offered,
    most_genes: int,
    parent: Mapping[str, Choice],
    settings: GenerationSettings,
    lead: str = "",
) -> dict[str, Any]:
    """What a request journals beside its prompt; ``generation_request_of`` reads it."""
    return {
        "system": system,
        "lead": lead,
        "choices": {gene: list(offered) for gene, offered in choices.items()},
        "most_genes": most_genes,
        "parent": dict(parent),
        "settings": settings.to_json(),
    }


def generation_request_of(request: RequestRecord) -> GenerationRequest:
    """The request as the model's process takes it."""
    p = request.parameters
    return GenerationRequest(
        id=request.request_id,
        seed=request.seed,
        system=p["system"],
        prompt=request.prompt,
        choices=spoken_choices(p),
        most_genes=p["most_genes"],
        lead=p.get("lead", ""),  # requests of 0.1's first journals have none
        samples=p.get("samples"),
    )


def spoken_choices(parameters: Mapping[str, Any]) -> dict[str, tuple[Choice, ...]]:
    """What a request offers, as a reply is to spell it: in words, where choices have some."""
    words = parameters.get("words", {})
    return {gene: tuple(words.get(gene, choices)) for gene, choices in parameters["choices"].items()}


def _choices(space: Space) -> str:
    """Legal choices, once for genes that are alike: ``kernel 3 5 7``."""
    alike: dict[str, None] = {}
    for gene in space.genes:
        tail = gene.name.rpartition(".")[2]
        name = in_words(gene.name if tail.isdigit() else tail)
        alike[f"{name} {' '.join(map(in_words, gene.choices))}"] = None
    return "; ".join(alike)


def _aim(goal: Goal) -> str:
    if goal.metric == "accuracy" and not goal.lowered:
        return "its accuracy on held-out images must rise"
    return f"its {in_words(goal.metric)} must {'fall' if goal.lowered else 'rise'}"


def _limits(goal: Goal) -> str:
    """A line of the limits beside the latency target; empty where there are none."""
    if not goal.limits:
        return ""
    return "\nLimits: " + "; ".join(_limit(limit, value) for limit, value in goal.limits) + "."


def _limit(limit: Constraint, value: float | None) -> str:
    metric, sign = in_words(limit.metric), ">=" if limit.at_least else "<="
    stated = f"{metric} {sign} {measured(limit.metric, limit.limit)}"
    if value is None:
        return stated
    missed = "" if limit.met(value) else ": too little" if limit.at_least else ": too much"
    return f"{stated} (now {measured(limit.metric, value)}{missed})"


def _standing(s: Situation) -> str:
    """The parent's value, and its latency where one is asked for."""
    value = "unknown" if s.accuracy is None else measured(s.goal.metric, s.accuracy)
    latency = "unknown" if s.latency_ms is None else f"{s.latency_ms:.2f} ms"
    asked = "" if s.target_ms is None else f"; latency {latency} of {s.target_ms:.2f} ms"
    return f"{in_words(s.goal.metric)} {value}{asked}"


def _context(s: Situation) -> str:
    metric, verb = in_words(s.goal.metric), "lower" if s.goal.lowered else "raise"
    if s.target_ms is None or s.latency_ms is None:
        return f"no latency target: {verb} {metric}"
    room_ms = s.target_ms - s.latency_ms
    if room_ms < 0:
        return f"too slow by {-room_ms:.2f} ms: reduce"
    return f"headroom {room_ms:.2f} ms: spend it {'to lower' if s.goal.lowered else 'on'} {metric}"


def _layers(s: Situation) -> list[str]:
    """One line a top part: its own genes, then each layer's choices and its share of the latency.

    ``stage1 depth 2 | 5/3 8% | 3/4 6%``
    """
    total_ms = s.latency_ms or sum(s.layer_ms.values())
    parts: dict[str, list[str]] = {}
    inner: dict[str, dict[str, list[str]]] = {}
    for gene, choice in s.parent.items():
        top, *rest = gene.split(".")
        if len(rest) < 2 and "".join(rest).isdigit():  # "edge.0": the number is part of the name
            parts.setdefault(gene, []).append(in_words(choice))
        elif len(rest) < 2:
            parts.setdefault(top, []).append(" ".join(map(in_words, [*rest, choice])))
        else:
            parts.setdefault(top, [])
            inner.setdefault(top, {}).setdefault(rest[0], []).append(in_words(choice))
    lines = []
    for top, own in parts.items():
        line = " ".join([in_words(top), *own])
        for layer, values in inner.get(top, {}).items():
            part_ms = s.layer_ms.get(f"{top}.{layer}")
            share = f" {100 * part_ms / total_ms:.0f}%" if part_ms is not None and total_ms > 0 else ""
            line += f" | {'/'.join(values)}{share}"
        lines.append(line)
    return lines


def listed_changes(s: Situation, choices: Offered, most: int) -> tuple[str, list[ListedChange]]:
    """The heading and the changes of one gene under it: those that the limits known beforehand let through.

    Those that spend most come first. While none comes within the limits, the greatest cuts instead. Without a table,
    some of the changes, without milliseconds.
    """
    keeps, target_ms = s.goal.keeps, s.target_ms
    every = [{gene: choice} for gene, offered in choices.items() for choice in offered]
    kept = every if keeps is None else list(filter(keeps, every))
    if s.latency_after is None or s.latency_ms is None:
        heading = "Some changes" if keeps is None else "Changes that fit" if kept else "No single change fits; some"
        listed = kept or every
        return heading, [(patch, None) for patch in listed[:: max(1, len(listed) // most)][:most]]
    after = [(s.latency_after(patch), patch) for patch in kept or every]
    fits = [row for row in after if kept and (target_ms is None or row[0] <= target_ms)]
    if fits:
        heading = "Some changes" if keeps is None and target_ms is None else "Changes that fit"
        ranked = sorted(fits, key=lambda row: -row[0])
    else:
        heading = "No single change fits; those that save most"
        ranked = sorted(after, key=lambda row: row[0])
    return heading, [(patch, ms - s.latency_ms) for ms, patch in ranked[:most]]


def _option(patch: Mapping[str, Choice], ms: float | None) -> str:
    return in_json(patch) + ("" if ms is None else f" {ms:+.2f} ms")


def _told(memories: Sequence[EarlierPatch], most: int, metric: str) -> str:
    """The newest ``most`` memories in one line."""
    return "; ".join(_memory(m, metric) for m in memories[-most:]) or "none yet"


def _memory(m: EarlierPatch, metric: str) -> str:
    changes = _changes(m.patch, m.before)
    outcome = in_words(m.reason or "rejected") if m.gain is None else _gained(m.gain, metric)
    return f"{changes}: {outcome}" if changes else outcome


def _belief(b: Belief, metric: str) -> str:
    deviation = f"{100 * b.deviation:.2f} %" if metric == "accuracy" else f"{b.deviation:.2g}"
    cost = "" if b.added_ms is None else f", {b.added_ms:+.2f} ms"
    return f"{_changes(b.patch, b.before)}: {_gained(b.gain, metric)} ± {deviation}{cost}"


def _agreed(lessons: Sequence[EarlierLesson]) -> list[EarlierLesson]:
    """Lessons each about something else: where several say what the same changes came to, their sum, in place."""
    found: dict[str, EarlierLesson] = {}
    for lesson in lessons:
        other = found.setdefault(lesson.about, lesson)
        if other is lesson:
            continue
        share = lesson.tries / (lesson.tries + other.tries)
        unknown = lesson.added_ms is None or other.added_ms is None
        found[lesson.about] = EarlierLesson(
            about=lesson.about,
            verdict=lesson.verdict if lesson.verdict == other.verdict else "mixed",
            tries=lesson.tries + other.tries,
            wins=lesson.wins + other.wins,
            gain=share * lesson.gain + (1.0 - share) * other.gain,
            added_ms=None if unknown else share * (lesson.added_ms or 0.0) + (1.0 - share) * (other.added_ms or 0.0),
            example=other.example,
        )
    return list(found.values())


def _lesson(lesson: EarlierLesson, s: Situation) -> str:
    """``kernel up in stage4: mostly better (7 of 9), on average +0.12 %, +0.45 ms; one: ...``, of its example."""
    told = f"{in_words(printable(lesson.about, _ABOUT_CHARACTERS))}: {_verdict(lesson)}"
    told += f", on average {_brought(lesson.gain, lesson.added_ms, s)}; one: "
    outcome = f": {_brought(lesson.example.gain, lesson.example.added_ms, s)}"
    return told + _shortened(lesson.example, _EXAMPLE_CHARACTERS - len(told) - len(outcome)) + outcome


def _verdict(lesson: EarlierLesson) -> str:
    """What a lesson says, with its count; the newer steps have decided, so the count of all may say otherwise."""
    tries, wins = lesson.tries, lesson.wins
    if lesson.verdict == "mixed":
        return f"now better, now worse ({wins} of {tries} better)"
    if lesson.verdict == "gains":
        often = "" if wins == tries else "mostly " if 2 * wins > tries else "lately "
        return f"{often}better ({wins} of {tries})"
    why = ", beyond a limit" if lesson.gain > 0.0 else ""
    often = "" if wins == 0 else "mostly " if 2 * wins < tries else "lately "
    return f"{often}worse ({tries - wins} of {tries}){why}"


def _step(step: EarlierStep, s: Situation) -> str:
    outcome = f": {'better' if step.won else 'worse'}, {_brought(step.gain, step.added_ms, s)}"
    return _shortened(step, _EXAMPLE_CHARACTERS - len(outcome)) + outcome


def _brought(gain: float, added_ms: float | None, s: Situation) -> str:
    cost = "" if added_ms is None or s.target_ms is None else f", {added_ms:+.2f} ms"
    return _gained(gain, s.goal.metric) + cost


def _shortened(step: EarlierStep, room: int) -> str:
    """The changes of a step, as many as there is room for: one at least."""
    told = [_changes({gene: choice}, step.before) for gene, choice in step.patch.items()]
    shown = next((n for n in range(len(told), 1, -1) if len(_some(told, n)) <= room), 1)
    return _some(told, shown)


def _some(told: Sequence[str], shown: int) -> str:
    more = f" and {len(told) - shown} more" if len(told) > shown else ""
    return ", ".join(told[:shown]) + more


def _changes(patch: Mapping[str, Choice], before: Mapping[str, Choice]) -> str:
    return ", ".join(
        f"{in_words(gene)} {in_words(before.get(gene, '?'))} to {in_words(choice)}" for gene, choice in patch.items()
    )


def _gained(gain: float, metric: str) -> str:
    return f"{100 * gain:+.2f} %" if metric == "accuracy" else f"{gain:+.4g}"
