"""Proof from the rows alone: is a journal intact, and are two histories the same?"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from riwoa_storage.digest import canonical_json, generation_digest, relative_request_id, run_digest
from riwoa_storage.errors import JournalCorruptError, JournalMissingError, StorageError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord, RunRecord, RunVerification

OnProved = Callable[[int, int], None]  # generations of all runs proved, of how many


@dataclass(frozen=True, slots=True)
class Verification:
    """What was proved of a journal that is intact; one that is not raises instead."""

    ok: bool
    integrity: str  # SQLite's own verdict: "ok", or "not asked"
    runs: tuple[RunVerification, ...]
    final_digest: str | None  # of the latest run, as far as it is proved; None without a run
    complete: bool = True  # false: ``most`` generations were recomputed, and there are more


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of comparing two histories: whether they are the same, and where they first part."""

    same: bool
    generations: int  # that both have in common
    digest_a: str | None
    digest_b: str | None
    generation: int | None = None  # where they part; None: before the first generation
    slot: int | None = None
    field: str | None = None  # e.g. "provenance.seed", "metrics.accuracy", "genotype[3]"
    value_a: str | None = None
    value_b: str | None = None

    @property
    def message(self) -> str:
        """One line for a user."""
        if self.same:
            return f"the same: {self.generations} generations, digest {self.digest_a}"
        places = (("generation", self.generation), ("slot", self.slot), ("field", self.field))
        place = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        return f"they part at {place}: {self.value_a} against {self.value_b}"


def verify(
    path: Path,
    *,
    adapters: bool = True,
    since_last: bool = False,
    structure: bool = True,
    most: int | None = None,
    progress: OnProved = lambda done, total: None,
) -> Verification:
    """Recompute every run's digest chain, and check every row's checksum, adapter's hash, and SQLite's own structure.

    Args:
        path: the journal.
        adapters: false for whoever can do without a damaged one, as a search that goes on with the one before can.
        since_last: what a start needs: only generations after the mark that ``JournalWriter.mark_verified`` left are
            recomputed. Rows before it are not checked; what a resume reads of them is, by its checksums, when it is.
        structure: whether SQLite's structure is walked. A start asks for it, at some 0.1 ms a generation: a bit that
            flipped in an index hides rows whose own checksums hold. Without it, the time of a proof ``since_last`` does
            not grow with history.
        most: recompute no more generations than this. Whoever marks what was found and goes on ``since_last`` proves a
            long history in parts, and a kill costs one of them.
        progress: called after each generation; what it raises ends the proof.

    Reads one committed state, also beside a live writer, one generation in memory at a time.

    Raises:
        JournalCorruptError: naming the run and generation, or the row, of the first damage.
        JournalMissingError, JournalUnreadableError, JournalVersionError: it cannot be opened.
    """
    with JournalReader(path) as reader, reader.integrity.snapshot():
        integrity = reader.integrity.check_structure() if structure else "not asked"
        runs, complete = _verify_runs(reader, since_last, most, progress)
        if not since_last:
            reader.integrity.check_rows()
        if adapters:
            _verify_adapters(reader)
    return Verification(True, integrity, runs, final_digest=runs[-1].digest if runs else None, complete=complete)


def _verify_runs(
    reader: JournalReader, since_last: bool, most: int | None, progress: OnProved
) -> tuple[tuple[RunVerification, ...], bool]:
    """How far each run's chain is proved now, and whether that is all of it."""
    runs = reader.runs()
    proved = [(since_last and _proved(reader, run)) or (0, run_digest(run.provenance)) for run in runs]
    done, total = sum(start for start, _ in proved), sum(run.generations for run in runs)
    until = total if most is None else min(total, done + most)
    found = []
    for run, (start, digest) in zip(runs, proved, strict=True):
        end = min(run.generations, start + until - done)
        for generation in range(start, end):
            digest = _next_digest(reader, run, generation, digest)
            done += 1
            progress(done, total)
        if end == run.generations:
            _check_end(reader, run, digest)
        found.append(RunVerification(run_id=run.run_id, status=run.status, generations=end, digest=digest))
    return tuple(found), done == total


def _next_digest(reader: JournalReader, run: RunRecord, generation: int, digest: str) -> str:
    """Digest of a generation that follows the one with ``digest``, recomputed from its rows."""
    try:
        g = reader.generation(run.run_id, generation)
        computed = generation_digest(digest, g, _reply_texts(reader, g))
    except Exception as error:
        if not _tells_of_damage(error):
            raise
        raise _broken(reader, run, generation, str(error)) from error
    if computed != g.digest:
        raise _broken(reader, run, generation, "its content does not match its digest")
    if g.state is None and generation == run.generations - 1:
        raise _broken(reader, run, generation, "its search state is not there")
    return computed


def _tells_of_damage(error: Exception) -> bool:
    """Whether an error tells of damaged content: not of a lock, or of a lack of memory or file descriptors."""
    if isinstance(error, StorageError):
        return isinstance(error, JournalCorruptError | JournalMissingError)
    return not isinstance(error, MemoryError | OSError)


def _check_end(reader: JournalReader, run: RunRecord, digest: str) -> None:
    if digest != run.digest:
        raise _broken(
            reader, run, run.generations, f"the run's digest {run.digest[:12]} is not its chain's {digest[:12]}"
        )
    if extra := reader.integrity.generation_rows(run.run_id) - run.generations:
        raise _broken(reader, run, run.generations, f"{extra} more rows than the run has generations")


def _proved(reader: JournalReader, run: RunRecord) -> tuple[int, str] | None:
    """How many generations were verified before, and the digest of the last; None where nothing can be built on."""
    mark = reader.integrity.verified(run.run_id)
    if mark is None or not 0 < mark.generations <= run.generations:
        return None
    last = next(reader.generation_summaries(run.run_id, mark.generations - 1), None)
    return (mark.generations, mark.digest) if last is not None and last.digest == mark.digest else None


def _broken(reader: JournalReader, run: RunRecord, generation: int, reason: str) -> JournalCorruptError:
    intact = f"generations before {generation} are intact" if generation else "no generation before it"
    return JournalCorruptError(
        f"{reader.name}: the digest chain of run {run.run_id} breaks at generation {generation} ({reason}); {intact}: "
        "keep a copy, then restore a backup or start afresh with another --state"
    )


def _verify_adapters(reader: JournalReader) -> None:
    for adapter_id, digest, weights in reader.integrity.adapter_weights():
        if weights is not None and sha256(weights).hexdigest() != digest:
            raise JournalCorruptError(
                f"{reader.name}: the weights of adapter {adapter_id} are damaged; restore a backup"
            )


def _reply_texts(reader: JournalReader, g: GenerationRecord) -> list[tuple[str, str, str]]:
    texts: list[tuple[str, str, str]] = []
    for request_id in g.joined_requests:
        reply = reader.reply(request_id)
        if reply is None:
            raise JournalCorruptError(f"the reply to request {request_id} is not there")
        texts.append((request_id, reply.status, reply.text))
    return texts


def compare(a: Path, b: Path) -> Comparison:
    """Compare the latest runs of two journals and find the first place where they part.

    Trusts the stored digests; ``verify`` both first. Wall times and the runs' numbers do not count.

    Raises:
        JournalMissingError, JournalUnreadableError, JournalVersionError, JournalCorruptError: one cannot be read.
    """
    with JournalReader(a) as reader_a, JournalReader(b) as reader_b:
        run_a, run_b = reader_a.latest_run(), reader_b.latest_run()
        digests = (run_a.digest if run_a else None, run_b.digest if run_b else None)
        if run_a is None or run_b is None:
            values = tuple("no run" if run is None else f"run {run.run_id}" for run in (run_a, run_b))
            return Comparison(run_a is run_b, 0, *digests, field="run", value_a=values[0], value_b=values[1])
        for d in _part(run_a.provenance, run_b.provenance, "provenance"):
            return Comparison(False, 0, *digests, None, None, d.field, d.value_a, d.value_b)
        return _compare_chains(reader_a, reader_b, run_a, run_b)


def _compare_chains(reader_a: JournalReader, reader_b: JournalReader, a: RunRecord, b: RunRecord) -> Comparison:
    chains = zip_longest(reader_a.generation_summaries(a.run_id), reader_b.generation_summaries(b.run_id))
    common = 0
    for left, right in chains:
        if left is None or right is None:
            values = (f"{a.generations} generations", f"{b.generations} generations")
            return Comparison(False, common, a.digest, b.digest, common, None, "generations", *values)
        if left.digest != right.digest:
            d = _part_generation(reader_a, reader_b, a.run_id, b.run_id, common)
            return Comparison(False, common, a.digest, b.digest, common, d.slot, d.field, d.value_a, d.value_b)
        common += 1
    return Comparison(True, common, a.digest, b.digest)


@dataclass(frozen=True, slots=True)
class _Difference:
    field: str
    value_a: str
    value_b: str
    slot: int | None = None


def _part_generation(
    reader_a: JournalReader, reader_b: JournalReader, run_a: int, run_b: int, generation: int
) -> _Difference:
    a, b = reader_a.generation(run_a, generation), reader_b.generation(run_b, generation)
    broken = _Difference("digest", f"{a.digest} (verify this journal)", f"{b.digest} (and this one)")
    causes = _part(_causes(reader_a, a), _causes(reader_b, b))
    effects = _part(_effects(a), _effects(b))
    return next(chain(causes, _part_individuals(a, b), effects), broken)


def _causes(reader: JournalReader, g: GenerationRecord) -> dict[str, Any]:
    replies = _reply_texts(reader, g)
    return {
        "phase": g.phase,
        "config_revision": g.config_revision,
        "inputs": g.inputs,
        "joined_requests": [relative_request_id(request_id) for request_id, _, _ in replies],
        "reply": {relative_request_id(request_id): {"status": s, "text": text} for request_id, s, text in replies},
    }


def _effects(g: GenerationRecord) -> dict[str, Any]:
    return {"counters": g.counters, "leader": g.leader, "state_sha256": g.state_sha256}


def _part_individuals(a: GenerationRecord, b: GenerationRecord) -> Iterator[_Difference]:
    left, right = ({i.slot: _content(i) for i in g.individuals} for g in (a, b))
    for slot in sorted(left.keys() | right.keys()):
        if slot not in left or slot not in right:
            value_a, value_b = ("present" if slot in side else "absent" for side in (left, right))
            yield _Difference("individual", value_a, value_b, slot)
        else:
            yield from (replace(d, slot=slot) for d in _part(left[slot], right[slot]))


def _content(i: IndividualRecord) -> dict[str, Any]:
    return {
        **{name: getattr(i, name) for name in IndividualRecord.__slots__},
        "genotype": struct.unpack(f"<{len(i.genotype) // 8}d", i.genotype),
        "request_id": i.request_id and relative_request_id(i.request_id),
    }


def _part(a: Any, b: Any, field: str = "") -> Iterator[_Difference]:
    """The leaves in which two JSON values differ, in order, by their dotted names."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *sorted(b.keys() - a.keys())]:
            name = f"{field}.{key}" if field else key
            if key in a and key in b:
                yield from _part(a[key], b[key], name)
            else:
                value_a, value_b = (_short(side[key]) if key in side else "absent" for side in (a, b))
                yield _Difference(name, value_a, value_b)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _part(left, right, f"{field}[{index}]")
    elif canonical_json(a) != canonical_json(b):
        yield _Difference(field, _short(a), _short(b))


def _short(value: object) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
