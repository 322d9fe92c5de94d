"""Which adapter of an earlier run a new one begins with, pinned by hash so that a resumed run has exactly that one.

Of the runs of the journal that searched the same space with the same base model, the same shape of adapters and the
same kind of lessons, those are nearest that share most of oracle, device and target. Among the adapters of the nearest,
the one that the gate measured to gain most over the bare model at held-out parents; of equals the newest. It is in
force only once the new run's first lessons have judged it (``riwoa.run.lora_schedule``).

A difference of oracle, device or target is a task boundary. There the adapter becomes the anchor that trainings are
held to; within a task they are held to what the earlier run was held to, if anything (``riwoa.cognition.anchor``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from riwoa.run.memory import named_runs
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.events import AdapterUnusable
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, Json, RunRecord

BOUNDARIES: Mapping[str, str] = {
    "oracle": "oracle_version",
    "device": "latency_table_sha256",
    "target": "target_ms",
}  # beside another space, across which nothing is inherited -> key of the provenance
_MOST_ANCESTORS = 20  # that are named
_SHAPE = ("lora_rank", "lora_alpha", "lora_modules")  # of a model's specification


@dataclass(frozen=True, slots=True)
class Ancestor:
    """An adapter by its places."""

    run: int
    adapter_id: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Inherited:
    """An adapter that a run begins with.

    Attributes:
        run: that trained it.
        adapter_id: in the journal.
        sha256: of its bytes.
        gain: over the bare model, as the gates of its line measured it: of fitness, or of a held-out loss.
        differs: what lies between the tasks, of ``BOUNDARIES``; () for the same task.
        anchor: sha256 of the adapter that trainings are held to; None for none.
        ancestry: what it was trained from, newest first.
    """

    run: int
    adapter_id: int
    sha256: str
    gain: float
    differs: tuple[str, ...]
    anchor: str | None
    ancestry: tuple[Ancestor, ...]

    def to_json(self) -> dict[str, Any]:
        """As the run's provenance names it."""
        return {**asdict(self), "differs": list(self.differs), "ancestry": [asdict(a) for a in self.ancestry]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Inherited:
        """What ``to_json`` gave."""
        known = {f.name: data[f.name] for f in fields(cls)}
        ancestry = tuple(Ancestor(**a) for a in data["ancestry"])
        return cls(**{**known, "differs": tuple(data["differs"]), "ancestry": ancestry})

    @property
    def words(self) -> str:
        """In a line, for people."""
        return words(self.to_json())


@dataclass(frozen=True, slots=True)
class Heritage:
    """What a new run is to begin with, and why other adapters are left out, a line each."""

    adapter: Inherited | None
    left_out: tuple[str, ...] = ()


def words(told: Mapping[str, Any]) -> str:
    """What a run's provenance says of its inherited adapter, in a line."""
    apart = f", another {' and '.join(told['differs'])}" if told["differs"] else ", the same task"
    line = [f"{a['sha256'][:12]} of run {a['run']}" for a in told["ancestry"]]
    trained_from = f", trained from {', '.join(line)}" if line else ""
    return f"{told['sha256'][:12]} of run {told['run']}{apart}{trained_from}"


def inherited_by(run: RunRecord) -> Inherited | None:
    """What a run was begun with."""
    told = run.provenance.get("adapter")
    return None if told is None else Inherited.from_json(told)


def heritage_of(reader: JournalReader, provenance: Json, *, role: str) -> Heritage:
    """What a run that is to begin can have of the runs before it.

    Args:
        reader: of the journal.
        provenance: of the new run: its space, its task, its model.
        role: of the model in it: what adapters learned from.
    """
    return _Heirs(reader, provenance, role).heritage()


@dataclass(frozen=True, slots=True)
class _Candidate:
    record: AdapterRecord
    gain: float
    differs: tuple[str, ...]

    @property
    def rank(self) -> tuple[float, float, float]:
        """The least first."""
        return len(self.differs), -self.gain, -self.record.adapter_id


class _Heirs:
    def __init__(self, reader: JournalReader, provenance: Json, role: str) -> None:
        self._reader = reader
        self._provenance = provenance
        self._role = role
        self._refused: set[str] = set()  # by the model
        self._rows: dict[int, AdapterRecord] = {}
        self._left_out: dict[str, list[int]] = {}  # reason -> runs

    def heritage(self) -> Heritage:
        runs = {run.run_id: run for run in self._reader.runs()}
        found: list[_Candidate] = []
        told: list[str] = []
        for run in runs.values():
            try:
                found += self._candidates(run)
            except JournalCorruptError as error:
                told.append(f"the adapters of run {run.run_id}: {error}")
        chosen = None
        for c in sorted(found, key=lambda c: c.rank):
            if c.record.sha256 in self._refused:
                continue
            if (fault := self._fault(c.record)) is None:
                chosen = self._inherited(c, runs[c.record.run_id], told)
                break
            told.append(f"adapter {c.record.sha256[:12]} of run {c.record.run_id} is {fault}")
        told += [f"the adapters of {named_runs(numbers)}: {reason}" for reason, numbers in self._left_out.items()]
        return Heritage(chosen, tuple(told))

    def _candidates(self, run: RunRecord) -> Iterator[_Candidate]:
        """Adapters of a run that were in service, if it was a like task of the same model."""
        told = self._reader.events(run.run_id, AdapterUnusable)
        self._refused |= {event.sha256 for event in told if event.refused}  # whichever run they are of
        rows = self._reader.adapters(run.run_id, weights=False)
        self._rows.update((row.adapter_id, row) for row in rows)
        served = [row for row in rows if row.status != "rejected"]
        if not served:
            return
        if (reason := self._stranger(run, served[-1])) is not None:
            self._left_out.setdefault(reason, []).append(run.run_id)
            return
        keys = BOUNDARIES.items()
        differs = tuple(what for what, key in keys if run.provenance.get(key) != self._provenance.get(key))
        yield from (_Candidate(row, self._gain(row), differs) for row in served)

    def _stranger(self, run: RunRecord, newest: AdapterRecord) -> str | None:
        """Why the adapters of a run are of no use here; None where they are."""
        if run.provenance.get("space") != self._provenance["space"]:
            return "another space"
        made_for = str(newest.training.get("model"))
        if _fingerprint(made_for) != _fingerprint(str(self._provenance["model"])):
            return f"another base model ({made_for})"
        theirs, ours = (p.get("model_spec") or {} for p in (run.provenance, self._provenance))
        if any(theirs.get(key) != ours.get(key) for key in _SHAPE):
            return f"another shape (rank {theirs.get('lora_rank')}, {ours.get('lora_rank')} here)"
        role = "slot" if _measured(newest, "after").get("top_gains") is None else "pool"
        return None if role == self._role else f"trained in another role ({role})"

    def _fault(self, row: AdapterRecord) -> str | None:
        weights = self._reader.weights(row.adapter_id)
        if weights is None:
            return "no longer kept"
        return None if hashlib.sha256(weights).hexdigest() == row.sha256 else "damaged in the journal"

    def _gain(self, row: AdapterRecord) -> float:
        """Over the bare model: a trial measured that, a training what it added to the adapter before."""
        before, after = _measured(row, "before"), _measured(row, "after")
        tops = before.get("top_gains"), after.get("top_gains")
        losses = after.get("held_out_loss"), before.get("held_out_loss")
        if tops[0] and tops[1]:
            own = sum(tops[1]) / len(tops[1]) - sum(tops[0]) / len(tops[0])
        else:
            own = 0.0 if losses[0] is None or losses[1] is None else losses[1] - losses[0]
        parent = None if is_trial(row) else self._parent(row)
        return float(own) + (0.0 if parent is None else self._gain(parent))

    def _inherited(self, c: _Candidate, run: RunRecord, told: list[str]) -> Inherited:
        row, anchor = c.record, None
        if c.differs:
            anchor = row.sha256
        elif (before := inherited_by(run)) is not None and any(map(is_trial, self._line(row))):
            anchor = before.anchor  # the task goes on: what it was held to is kept
        if anchor is not None and not self._is_whole(anchor):
            told.append(f"adapter {anchor[:12]}, to which trainings would be held, is no longer whole")
            anchor = None
        # A run's own row of what it inherited is the same adapter once more.
        older = (r for r in self._line(row) if not is_trial(r) and r.sha256 != row.sha256)
        line = itertools.islice(older, _MOST_ANCESTORS)
        ancestry = tuple(Ancestor(r.run_id, r.adapter_id, r.sha256) for r in line)
        return Inherited(run.run_id, row.adapter_id, row.sha256, c.gain, c.differs, anchor, ancestry)

    def _line(self, row: AdapterRecord | None) -> Iterator[AdapterRecord]:
        """An adapter and what it was trained from, newest first."""
        while row is not None:
            yield row
            row = self._parent(row)

    def _parent(self, row: AdapterRecord) -> AdapterRecord | None:
        return None if row.parent_id is None else self._rows.get(row.parent_id)

    def _is_whole(self, sha256: str) -> bool:
        return any(row.sha256 == sha256 and self._fault(row) is None for row in self._rows.values())


def is_trial(row: AdapterRecord) -> bool:
    """Whether a row says what a run's lessons made of the adapter that it inherited."""
    return row.training.get("inherited") is not None


def _measured(row: AdapterRecord, when: str) -> Mapping[str, Any]:
    return (row.training.get("trained") or {}).get(when) or {}


def _fingerprint(model: str) -> str:
    """A directory may be moved and renamed."""
    return model.rpartition("@")[2]
