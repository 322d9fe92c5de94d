"""Every evaluated child as something to learn from: patches of one parent, and what each gained.

Whoever made a child, if a patch of the parent gives it, the patch is an answer that a model could have written. Some
parents never train: a hash of their architecture says which, so that they are the same in every training of a run and
in a resumed one. They judge.
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
from riwoa.run.history import Identity, genotype_of
from riwoa.run.lessons import Material, Taken
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord

MOST_PARENTS, MOST_JUDGING = 32, 16  # of a training, and that judge it: those whose children are newest
FEWEST_ANSWERS, MOST_ANSWERS = 3, 8  # of a parent
WINDOW = 4_000  # individuals that a training looks through, the newest

Asked = Callable[[IndividualRecord], tuple[str, str]]  # a parent's system message and prompt


@dataclass(frozen=True, slots=True)
class Child:
    """An evaluated child, by the patch that gives it."""

    answer: str  # the patch in JSON
    gain: float  # of fitness
    latency_ms: float


class Comparisons:
    """The evaluated children of a run, counted by generation; implements ``Lessons``.

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

    def restore(self, reader: JournalReader, generation: int, consumed: int | None) -> None:
        """See ``Lessons``."""
        counts = reader.history.children_by_generation(self._run_id, before=generation)
        self._generations = [g for g, count in counts for _ in range(count)]
        self._consumed = -1 if consumed is None else consumed

    def enough_since(self, count: int) -> int | None:
        """See ``Lessons``."""
        last = self._first + count - 1
        return self._generations[last] if last < len(self._generations) else None

    def take(self, generation: int, most: int) -> Taken:
        """See ``Lessons``: old ones too; how many is bounded by parents and answers."""
        return Taken(generation)

    def material(self, reader: JournalReader, taken: Taken) -> Material:
        """See ``Lessons``."""
        training: list[Comparison] = []
        judging: list[Comparison] = []
        for parent, children in self._families(reader, taken.generation):
            found, most = (judging, MOST_JUDGING) if self._judges(parent) else (training, MOST_PARENTS)
            if len(found) < most and (comparison := self._comparison(parent, children)) is not None:
                found.append(comparison)
            if len(training) == MOST_PARENTS and len(judging) == MOST_JUDGING:
                break
        return Material(comparisons=tuple(training), judging=tuple(judging))

    def consume(self, taken: Taken) -> None:
        """See ``Lessons``."""
        self._consumed = taken.generation

    # -- families ----------------------------------------------------------------------------------------------------

    def _families(
        self, reader: JournalReader, generation: int
    ) -> Iterator[tuple[IndividualRecord, list[IndividualRecord]]]:
        """Parents with their children up to a generation, those with the newest children first."""
        children: dict[Identity, list[IndividualRecord]] = {}
        seen = 0
        for g in range(generation, -1, -1):
            for i in reader.generation(self._run_id, g).individuals:
                seen += 1
                if i.status == "ok" and i.parent is not None:
                    children.setdefault(i.parent, []).append(i)
            if seen >= WINDOW:
                break
        for (g, slot), family in children.items():
            if len(family) >= FEWEST_ANSWERS:
                parent = reader.individual(self._run_id, g, slot)
                if parent is not None and parent.status == "ok":
                    yield parent, family

    def _judges(self, parent: IndividualRecord) -> bool:
        drawn = int.from_bytes(hashlib.sha256(parent.architecture_key.encode()).digest()[:6], "big") / 2**48
        return drawn < self._held_out_share

    def _comparison(self, parent: IndividualRecord, family: Sequence[IndividualRecord]) -> Comparison | None:
        """None where too few of the children are the parent with a patch."""
        found: dict[str, Child] = {}
        for child in family:
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


def _differ(gene: str, before: Mapping[str, Choice], after: Mapping[str, Choice]) -> bool:
    return gene in before and gene in after and before[gene] != after[gene]
