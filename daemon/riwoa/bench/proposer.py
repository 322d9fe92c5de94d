"""Proposals of a language model at given parents, as a search asks for them, and what came of each."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riwoa.bench.parents import Parent
from riwoa.bench.tasks import Task
from riwoa.cognition.parse import PatchError, offered_patch
from riwoa.cognition.prompt import EarlierPatch, compose, generation_request_of, parameters_of
from riwoa.cognition.protocol import Choice, GenerationSettings
from riwoa.cognition.provider import ProposalProvider
from riwoa.run.offers import seed_of
from riwoa.run.style import Style
from riwoa_storage.records import ReplyRecord, RequestRecord

SEED = 90_001  # of everything that is drawn in this benchmark
CHUNK = 32  # requests in one batch
Say = Callable[[str], None]
Patch = Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one proposal."""

    patch: Patch | None  # None where the reply held none, and for the spiral
    key: str | None
    gain: float | None  # of fitness over the parent; None where there was no child
    fresh: bool  # not evaluated by the parent's search before

    @property
    def won(self) -> bool:
        """Fitter than the parent."""
        return self.gain is not None and self.gain > 0.0


class Proposer:
    """A language model that is asked for one change at each of some parents.

    Args:
        task: what children are judged on.
        provider: the language model's process.
        model: its name.
        style: how it writes.
        say: told how far it is.
    """

    def __init__(self, task: Task, provider: ProposalProvider, model: str, style: Style, say: Say) -> None:
        self._task = task
        self._provider = provider
        self._model = model
        self._style = style
        self._say = say
        self._successes: list[EarlierPatch] = []
        self._rejected: list[EarlierPatch] = []

    def remember(self, memories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Tell the next prompts of these patches; where there are none of a sort, of those before."""
        self._successes = [EarlierPatch(**m) for m in memories["successes"]] or self._successes
        self._rejected = [EarlierPatch(**m) for m in memories["rejected"]] or self._rejected

    async def use(self, adapter: Path | None) -> None:
        """Have the model use an adapter's file, or none."""
        sha256 = None if adapter is None else await asyncio.to_thread(_sha256, adapter)
        await self._provider.use_adapter(sha256, adapter)

    def requests(self, parents: Sequence[Parent], purpose: str, *, memories: bool = True) -> list[RequestRecord]:
        """A request a parent; with ``memories`` its prompt tells of earlier patches, as in a search."""
        return [self._request(i, parent, purpose, memories) for i, parent in enumerate(parents)]

    def _request(self, number: int, parent: Parent, purpose: str, memories: bool) -> RequestRecord:
        told = (self._successes[-3:], self._rejected[-8:]) if memories else ((), ())
        choices = parent.choices
        system, prompt = compose(parent.situation(*told), choices, self._style.template)
        return RequestRecord(
            request_id=f"1/0/{number}",
            run_id=1,
            generation=0,
            slot=number,
            join_generation=0,
            model=self._model,
            adapter_sha256=None,
            seed=seed_of(SEED, 0, number, purpose),
            prompt=prompt,
            parameters=parameters_of(
                system, choices, 1, parent.architecture, self._style.settings, self._style.template.lead
            ),
            created_unix_s=0.0,
        )

    async def replies(
        self, requests: Sequence[RequestRecord], settings: GenerationSettings | None = None
    ) -> tuple[list[ReplyRecord], float]:
        """The replies, and the seconds that they took."""
        if settings is not None:
            requests = [replace(r, parameters={**r.parameters, "settings": settings.to_json()}) for r in requests]
        replies: list[ReplyRecord] = []
        started = time.monotonic()
        for start in range(0, len(requests), CHUNK):
            replies += await self._provider.generate(requests[start : start + CHUNK])
            self._say(f"{self._task.name}: {len(replies)} of {len(requests)} replies")
        return replies, time.monotonic() - started

    def patches(self, requests: Sequence[RequestRecord], replies: Sequence[ReplyRecord]) -> list[Patch | None]:
        """The patch of each reply; None where it holds none that was offered."""
        return [_patch(request, reply) for request, reply in zip(requests, replies, strict=True)]

    async def outcomes(self, parents: Sequence[Parent], patches: Sequence[Patch | None]) -> list[Outcome]:
        """What came of a patch at each parent."""
        children = [p.child(patch) if patch else None for p, patch in zip(parents, patches, strict=True)]
        return await self.evaluated(parents, patches, children)

    async def evaluated(
        self, parents: Sequence[Parent], patches: Sequence[Patch | None], children: Sequence[Mapping[str, Any] | None]
    ) -> list[Outcome]:
        """What came of a child of each parent; None for no child."""
        accuracies = iter(await self._task.accuracies([c for c in children if c is not None]))
        outcomes = []
        for parent, patch, child in zip(parents, patches, children, strict=True):
            if child is None:
                outcomes.append(Outcome(patch, None, None, False))
                continue
            accuracy = next(accuracies)
            key = self._task.space.key(self._task.space.indices(child))
            gain = parent.fitness(accuracy, child) - parent.fitness(parent.accuracy, parent.architecture)
            outcomes.append(Outcome(patch, f"{parent.seed}/{key}", gain, key not in parent.known))
        return outcomes


def _patch(request: RequestRecord, reply: ReplyRecord) -> Patch | None:
    ask = generation_request_of(request)
    try:
        return offered_patch(reply.text, ask.choices, ask.most_genes)
    except PatchError:
        return None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
