"""Learning while the search goes on: successes in, adapters out, at generations that the journal alone decides.

The schedule (rulings 9 and 10). After the commit of g, while no training is under way, one is triggered when the
unconsumed successes reach ``train_after``, times one more for each training that failed since the last adapter, unless
the search, as configured at g, would end before any reply written with its adapter could join. It takes the oldest of
them, at most ``MOST_BATCHES`` times that many. Until g + train_lag no text is generated; there the search waits for the
outcome. An adapter's row is journaled when the outcome arrives, with what it consumed and the gate's verdict, and says
the generation g + train_lag; in force at any generation is the newest accepted one of that generation or before. A
failed training consumes nothing and is an input of generation g + train_lag.

So a restart needs no other memory than these rows: a triggered training without a row or a failure is submitted again,
the same job; one with a row is not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from riwoa.cognition.adapters import AdapterFiles
from riwoa.cognition.gate import judge
from riwoa.cognition.proposal_queue import ProposalQueue, TrainingOutcome
from riwoa.cognition.protocol import Example, GenerationRequest, TrainingJob, one_of_each
from riwoa.config.schema import Config
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.proposals import Style, seed_of
from riwoa_storage.digest import relative_request_id
from riwoa_storage.events import AdapterAccepted, AdapterRejected, AdapterUnusable, TrainingFailed, kind_of
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, BufferEntryRecord, ConfigRevisionRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("learning")
MOST_BATCHES = 4  # of train_after, in one training
MOST_HELD_OUT = 32  # that judge an adapter, the last ones
PrepareProbes = Callable[[], tuple[GenerationRequest, ...]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A journaled adapter without its weights."""

    adapter_id: int
    generation: int  # from which on it is in force
    sha256: str
    accepted: bool


@dataclass(slots=True)
class Success:
    """A buffer entry as the schedule sees it; ``held_out`` for ever or never."""

    entry_id: int
    generation: int
    held_out: bool
    consumed: bool


@dataclass(frozen=True, slots=True)
class Training:
    """A training under way: what triggered it, where its adapter is swapped in, what it takes."""

    trigger: int
    swap: int
    parent: Adapter | None
    taken: tuple[int, ...]  # entry ids that its adapter will have consumed
    held_out: tuple[int, ...]  # entry ids that judge it
    seed: int


class Learning:
    """Decides when to train, queues the job, journals what comes of it, and says which adapter is in force.

    Args:
        journal: the writer.
        journal_path: for the reader.
        proposal_queue: where trainings go; needs ``adapters``.
        run_id: the run.
        config: the run's.
        style: how the model writes and learns.
        probes: the fixed requests that judge adapters; asked for once, at the first training.
    """

    def __init__(
        self,
        *,
        journal: JournalWriter,
        journal_path: Path,
        proposal_queue: ProposalQueue,
        run_id: int,
        config: Config,
        style: Style,
        probes: PrepareProbes,
    ) -> None:
        self._journal = journal
        self._path = journal_path
        self._proposal_queue = proposal_queue
        self._run_id = run_id
        self._seed = config.run.seed
        self._settings = config.cognition
        self._style = style
        self._probes = cache(probes)
        self._successes: list[Success] = []
        self._adapters: list[Adapter] = []
        self._failed: list[int] = []  # generations that failed trainings were inputs of
        self.failed_s = 0.0  # what the last of them took, for its event
        self._training: Training | None = None
        self._submitted = False  # in this life
        self._damaged: list[tuple[Adapter, str]] = []  # found at this start
        self.unusable: list[str] = []  # hashes of adapters whose bytes are gone or damaged, or that the model refused
        proposal_queue.on_trained = self._journal_outcome
        proposal_queue.on_refused = self._journal_refusal

    # -- for those who ask -------------------------------------------------------------------------------------------

    def in_force(self, generation: int) -> Adapter | None:
        """The adapter of a generation's requests; None for the bare model."""
        usable = [a for a in self._adapters if a.accepted and a.sha256 not in self.unusable]
        return max((a for a in usable if a.generation <= generation), key=lambda a: a.adapter_id, default=None)

    def writes(self, generation: int) -> bool:
        """Whether text is generated in this generation: not between a training's trigger and its swap."""
        t = self._training
        return t is None or not t.trigger < generation < t.swap

    @property
    def under_way(self) -> Training | None:
        """The training under way; None once its adapter is journaled, if the swap is still to come."""
        t = self._training
        return t if t is not None and all(a.generation != t.swap for a in self._adapters) else None

    @property
    def accepted(self) -> int:
        """Trainings whose adapter the gate let through."""
        return sum(a.accepted for a in self._adapters)

    @property
    def rejected(self) -> int:
        """Trainings whose adapter it did not."""
        return len(self._adapters) - self.accepted

    @property
    def failed(self) -> int:
        """Trainings that came to no adapter."""
        return len(self._failed)

    @property
    def unconsumed(self) -> int:
        """Successes that no training has consumed."""
        return sum(not s.consumed for s in self._successes)

    # -- the schedule ------------------------------------------------------------------------------------------------

    async def boundary(self, generation: int) -> str | None:
        """Before a generation asks: if an adapter is due, wait for it; why its training failed, if it did."""
        t = self._training
        if t is None or generation < t.swap:
            return None
        reason = None
        if self._submitted:
            outcome = await self._proposal_queue.collect_training(t.trigger)
            reason = outcome.reason
            self.failed_s = outcome.duration_s
        if reason is not None:
            self._failed.append(generation)
        self._training, self._submitted = None, False
        return reason

    async def committed(self, generation: int, *, successes: bool, generations: int) -> None:
        """After the commit of a generation of the search: take in its successes, and train if they suffice.

        ``generations``: of the search, by the configuration in force.
        """
        if not successes and (self._training is not None or not self._due(generation, generations)):
            return
        await patiently(self._take_in_new)
        if self._training is None and self._due(generation, generations):
            await self._start(generation)

    def _take_in_new(self) -> None:
        with JournalReader(self._path) as reader:
            self._take_in(reader)

    def _take_in(self, reader: JournalReader) -> None:
        last = self._successes[-1].entry_id if self._successes else 0
        share = self._settings.held_out_share
        every = round(1 / share) if share > 0 else 0
        for entry in reader.buffer(self._run_id, after=last):
            held_out = every > 0 and len(self._successes) % every == every - 1
            self._successes.append(Success(entry.entry_id, entry.generation, held_out, entry.consumed_by is not None))

    def _unconsumed(self, generation: int) -> list[Success]:
        return [s for s in self._successes if not s.consumed and s.generation <= generation]

    def _due(self, generation: int, generations: int) -> bool:
        if generation + self._settings.train_lag + self._settings.lag >= generations:
            return False  # no reply written with its adapter would join
        enough_since = self._enough_since()
        return enough_since is not None and generation >= enough_since

    def _enough_since(self) -> int | None:
        """The generation from which on the unconsumed successes suffice for a training; None while they do not."""
        last = max((a.generation for a in self._adapters), default=-1)
        failures = sum(g > last for g in self._failed)
        enough = self._settings.train_after * (1 + failures)
        if not self._settings.train or self._proposal_queue.adapters is None:
            return None
        unconsumed = [s.generation for s in self._successes if not s.consumed]
        return unconsumed[enough - 1] if len(unconsumed) >= enough else None

    async def _start(self, generation: int) -> None:
        taken = self._unconsumed(generation)[: MOST_BATCHES * self._settings.train_after]
        held_out = [s for s in self._successes if s.held_out and s.generation <= generation][-MOST_HELD_OUT:]
        self._training = Training(
            trigger=generation,
            swap=generation + self._settings.train_lag,
            parent=self.in_force(generation),
            taken=tuple(s.entry_id for s in taken),
            held_out=tuple(s.entry_id for s in held_out),
            seed=seed_of(self._seed, generation, 0, "training"),
        )
        await self._submit()

    async def _submit(self) -> None:
        t, files = self._training, self._proposal_queue.adapters
        assert t is not None
        assert files is not None
        job = await patiently(lambda: self._job(t, files, self._entries(t)))
        self._submitted = True
        await self._proposal_queue.submit_training(t.trigger, job, adapter_sha256=t.parent.sha256 if t.parent else None)
        _log.info("training_submitted", generation=t.trigger, examples=len(job.examples), swap=t.swap)

    def _entries(self, t: Training) -> dict[int, BufferEntryRecord]:
        """What a training learns from and is judged by, by entry id."""
        with JournalReader(self._path) as reader:
            oldest = min((*t.taken, *t.held_out), default=1)
            return {e.entry_id: e for e in reader.buffer(self._run_id, after=oldest - 1)}

    def _job(self, t: Training, files: AdapterFiles, entries: Mapping[int, BufferEntryRecord]) -> TrainingJob:
        held_out = {s.entry_id for s in self._successes if s.held_out}
        return TrainingJob(
            examples=one_of_each(_example(entries[i]) for i in t.taken if i not in held_out),
            held_out=tuple(_example(entries[i]) for i in t.held_out),
            probes=self._probes(),
            settings=self._style.settings,
            seed=t.seed,
            weights_path=str(files.new()),
            epochs=self._settings.epochs,
            learning_rate=self._style.learning_rate,
            batch=self._settings.train_batch,
        )

    # -- the outcome -------------------------------------------------------------------------------------------------

    async def _journal_outcome(self, trigger: int, outcome: TrainingOutcome) -> None:
        """Store the adapter with what it consumed, in one transaction, before anybody may use it."""
        t = self._training
        if outcome.trained is None or t is None or t.trigger != trigger:
            return
        verdict = judge(outcome.trained)
        training = {
            "trigger": trigger,
            "model": self._proposal_queue.provider.model,
            "parent_sha256": t.parent.sha256 if t.parent else None,
            "consumed": list(t.taken),
            "held_out": list(t.held_out),
            "seed": t.seed,
            "epochs": self._settings.epochs,
            "learning_rate": self._style.learning_rate,
            "dropout": self._settings.lora_dropout,
            "batch": self._settings.train_batch,
            "duration_s": outcome.duration_s,
            "trained": _finite(outcome.trained.to_json()),
            "verdict": verdict.to_json(),
        }
        row = AdapterRecord(
            adapter_id=0,
            run_id=self._run_id,
            generation=t.swap,
            parent_id=t.parent.adapter_id if t.parent else None,
            sha256=outcome.trained.sha256,
            weights=outcome.weights,
            status="current" if verdict.accepted else "rejected",
            training=training,
            created_unix_s=time.time(),
        )
        judged = AdapterAccepted if verdict.accepted else AdapterRejected
        event = judged(run_id=self._run_id, generation=t.swap, sha256=row.sha256, reasons=tuple(verdict.reasons))
        adapter_id = await self._journal.put_adapter(row, consumed=t.taken, events=[event])
        self._adapters.append(Adapter(adapter_id, t.swap, row.sha256, verdict.accepted))
        for s in self._successes:
            s.consumed = s.consumed or s.entry_id in t.taken
        _log.info(kind_of(event), adapter=row.sha256[:12], generation=t.swap, reasons=list(verdict.reasons))
        newest = slice(-self._settings.keep_adapters, None)  # of all, and of those that a search may fall back on
        usable = [a for a in self._adapters if a.accepted and a.sha256 not in self.unusable]
        kept = {a.adapter_id for a in (*self._adapters[newest], *usable[newest])}
        await self._journal.retire_adapters(self._run_id, sorted(kept))

    async def _journal_refusal(self, generation: int, sha256: str, reason: str) -> None:
        """Later requests use the newest good adapter before; the event keeps a restart from trying this one again."""
        if sha256 not in self.unusable:
            self.unusable.append(sha256)
            await self._leave_out(sha256, generation, reason, refused=True)

    async def _leave_out(self, sha256: str, generation: int, reason: str, *, refused: bool) -> None:
        await self._journal.put_event(
            AdapterUnusable(run_id=self._run_id, generation=generation, sha256=sha256, reason=reason, refused=refused)
        )
        _log.warning("adapter_unusable", adapter=sha256[:12], reason=reason)

    # -- resume ------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int) -> None:
        """Read what the journal holds before ``generation``; ``resume`` follows. For a thread."""
        rows = reader.adapters(self._run_id, weights=False)
        self._adapters = [Adapter(r.adapter_id, r.generation, r.sha256, r.status != "rejected") for r in rows]
        self._failed = [
            event.generation
            for event in reader.events(self._run_id, TrainingFailed)
            if event.generation is not None and event.generation < generation
        ]
        self._take_in(reader)
        self.unusable = [event.sha256 for event in reader.events(self._run_id, AdapterUnusable) if event.refused]
        self._damaged = self._find_damaged(reader, generation)
        self.unusable += [adapter.sha256 for adapter, _ in self._damaged]

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """Tell of damaged adapters; a training that was under way goes to the proposal queue again, the same job."""
        for adapter, found in self._damaged:
            reason = f"its weights in the journal are {found}"
            await self._leave_out(adapter.sha256, generation, reason, refused=False)
        if not searching:
            return
        lag = self._settings.train_lag

        def generations(at: int) -> int:
            """Of the search, as configured then: it may have been changed since."""
            in_force = max((r for r in revisions if r.generation <= at), key=lambda r: r.revision)
            return int(in_force.config["run"]["generations"])

        swapped = max([a.generation for a in self._adapters] + self._failed, default=0)
        if swapped >= generation:  # its row is there, the swap is still to come
            self._training = Training(swapped - lag, swapped, self.in_force(swapped - lag), (), (), 0)
            return
        enough_since = self._enough_since()
        if enough_since is None:
            return
        later = range(max(swapped, enough_since), generation)
        trigger = next((g for g in later if self._due(g, generations(g))), None)
        if trigger is not None:
            await self._start(trigger)

    def _find_damaged(self, reader: JournalReader, generation: int) -> list[tuple[Adapter, str]]:
        """The newest adapters as long as their bytes are not what their hashes say: gone, or damaged."""
        found = []
        for adapter in reversed([a for a in self._adapters if a.accepted and a.sha256 not in self.unusable]):
            weights = reader.weights(adapter.adapter_id)
            if weights is not None and hashlib.sha256(weights).hexdigest() == adapter.sha256:
                if adapter.generation <= generation:
                    break
                continue
            found.append((adapter, "gone" if weights is None else "damaged"))
        return found


def _example(entry: BufferEntryRecord) -> Example:
    return Example(
        id=relative_request_id(entry.request_id),
        system=entry.trace["system"],
        prompt=entry.trace["prompt"],
        text=entry.trace["text"],
        lead=entry.trace.get("lead", ""),
    )


def _finite(value: Any) -> Any:
    """JSON as the journal takes it: a number that is none (a training that diverged) becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
