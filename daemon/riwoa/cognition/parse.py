"""From a model's text to a patch: the last JSON object after its thinking, checked against the space (ruling 15)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from riwoa.search.space import Choice, Space, SpaceError

_THINKING_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# Only the end of a text can hold the last object; the bound keeps a megabyte of braces cheap.
_TAIL_CHARACTERS = 16_384
_DECODER = json.JSONDecoder()


class PatchError(ValueError):
    """The text holds no usable patch; the message is the journaled reason."""


def parse_patch(text: str, space: Space, parent: Mapping[str, Any]) -> dict[str, Choice]:
    """The patch in ``text``: genes of ``parent`` (an architecture: active genes only) with new choices.

    Genes that keep their choice are dropped; what remains changes the parent.

    Raises:
        PatchError: no JSON object, a nested one, an unknown or inactive gene, an illegal choice, or no change. No other
            exception leaves this function, whatever the text.
    """
    found = _last_object(text)
    patch: dict[str, Choice] = {}
    for gene, choice in found.items():
        if gene not in space.position:
            raise PatchError(f"unknown gene {gene[:60]!r}")
        if gene not in parent:
            raise PatchError(f"gene {gene!r} is inactive in the parent")
        if isinstance(choice, bool) or not isinstance(choice, str | int | float):
            raise PatchError(f"gene {gene!r} needs a plain choice")
        try:
            index = space.choice_index(space.position[gene], choice)
        except SpaceError as error:
            raise PatchError(str(error)[:200]) from None
        legal = space.genes[space.position[gene]].choices[index]
        if legal != parent[gene]:
            patch[gene] = legal
    if not patch:
        raise PatchError("the patch changes nothing")
    return patch


def _last_object(text: str) -> dict[str, Any]:
    """The last balanced JSON object after the last closing thinking tag."""
    ends = list(_THINKING_ENDS.finditer(text))
    answer = text[ends[-1].end() :] if ends else text
    answer = answer[-_TAIL_CHARACTERS:]
    found: dict[str, Any] | None = None
    start = answer.find("{")
    while start >= 0:
        try:
            value, end = _DECODER.raw_decode(answer, start)
        except (ValueError, RecursionError):
            start = answer.find("{", start + 1)
            continue
        found = value
        start = answer.find("{", end)
    if found is None:
        raise PatchError("no JSON object in the answer")
    return found
