"""Who answers requests: one small face, and a deterministic script that wears it in tests and dry runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from riwoa.cognition.parse import PatchError
from riwoa.search.space import Choice, Space
from riwoa_storage.records import ReplyRecord, RequestRecord


class ProposalProvider(Protocol):
    """Answers whole batches; a reply a request, in order."""

    model: str

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """Replies to every request of the batch. Cancelled when the desk's patience ends."""
        ...

    async def close(self) -> None:
        """Give back whatever the provider holds."""
        ...


def request_prompt(
    space: Space, parent: Mapping[str, Any], metrics: tuple[float, float] | None, target_ms: float | None
) -> str:
    """What the model is told of the parent, its (accuracy, latency_ms) and the target: one JSON object."""
    accuracy, latency_ms = metrics or (None, None)
    return json.dumps(
        {
            "space": space.name,
            "target_ms": target_ms,
            "accuracy": accuracy,
            "latency_ms": latency_ms,
            "parent": dict(parent),
        },
        sort_keys=True,
    )


class ScriptedProvider:
    """Deterministic replies from the request's seed: the same request gets the same text on every machine.

    ``script``: "good" (always a legal one-gene patch), "mixed" (some garbage, some empty), "failing" (raises), "slow"
    (sleeps beyond any patience). The text has the shape of a reasoning model's: thinking, then one JSON object.
    """

    def __init__(self, space: Space, script: str, delay_s: float = 0.0) -> None:
        self.model = f"scripted:{script}"
        self._space = space
        self._script = script
        self._delay_s = delay_s

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        started = time.monotonic()
        if self._script == "slow":
            await asyncio.sleep(3600)
        if self._script == "failing":
            raise RuntimeError("the scripted model fails, as it was told to")
        await asyncio.sleep(self._delay_s)
        return [self._reply(request, time.monotonic() - started) for request in batch]

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""

    def _reply(self, request: RequestRecord, duration_s: float) -> ReplyRecord:
        text = self._text(request)
        return ReplyRecord(
            request_id=request.request_id,
            status="ok",
            text=text,
            reason=None,
            tokens=len(text.split()),
            duration_s=duration_s,
            created_unix_s=time.time(),
        )

    def _text(self, request: RequestRecord) -> str:
        draw = int.from_bytes(hashlib.sha256(f"{request.seed}".encode()).digest()[:8], "big")
        if self._script == "mixed" and draw % 4 == 0:
            return "<think>I lost the thread.</think> {{{ not json"
        if self._script == "mixed" and draw % 4 == 1:
            return ""
        parent = json.loads(request.prompt)["parent"]
        patch = single_change(self._space, parent, draw >> 8)
        ((gene, choice),) = patch.items()
        thought = f"{gene} is {parent[gene]!r}; {choice!r} may pay better at this latency."
        return f"<think>{thought}</think>\n{json.dumps(patch)}"


def single_change(space: Space, parent: Mapping[str, Any], draw: int) -> dict[str, Choice]:
    """A uniform one-gene patch of an architecture, chosen by an integer: also the placebo of ruling 20.

    Raises:
        PatchError: every active gene has one choice only, so nothing can change.
    """
    options = [
        (gene.name, choice)
        for gene in space.genes
        if gene.name in parent
        for choice in gene.choices
        if choice != parent[gene.name]
    ]
    if not options:
        raise PatchError("nothing in this architecture can change")
    name, choice = options[draw % len(options)]
    return {name: choice}
