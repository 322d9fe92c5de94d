"""From a model's text to a patch: the last JSON object after its thinking, checked against the space (ruling 15)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from riwoa.search.space import Choice, Space

MOST_REASON_CHARACTERS = 200
_TAG = re.compile(r"</?think(?:ing)?>", re.IGNORECASE | re.ASCII)
# Only the end of a text can hold the last object; the bound keeps a megabyte of braces cheap.
_TAIL_CHARACTERS = 8_192
# Each brace that begins no object costs a look at what follows it: of thousands, that would be seconds.
_MOST_FALSE_STARTS = 64
_SHOWN_CHARACTERS = 60
# Pairs, not a mapping: a gene that is named twice must be seen, and a nested object must not pass for a choice.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple)
_Pairs = tuple[tuple[str, Any], ...]


class PatchError(ValueError):
    """The text holds no usable patch; the message is the journaled reason: one printable line of bounded length."""

    def __init__(self, reason: str) -> None:
        cut = reason[:MOST_REASON_CHARACTERS]
        super().__init__("".join(c if c.isprintable() else " " if c.isspace() else "?" for c in cut))


def told(reason: str) -> str:
    """What a later prompt says of a journaled reason: it without the words of the reply.

    Whoever wrote the reply could put anything there, a chat template's own tokens among it.
    """
    if reason.startswith("unknown gene "):
        return "unknown gene"
    if reason.endswith(" is named twice"):
        return "a gene is named twice"
    gene, illegal, rest = reason.partition(" has no choice ")
    if not illegal:
        return reason
    _, known, choices = rest.rpartition("; choose from ")
    return f"{gene} has no such choice{known}{choices}"


def split_thinking(text: str) -> tuple[str, str]:
    """The reasoning, without its tags, and the answer after it.

    The opening tag may be missing (some templates write it into the prompt), and there may be no reasoning at all. A
    text that ends while still thinking has no answer.
    """
    tags = list(_TAG.finditer(text))
    if not tags:
        return "", text
    thinking_ended = tags[-1].group().startswith("</")
    end = tags[-1].end() if thinking_ended else len(text)
    return _TAG.sub("", text[:end]).strip(), text[end:]


def parse_patch(
    text: str,
    space: Space,
    parent: Mapping[str, Any],
    *,
    choices: Mapping[str, Sequence[Choice]] | None = None,
    most_genes: int | None = None,
) -> dict[str, Choice]:
    """The patch in ``text``: genes of ``parent`` (an architecture: active genes only) with new choices.

    Genes that keep their choice are dropped; what remains changes the parent.

    Args:
        text: whatever the model wrote.
        space: the space of the parent.
        parent: what the patch changes.
        choices: what the request offered; without it, every legal choice.
        most_genes: how many genes the patch may change; without it, any number.

    Raises:
        PatchError: no JSON object, a nested one, a gene unknown, inactive or named twice, a choice illegal or not
            offered, too many changes, or none. No other exception leaves this function, whatever the text.
    """
    patch: dict[str, Choice] = {}
    for gene, choice in _pairs(text):
        if gene not in space.position:
            raise PatchError(f"unknown gene {_shown(gene)}")
        if gene not in parent:
            raise PatchError(f"gene {gene!r} is inactive in the parent")
        legal = _legal(gene, choice, space.genes[space.position[gene]].choices)
        if legal == parent[gene]:
            continue
        if choices is not None and legal not in choices.get(gene, ()):
            raise PatchError(f"gene {gene!r}: {_shown(legal)} was not offered")
        patch[gene] = legal
    return _sized(patch, most_genes)


def offered_patch(
    text: str, choices: Mapping[str, Sequence[Choice]], most_genes: int | None = None
) -> dict[str, Choice]:
    """As ``parse_patch`` where only the offer is known: every gene of the patch must be an offered one.

    Raises:
        PatchError: as there.
    """
    patch: dict[str, Choice] = {}
    for gene, choice in _pairs(text):
        if gene not in choices:
            raise PatchError(f"gene {_shown(gene)} was not offered")
        patch[gene] = _legal(gene, choice, choices[gene])
    return _sized(patch, most_genes)


def _pairs(text: str) -> _Pairs:
    """What the answer says, each gene once."""
    pairs = _last_object(split_thinking(text)[1])
    named: set[str] = set()
    for gene, _ in pairs:
        if gene in named:
            raise PatchError(f"gene {_shown(gene)} is named twice")
        named.add(gene)
    return pairs


def _legal(gene: str, choice: object, known: Sequence[Choice]) -> Choice:
    """The space's own spelling of a choice (32 where the model wrote 32.0)."""
    if isinstance(choice, bool) or not isinstance(choice, str | int | float):
        raise PatchError(f"gene {gene!r} needs a plain choice")
    for legal in known:
        if legal == choice:
            return legal
    raise PatchError(f"gene {gene!r} has no choice {_shown(choice)}; choose from {list(known)!r}")


def _sized(patch: dict[str, Choice], most_genes: int | None) -> dict[str, Choice]:
    if not patch:
        raise PatchError("the patch changes nothing")
    if most_genes is not None and len(patch) > most_genes:
        raise PatchError(f"the patch changes {len(patch)} genes, more than {most_genes}")
    return patch


def _shown(value: object) -> str:
    """What the model wrote, in ASCII, so that look-alikes show, and not all of it."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _last_object(answer: str) -> _Pairs:
    """The pairs of the last balanced JSON object."""
    answer = answer[-_TAIL_CHARACTERS:]
    found: _Pairs | None = None
    false_starts = 0
    start = answer.find("{")
    while start >= 0:
        try:
            found, end = _DECODER.raw_decode(answer, start)
        except (ValueError, RecursionError):
            false_starts += 1
            if false_starts > _MOST_FALSE_STARTS:
                raise PatchError("no JSON object in the answer, among too many braces") from None
            start = answer.find("{", start + 1)
        else:
            start = answer.find("{", end)
    if found is None:
        raise PatchError("no JSON object in the answer")
    return found
