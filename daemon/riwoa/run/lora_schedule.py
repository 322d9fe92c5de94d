"""Learning while the search goes on: lessons in, adapters out, at generations that the journal alone decides.

The schedule (rulings 9 and 10). After the commit of g, while no training is under way, one is triggered when the
unconsumed lessons (``riwoa.run.lessons``) reach ``train_after``, times one more for each training that failed since the
last adapter, unless the search, as configured at g, would end before any reply written with its adapter could join. Of
successes it takes the oldest, at most ``MOST_BATCHES`` times that many. Until g + train_lag no text is generated, or
with ``train_beside`` it is written with the adapter before; there the search waits for the outcome. An adapter's row is
journaled when the outcome arrives, with what it consumed and the gate's verdict, and says the generation g + train_lag;
in force at any generation is the newest accepted one of that generation or before. A failed training consumes nothing
and is an input of generation g + train_lag.

A run that inherits an adapter (``riwoa.run.inheritance``) tries it before it trains anything: its lessons judge it
beside the bare model as soon as they suffice for that, at the latest when a training would begin. A trial takes the
place of a training and consumes nothing; what the gate lets through is in force from g + train_lag on, and what it does
not is never used. Trainings that go on from it are held to its anchor.

So a restart needs no other memory than these rows: a triggered training without a row or a failure is submitted again,
the same job; one with a row is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from riwoa.cognition.adapters import AdapterFiles
from riwoa.cognition.gate import Verdict, judge
from riwoa.cognition.proposal_queue import ProposalQueue, TrainingOutcome
from riwoa.cognition.protocol import GenerationRequest, TrainingJob
from riwoa.config.schema import Config
from riwoa.errors import AdapterError
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.adapters import Adapter, Adapters
from riwoa.run.inheritance import Inherited, inherited_by
from riwoa.run.journal import RunJournal
from riwoa.run.lessons import Lessons, Material, Taken
from riwoa.run.offers import seed_of
from riwoa.run.style import Style
from riwoa_storage.events import (
    AdapterAccepted,
    AdapterRejected,
    AdaptersLeftOut,
    AdapterTried,
    Event,
    TrainingFailed,
    kind_of,
)
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, ConfigRevisionRecord, IndividualRecord

_log = get_logger("learning")
MOST_BATCHES = 4  # of train_after, in one training
TrialState = Literal["none", "waiting", "accepted", "rejected", "failed"]
PrepareProbes = Callable[[], tuple[GenerationRequest, ...]]


@dataclass(frozen=True, slots=True)
class Training:
    """A training under way: what triggered it, where its adapter is swapped in, what it takes.

    ``trial``: nothing is trained, what was inherited is tried.
    """

    trigger: int
    swap: int
    parent: Adapter | None
    taken: Taken
    seed: int
    trial: bool = False
    anchor_sha256: str | None = None  # of the adapter that it is held to


class LoraSchedule:
    """Decides when to train, queues the job, journals what comes of it, and says which adapter is in force.

    Args:
        journal: of the run.
        proposal_queue: where trainings go; needs ``adapters``.
        config: the run's.
        style: how the model writes and learns.
        lessons: what it learns from.
        probes: the fixed requests that judge adapters; asked for once, at the first training.
    """

    def __init__(
        self,
        journal: RunJournal,
        proposal_queue: ProposalQueue,
        config: Config,
        style: Style,
        lessons: Lessons,
        probes: PrepareProbes,
    ) -> None:
        self._journal = journal
        self._proposal_queue = proposal_queue
        self._seed = config.run.seed
        self._settings = config.cognition
        self._style = style
        self._probes = cache(probes)
        self._lessons = lessons
        self._adapters = Adapters(journal)
        self._failed: list[int] = []  # generations that failed trainings were inputs of
        self.failed_s = 0.0  # what the last of them took, for its event
        self.inherited: Inherited | None = None  # what the run was begun with
        self.left_out: tuple[str, ...] = ()  # why other adapters of earlier runs were not
        self._training: Training | None = None
        self._submitted = False  # in this life
        proposal_queue.on_trained = self._journal_outcome
        proposal_queue.on_refused = self._adapters.refuse

    # -- for those who ask -------------------------------------------------------------------------------------------

    def in_force(self, generation: int) -> Adapter | None:
        """The adapter of a generation's requests; None for the bare model."""
        return self._adapters.in_force(generation)

    def writes(self, generation: int) -> bool:
        """Whether text is generated in this generation: not from a training's trigger to its swap, unless beside."""
        t = self._training
        return t is None or self._settings.train_beside or not t.trigger < generation < t.swap

    @property
    def under_way(self) -> Training | None:
        """The training under way; None once its adapter is journaled, if the swap is still to come."""
        t = self._training
        return t if t is not None and all(a.generation != t.swap for a in self._adapters.all) else None

    @property
    def accepted(self) -> int:
        """Trainings whose adapter the gate let through."""
        return sum(a.accepted for a in self._adapters.trained)

    @property
    def rejected(self) -> int:
        """Trainings whose adapter it did not."""
        return len(self._adapters.trained) - self.accepted

    @property
    def failed(self) -> int:
        """Trainings that came to no adapter."""
        return len(self._failed) - (self.trial == "failed")

    @property
    def trial(self) -> TrialState:
        """How the trial of what was inherited stands; none comes after a training, so the first failure is its."""
        if self.inherited is None:
            return "none"
        tried = next((a for a in self._adapters.all if a.trial), None)
        if tried is not None:
            return "accepted" if tried.accepted else "rejected"
        return "failed" if self._failed else "waiting"

    @property
    def unconsumed(self) -> tuple[int, str]:
        """How many lessons no training has consumed, and what they are."""
        return self._lessons.unconsumed, self._lessons.each

    @property
    def unusable(self) -> list[str]:
        """Hashes of adapters whose bytes are gone or damaged, or that the model refused."""
        return self._adapters.unusable

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

    async def committed(self, generation: int, individuals: Sequence[IndividualRecord], *, generations: int) -> None:
        """After the commit of a generation of the search: take in what it teaches, and train if that suffices.

        ``generations``: of the search, by the configuration in force.
        """
        await patiently(partial(self._take_in, generation, individuals))
        if self._training is None and self._due(generation, generations):
            await self._start(generation)

    def _take_in(self, generation: int, individuals: Sequence[IndividualRecord]) -> None:
        with self._journal.reader() as reader:
            self._lessons.committed(generation, individuals, reader)

    def _due(self, generation: int, generations: int) -> bool:
        if generation + self._settings.train_lag + self._settings.lag >= generations:
            return False  # no reply written with its adapter would join
        enough_since = self._enough_since()
        return enough_since is not None and generation >= enough_since

    @property
    def train_after(self) -> int:
        """New lessons that start a training."""
        after = self._settings.train_after
        return self._lessons.after if after == "auto" else after

    def trainings_possible(self, generations: int, lessons_a_generation: int) -> int | None:
        """How many trainings a search of so many generations has room for at most; None where nothing is trained."""
        settings, first = self._settings, math.ceil(self.train_after / lessons_a_generation) - 1
        last = generations - settings.train_lag - settings.lag - 1  # that may trigger one
        if not settings.train or self._proposal_queue.adapters is None:
            return None
        return 0 if first > last else 1 + (last - first) // max(settings.train_lag, first + 1)

    def _enough_since(self) -> int | None:
        """The generation from which on lessons suffice for a training, or the trial; None while they do not."""
        last = max((a.generation for a in self._adapters.all), default=-1)
        failures = sum(g > last for g in self._failed) - (self.trial == "failed")
        enough = self.train_after * (1 + failures)
        if not self._settings.train or self._proposal_queue.adapters is None:
            return None
        trains_since = self._lessons.enough_since(enough)
        if self.trial != "waiting":
            return trains_since
        return min((g for g in (trains_since, self._lessons.trial_since) if g is not None), default=None)

    async def _start(self, generation: int) -> None:
        parent, tried = self.in_force(generation), None
        if self.inherited is not None and self.trial == "waiting":
            parent = tried = Adapter(self.inherited.adapter_id, 0, self.inherited.sha256, accepted=False, trial=True)
        self._training = Training(
            trigger=generation,
            swap=generation + self._settings.train_lag,
            parent=parent,
            taken=self._lessons.take(generation, MOST_BATCHES * self.train_after),
            seed=seed_of(self._seed, generation, 0, "training"),
            trial=tried is not None,
        )
        await self._submit()

    async def _submit(self) -> None:
        t, files = self._training, self._proposal_queue.adapters
        assert t is not None
        assert files is not None
        material = await patiently(partial(self._material, t))
        anchor = await self._anchor(t, files)
        if anchor is not None:
            self._training = t = replace(t, anchor_sha256=anchor.stem)
        job = await patiently(lambda: self._job(t, files, material, anchor))
        self._submitted = True
        await self._proposal_queue.submit_training(t.trigger, job, adapter_sha256=t.parent.sha256 if t.parent else None)
        _log.info(
            "trial_submitted" if t.trial else "training_submitted",
            generation=t.trigger,
            examples=len(job.judging) + len(job.held_out) if t.trial else len(job.examples) + len(job.comparisons),
            swap=t.swap,
        )

    async def _anchor(self, t: Training, files: AdapterFiles) -> Path | None:
        """The file of the adapter that a training is held to; None for none, or where it is gone."""
        if t.trial or t.parent is None or self.trial != "accepted":
            return None
        sha256 = None if self.inherited is None else self.inherited.anchor
        try:
            return None if sha256 is None else await files.file(sha256)
        except AdapterError as error:
            _log.warning("anchor_left_out", reason=str(error))
            return None

    def _material(self, t: Training) -> Material:
        with self._journal.reader() as reader:
            return (self._lessons.trial_material if t.trial else self._lessons.material)(reader, t.taken)

    def _job(self, t: Training, files: AdapterFiles, material: Material, anchor: Path | None) -> TrainingJob:
        return TrainingJob(
            examples=material.examples,
            held_out=material.held_out,
            comparisons=material.comparisons,
            judging=material.judging,
            trial=t.trial,
            anchor_path=None if anchor is None else str(anchor),
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
        verdict = judge(outcome.trained, trial=t.trial)
        consumed = () if t.trial else t.taken.entries
        training = {
            "trigger": trigger,
            "model": self._proposal_queue.provider.model,
            "parent_sha256": t.parent.sha256 if t.parent else None,
            "consumed": list(consumed),
            "held_out": list(t.taken.held_out),
            "seed": t.seed,
            "epochs": self._settings.epochs,
            "learning_rate": self._style.learning_rate,
            "dropout": self._settings.lora_dropout,
            "batch": self._settings.train_batch,
            "duration_s": outcome.duration_s,
            "trained": _finite(outcome.trained.to_json()),
            "verdict": verdict.to_json(),
            **_heritage(t, self.inherited),
        }
        row = AdapterRecord(
            adapter_id=0,
            run_id=self._journal.run_id,
            generation=t.swap,
            parent_id=t.parent.adapter_id if t.parent else None,
            sha256=outcome.trained.sha256,
            weights=outcome.weights,
            status="current" if verdict.accepted else "rejected",
            training=training,
            created_unix_s=time.time(),
        )
        event = _event(self._journal.run_id, t, self.inherited, row.sha256, verdict)
        adapter_id = await self._journal.writer.put_adapter(row, consumed=consumed, events=[event])
        self._adapters.add(Adapter(adapter_id, t.swap, row.sha256, verdict.accepted, t.trial))
        if not t.trial:
            self._lessons.consume(t.taken)
        state = "accepted" if verdict.accepted else "rejected"
        _log.info(kind_of(event), adapter=row.sha256[:12], generation=t.swap, verdict=state, reasons=[*verdict.reasons])
        await self._adapters.retire(keep=self._settings.keep_adapters)

    # -- resume ------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int) -> None:
        """Read what the journal holds before ``generation``; ``resume`` follows. For a thread."""
        self._failed = [
            event.generation
            for event in reader.events(self._journal.run_id, TrainingFailed)
            if event.generation is not None and event.generation < generation
        ]
        self._adapters.restore(reader, generation)
        self.inherited = inherited_by(reader.run(self._journal.run_id))
        told = reader.events(self._journal.run_id, AdaptersLeftOut)
        self.left_out = tuple(reason for event in told for reason in event.reasons)
        swaps = [a.generation for a in self._adapters.trained]
        self._lessons.restore(reader, generation, max(swaps) - self._settings.train_lag if swaps else None)

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """Tell of damaged adapters; a training that was under way goes to the proposal queue again, the same job."""
        await self._adapters.report_damaged(generation)
        if not searching:
            return
        lag = self._settings.train_lag

        def generations(at: int) -> int:
            """Of the search, as configured then: it may have been changed since."""
            in_force = max((r for r in revisions if r.generation <= at), key=lambda r: r.revision)
            return int(in_force.config["run"]["generations"])

        swapped = max([a.generation for a in self._adapters.all] + self._failed, default=0)
        if swapped >= generation:  # its row is there, the swap is still to come
            self._training = Training(swapped - lag, swapped, self.in_force(swapped - lag), Taken(swapped - lag), 0)
            return
        enough_since = self._enough_since()
        if enough_since is None:
            return
        later = range(max(swapped, enough_since), generation)
        trigger = next((g for g in later if self._due(g, generations(g))), None)
        if trigger is not None:
            await self._start(trigger)


def _heritage(t: Training, inherited: Inherited | None) -> dict[str, Any]:
    """What a row says of what was inherited: of a trial whose adapter it is, of a training what it was held to."""
    if inherited is None:
        return {}
    if t.trial:
        return {"inherited": inherited.to_json()}
    return {} if t.anchor_sha256 is None else {"anchor_sha256": t.anchor_sha256}


def _event(run_id: int, t: Training, inherited: Inherited | None, sha256: str, verdict: Verdict) -> Event:
    """That an adapter, or what was inherited, was let through or not."""
    common: dict[str, Any] = {"run_id": run_id, "generation": t.swap, "sha256": sha256}
    common["reasons"] = tuple(verdict.reasons)
    if t.trial and inherited is not None:
        return AdapterTried(**common, accepted=verdict.accepted, from_run=inherited.run)
    return (AdapterAccepted if verdict.accepted else AdapterRejected)(**common)


def _finite(value: Any) -> Any:
    """JSON as the journal takes it: a number that is none (a training that diverged) becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
