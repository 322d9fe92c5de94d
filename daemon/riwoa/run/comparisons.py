"""Every evaluated network as something to learn from: patches of one parent, and what each gained.

Whoever made it and of whom, if a patch of one network gives another, the patch is an answer that a model could have
written: most children differ from their own parent in more genes than a patch has, and yet lie near others. Some
networks never train, neither as parents nor as answers: a hash of their architecture says which, so that they are the
same in every training, in every run and in a resumed one. They judge.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riwoa.cognition.protocol import CLOSING, Choice, Comparison
from riwoa.cognition.spelling import in_json
from riwoa.run.history import genotype_of
from riwoa.run.lessons import Material, Taken
from riwoa.search.codec import Codec
from riwoa.search.fitness import BoolArray, Objective
from riwoa.search.space import IntArray, Space
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord

MOST_PARENTS, MOST_JUDGING = 32, 16  # of a training, and that judge it: the newest
FEWEST_ANSWERS, MOST_ANSWERS = 3, 8  # of a parent
WINDOW = 4_000  # individuals that a training looks through, the newest
FEWEST_PARENTS, FEWEST_JUDGING = 4, 2  # before there are so many, there is no training
FEWEST_TRIAL = 8  # parents that judge what was inherited
MOST_WAITED = 2_000  # networks among which so many are waited for, the first

Asked = Callable[[IndividualRecord], tuple[str, str]]  # a parent's system message and prompt


@dataclass(frozen=True, slots=True)
class Child:
    """An evaluated network, by the patch of another that gives it."""

    answer: str  # the patch in JSON
    gain: float  # of fitness
    latency_ms: float


class Comparisons:
    """The evaluated networks of a run, children counted by generation; implements ``Lessons``.

    Args:
        run_id: the run.
        codec: of its space and seed.
        objective: that the run was begun with: by it all gains are measured.
        asked: how a parent's patches are asked for.
        most_genes: that a patch changes.
        held_out_share: of the parents, that judge adapters.
    """

    each = "evaluated children"
    after = 64

    def __init__(
        self, run_id: int, codec: Codec, objective: Objective, asked: Asked, *, most_genes: int, held_out_share: float
    ) -> None:
        self._run_id = run_id
        self._codec = codec
        self._objective = objective
        self._asked = asked
        self._most_genes = most_genes
        self._held_out_share = held_out_share
        self._generations: list[int] = []  # of each child, ascending
        self._consumed = -1  # the last generation that a training has learned from
        self._parents = _Parents(codec.space, most_genes)
        self._trains_since: int | None = None  # the generation from which on there are parents enough
        self._trial_since: int | None = None

    @property
    def unconsumed(self) -> int:
        """See ``Lessons``."""
        return len(self._generations) - self._first

    @property
    def _first(self) -> int:
        return bisect_right(self._generations, self._consumed)

    def committed(self, generation: int, individuals: Sequence[IndividualRecord], reader: JournalReader) -> None:
        """See ``Lessons``."""
        self._generations += [generation] * sum(i.status == "ok" and i.parent is not None for i in individuals)
        self._look(generation, individuals)

    def restore(self, reader: JournalReader, generation: int, consumed: int | None) -> None:
        """See ``Lessons``."""
        counts = reader.history.children_by_generation(self._run_id, before=generation)
        self._generations = [g for g, count in counts for _ in range(count)]
        self._consumed = -1 if consumed is None else consumed
        for number in range(generation):
            if not self._is_waiting:
                break
            self._look(number, reader.generation(self._run_id, number).individuals)

    @property
    def _is_waiting(self) -> bool:
        return len(self._parents) < MOST_WAITED and None in (self._trains_since, self._trial_since)

    def _look(self, generation: int, individuals: Sequence[IndividualRecord]) -> None:
        """Note when there are enough parents; from then on there always are."""
        if not self._is_waiting:
            return
        for i in individuals:
            if i.status == "ok":
                indices = self._codec.space.indices(i.architecture)
                held_out = self._is_held_out(i.architecture_key)
                self._parents.add(indices, held_out=held_out, fresh=not i.cache_hit)
        if self._trains_since is None and self._parents.suffice:
            self._trains_since = generation
        if self._trial_since is None and self._parents.suffice_for_trial:
            self._trial_since = generation

    def enough_since(self, count: int) -> int | None:
        """See ``Lessons``."""
        last = self._first + count - 1
        if self._trains_since is None or last >= len(self._generations):
            return None
        return max(self._trains_since, self._generations[last])

    def take(self, generation: int, most: int) -> Taken:
        """See ``Lessons``: old ones too; how many is bounded by parents and answers."""
        return Taken(generation)

    def material(self, reader: JournalReader, taken: Taken) -> Material:
        """See ``Lessons``."""
        training: list[Comparison] = []
        judging: list[Comparison] = []
        networks = self._networks(reader, taken.generation)
        held_out = [self._is_held_out(i.architecture_key) for i in networks]
        rows = self._rows(networks)
        for n, parent in enumerate(networks):
            found, most = (judging, MOST_JUDGING) if held_out[n] else (training, MOST_PARENTS)
            if len(found) < most:
                near = [k for k in self._near(rows, n) if held_out[n] or not held_out[k]]
                if (comparison := self._comparison(parent, [networks[k] for k in near])) is not None:
                    found.append(comparison)
            if len(training) == MOST_PARENTS and len(judging) == MOST_JUDGING:
                break
        return Material(comparisons=tuple(training), judging=tuple(judging))

    @property
    def trial_since(self) -> int | None:
        """See ``Lessons``: so many parents judge that no earlier run can have learned from."""
        return self._trial_since

    def trial_material(self, reader: JournalReader, taken: Taken) -> Material:
        """See ``Lessons``: the parents that this run evaluated first, or that never train."""
        networks = self._networks(reader, taken.generation)
        fresh = {i.architecture_key for i in self._individuals(reader, taken.generation) if not i.cache_hit}
        rows, judging = self._rows(networks), list[Comparison]()
        for n, parent in enumerate(networks):
            key = parent.architecture_key
            if len(judging) < MOST_PARENTS and (key in fresh or self._is_held_out(key)):
                comparison = self._comparison(parent, [networks[k] for k in self._near(rows, n)])
                judging += [] if comparison is None else [comparison]
        return Material(judging=tuple(judging))

    def consume(self, taken: Taken) -> None:
        """See ``Lessons``."""
        self._consumed = taken.generation

    # -- neighbourhoods ----------------------------------------------------------------------------------------------

    def _individuals(self, reader: JournalReader, generation: int) -> Iterator[IndividualRecord]:
        """What was evaluated in full up to a generation, the newest generations first."""
        seen = 0
        for g in range(generation, -1, -1):
            found = reader.generation(self._run_id, g).individuals
            yield from (i for i in found if i.status == "ok")
            seen += len(found)
            if seen >= WINDOW:
                break

    def _networks(self, reader: JournalReader, generation: int) -> list[IndividualRecord]:
        """Each architecture once."""
        found: dict[str, IndividualRecord] = {}
        for i in self._individuals(reader, generation):
            found.setdefault(i.architecture_key, i)
        return list(found.values())

    def _rows(self, networks: Sequence[IndividualRecord]) -> IntArray:
        found = [self._codec.space.indices(i.architecture) for i in networks]
        return np.array(found, dtype=np.int64).reshape(-1, len(self._codec.space))

    def _near(self, rows: IntArray, n: int) -> list[int]:
        """Numbers of those that a patch may give of one."""
        return [int(k) for k in np.flatnonzero(within_a_patch(rows, rows[n], self._most_genes))]

    def _is_held_out(self, key: str) -> bool:
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
        return drawn < self._held_out_share

    def _comparison(self, parent: IndividualRecord, near: Sequence[IndividualRecord]) -> Comparison | None:
        """None where too few of those near are the parent with a patch."""
        found: dict[str, Child] = {}
        for child in near:
            patch = self._patch(parent, child)
            if patch is not None:
                answer = in_json(self._codec.space.worded(patch))
                gain = self._fitness(child.metrics) - self._fitness(parent.metrics)
                found[answer] = Child(answer, gain, float(child.metrics["latency_ms"]))
        if len(found) < FEWEST_ANSWERS:
            return None
        ranked = sorted(found.values(), key=lambda c: (c.gain, c.answer))
        # From the worst to the best, evenly: losers teach as much as winners.
        chosen = np.unique(np.linspace(0, len(ranked) - 1, MOST_ANSWERS).round().astype(int))
        kept = [ranked[i] for i in chosen]
        system, prompt = self._asked(parent)
        return Comparison(
            id=parent.architecture_key,
            system=system,
            prompt=prompt,
            lead=CLOSING,  # a patch alone, whether the model reasons before it or not
            answers=tuple(c.answer for c in kept),
            gains=tuple(c.gain for c in kept),
            greedy=self._greedy(kept),
        )

    def _patch(self, parent: IndividualRecord, child: IndividualRecord) -> Mapping[str, Choice] | None:
        """What changes the parent into the child; None where no patch does."""
        before, after = parent.architecture, child.architecture
        patch = {g.name: after[g.name] for g in self._codec.space.genes if _differ(g.name, before, after)}
        if not 0 < len(patch) <= self._most_genes:
            return None
        indices = self._codec.decode(self._codec.patch(genotype_of(parent), patch)[None, :])[0]
        return patch if self._codec.space.key(indices) == child.architecture_key else None

    def _fitness(self, metrics: Mapping[str, Any]) -> float:
        return float(self._objective.fitness(*self._objective.standing(metrics)))

    def _greedy(self, children: Sequence[Child]) -> int | None:
        """Which leaves least of the latency target unused; where all exceed it, which exceeds it least."""
        target_ms = self._objective.latency_target_ms
        if target_ms is None:
            return None
        over = [c.latency_ms > target_ms for c in children]
        return min(range(len(children)), key=lambda i: (over[i], abs(children[i].latency_ms - target_ms)))


def within_a_patch(rows: IntArray, of: IntArray, most_genes: int) -> BoolArray:
    """Which canonical indices (n, genes) differ from others (genes,) in few genes that both have, (n,)."""
    apart = ((rows != of) & (rows >= 0) & (of >= 0)).sum(axis=1)
    return np.asarray((apart > 0) & (apart <= most_genes))


class _Parents:
    """Networks as they come, and how many of them have enough others near to be learned from, or to judge."""

    def __init__(self, space: Space, most_genes: int) -> None:
        self._most_genes = most_genes
        self._rows = np.empty((0, len(space)), dtype=np.int64)
        self._held_out = np.empty(0, dtype=np.bool_)
        self._fresh = np.empty(0, dtype=np.bool_)  # unknown to earlier runs
        self._near = np.empty(0, dtype=np.int64)
        self._near_to_train = np.empty(0, dtype=np.int64)  # of those that are not held out

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, indices: IntArray, *, held_out: bool, fresh: bool) -> None:
        """Take in a network, canonical indices (genes,), once."""
        if (self._rows == indices).all(axis=1).any():
            return
        near = within_a_patch(self._rows, indices, self._most_genes)
        self._near = np.append(self._near + near, near.sum())
        self._near_to_train = np.append(self._near_to_train + (near & (not held_out)), (near & ~self._held_out).sum())
        self._rows = np.concatenate((self._rows, indices[None, :]))
        self._held_out = np.append(self._held_out, held_out)
        self._fresh = np.append(self._fresh, fresh)

    @property
    def suffice(self) -> bool:
        """Whether there is something to learn from and to judge by."""
        training = int((~self._held_out & (self._near_to_train >= FEWEST_ANSWERS)).sum())
        judging = int((self._held_out & (self._near >= FEWEST_ANSWERS)).sum())
        return training >= FEWEST_PARENTS and judging >= FEWEST_JUDGING

    @property
    def suffice_for_trial(self) -> bool:
        """Whether enough of them judge that no earlier run can have learned from."""
        return int(((self._held_out | self._fresh) & (self._near >= FEWEST_ANSWERS)).sum()) >= FEWEST_TRIAL


def _differ(gene: str, before: Mapping[str, Choice], after: Mapping[str, Choice]) -> bool:
    return gene in before and gene in after and before[gene] != after[gene]
