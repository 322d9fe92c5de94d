"""Who answers requests: one small face, and a deterministic script that wears it in tests and dry runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from riwoa.cognition.protocol import Measured, OnTrainingStep, Sample, Trained, TrainingJob
from riwoa.cognition.samples import packed, samples_wanted
from riwoa.cognition.spelling import in_json, in_words
from riwoa.errors import AdapterError, CognitionError
from riwoa_storage.events import Event
from riwoa_storage.records import ReplyRecord, RequestRecord

ProviderState = Literal[
    "stopped", "starting", "ready", "generating", "training", "breaker open", "unavailable", "budget spent"
]
# Takes a reply that has come, and what happened with it, before the others of its batch have.
Deliver = Callable[[ReplyRecord, Sequence[Event]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """What a model on a server is, and costs; tokens are read and written."""

    url: str
    model: str | None  # that answered last, by its own word
    changed: str | None  # how that has changed in the run, in words
    constrained: bool  # whether the server holds its texts to the schema, as far as is known
    night_in: int
    night_out: int
    run_in: int
    run_out: int
    budget: int | None  # of a night
    night_cost: float | None  # by the prices that are given
    run_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStats:
    """A snapshot for the status."""

    state: ProviderState
    reason: str | None = None  # the last failure, while nothing has succeeded since
    breaker_left: int = 0  # batches that are still turned away
    adapter_sha256: str | None = None
    tokens: int = 0
    tokens_per_s: float | None = None  # while generating; None before the first batch
    restarts: int = 0
    pid: int | None = None
    resident_bytes: int | None = None
    server: ServerStats | None = None


class ProposalProvider(Protocol):
    """Answers whole batches and learns; one operation at a time. Cancelling one gives it up, at once.

    A request that names ``samples`` (``cognition.samples.samples_wanted``) is answered with one reply that holds up to
    so many texts (``cognition.samples.packed``), each written as if it were the only one.
    """

    model: str

    async def start(self) -> None:
        """Be ready to answer, if that takes time; no other method's patience then pays for it. Idempotent.

        Raises:
            CognitionError: it cannot be made ready (ModelError: nor will it ever be).
        """

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """Replies to every request of the batch, in order. Cancelled when the proposal queue's patience ends.

        Raises:
            CognitionError: the batch failed.
        """

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """Answer with these LoRA weights from now on; None for the bare model. Nothing happens if they are in use.

        Raises:
            AdapterError: the weights are missing, damaged or another model's; the adapter in use stays.
            CognitionError: the provider failed.
        """

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        """Train a copy of the adapter in use and write it to ``job.weights_path``, or try it; it stays in use.

        Args:
            job: what to learn.
            on_progress: called at each step: proof of life.

        Raises:
            CognitionError: the training failed.
        """

    async def close(self) -> None:
        """Give back whatever the provider holds. Idempotent."""

    def stats(self) -> ProviderStats:
        """What is going on."""


@runtime_checkable
class DeliveringProvider(ProposalProvider, Protocol):
    """A provider that hands over each reply as it comes: what was paid for is journaled, whatever befalls the batch."""

    deliver: Deliver | None  # set by whoever asks


class ScriptedProvider:
    """Deterministic replies from the request's seed: the same request gets the same text on every machine.

    ``script``: "good" (always a legal one-gene patch, every training helps), "mixed" (some garbage, some empty; half
    of the trainings collapse), "failing" (raises), "slow" (sleeps beyond any patience). The text has the shape of a
    reasoning model's: thinking, then one JSON object; it depends on the adapter in use.
    """

    def __init__(self, script: str, delay_s: float = 0.0) -> None:
        self.model = f"scripted:{script}"
        self._script = script
        self._delay_s = delay_s
        self._adapter: str | None = None
        self._state: ProviderState = "ready"
        self._tokens = 0
        self._busy_s = 0.0

    async def start(self) -> None:
        """See ``ProposalProvider.start``."""

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        started = time.monotonic()
        await self._act("generating")
        duration_s = time.monotonic() - started
        replies = [self._reply(request, duration_s) for request in batch]
        self._tokens += sum(r.tokens for r in replies)
        self._busy_s += duration_s
        return replies

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """See ``ProposalProvider.use_adapter``."""
        if sha256 == self._adapter:
            return
        if path is not None and hashlib.sha256(await asyncio.to_thread(path.read_bytes)).hexdigest() != sha256:
            raise AdapterError(f"{path}: not the adapter {sha256}")
        self._adapter = sha256

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        """See ``ProposalProvider.train``: weights and numbers are made up from the job's seed, examples and adapter."""
        await self._act("training")
        on_progress({"step": 1, "steps": 1})
        ids = [e.id for e in (*job.examples, *job.held_out)] + [c.id for c in (*job.comparisons, *job.judging)]
        anchored = [] if job.anchor_path is None else [Path(job.anchor_path).stem]
        draw = hashlib.sha256(json.dumps([job.seed, ids, self._adapter, *anchored]).encode()).digest()
        weights = _safetensors(draw)
        if not job.trial:
            await asyncio.to_thread(Path(job.weights_path).write_bytes, weights)
        collapsed = self._script == "mixed" and draw[0] % 2 == 1
        return Trained(
            sha256="" if job.trial else hashlib.sha256(weights).hexdigest(),
            losses=(2.0, 1.5) if job.examples or job.comparisons else (),
            tokens=sum(len(e.text.split()) for e in job.examples),
            duration_s=0.0,
            before=_measured(job, 2.0, 1.0, best=False),
            after=_measured(job, 1.5, 0.5 if collapsed else 1.0, best=True),
        )

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""
        self._state = "stopped"

    def stats(self) -> ProviderStats:
        """See ``ProposalProvider.stats``."""
        pace = self._tokens / self._busy_s if self._busy_s > 0 else None
        return ProviderStats(state=self._state, adapter_sha256=self._adapter, tokens=self._tokens, tokens_per_s=pace)

    async def _act(self, state: ProviderState) -> None:
        """Take the time, or fail, as the script says."""
        if self._script == "failing":
            raise CognitionError("the scripted model fails, as it was told to")
        self._state = state
        try:
            await asyncio.sleep(3600 if self._script == "slow" else self._delay_s)
        finally:
            self._state = "ready"

    def _reply(self, request: RequestRecord, duration_s: float) -> ReplyRecord:
        wanted = samples_wanted(request)
        text = (
            self._text(request)
            if wanted is None
            else packed(
                Sample(self._text(replace(request, seed=request.seed + (n << 48))), -float(n)) for n in range(wanted)
            )
        )
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
        key = f"{request.seed}" if self._adapter is None else f"{request.seed}:{self._adapter}"
        draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        if self._script == "mixed" and draw % 4 == 0:
            return "<think>I lost the thread.</think> {{{ not json"
        if self._script == "mixed" and draw % 4 == 1:
            return ""
        # One of the changes on offer.
        offered = [(gene, choice) for gene, choices in request.parameters["choices"].items() for choice in choices]
        gene, choice = offered[(draw >> 8) % len(offered)]
        before = request.parameters["parent"][gene]
        thought = in_words(f"{gene} is {before!r}; {choice!r} may pay better at this latency.")
        return f"<think>{thought}</think>\n{in_json({gene: choice})}"


def _measured(job: TrainingJob, loss: float, distinct_share: float, *, best: bool) -> Measured:
    choose = max if best else min
    return Measured(
        held_out_loss=loss if job.held_out else None,
        held_out_losses=(loss,) * len(job.held_out),
        valid_without_grammar=len(job.probes),
        distinct_with_grammar=round(distinct_share * len(job.probes)),
        probes=len(job.probes),
        top_gains=tuple(choose(c.gains) for c in job.judging) if job.compares else None,
    )


def _safetensors(content: bytes) -> bytes:
    """A file of one tensor of bytes in the safetensors format."""
    header = {"scripted": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content
