"""What a patch may change in a parent: the offer that a request, its grammar, its reader and its placebo all hold to.

Rulings 15 and 20. Seeds for those who are outside numpy are made here, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from riwoa.cognition.parse import PatchError
from riwoa.cognition.protocol import Choice
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray

Offered = dict[str, tuple[Choice, ...]]  # gene -> choices
Known = Callable[[Sequence[str]], Collection[str]]  # those of some architecture keys that are not to be asked again


@dataclass(frozen=True, slots=True)
class SingleChanges:
    """Every single change of one parent, (gene, choice), with the key of the architecture that it gives."""

    changes: tuple[tuple[str, Choice], ...]
    keys: tuple[str, ...]

    def offered(self, known: Collection[str]) -> Offered:
        """The changes that give something not ``known`` (novelty rejection); all of them if none does."""
        new = [change for change, key in zip(self.changes, self.keys, strict=True) if key not in known]
        offered: dict[str, list[Choice]] = {}
        for gene, choice in new or self.changes:
            offered.setdefault(gene, []).append(choice)
        return {gene: tuple(choices) for gene, choices in offered.items()}


def single_changes(codec: Codec, genotype: FloatArray) -> SingleChanges:
    """The changes of one parent, float64 (D,): each active gene to each of its other choices."""
    parent = codec.space.architecture(codec.decode(genotype[None, :])[0])
    changes = tuple(
        (gene.name, choice)
        for gene in codec.space.genes
        if gene.name in parent
        for choice in gene.choices
        if choice != parent[gene.name]
    )
    if not changes:
        return SingleChanges((), ())
    children = codec.decode(np.stack([codec.patch(genotype, {gene: choice}) for gene, choice in changes]))
    return SingleChanges(changes, tuple(codec.space.key(row) for row in children))


def offered_choices(codec: Codec, genotype: FloatArray, known: Known) -> Offered:
    """What may change in one parent, float64 (D,); {} where the space leaves nothing to change at all.

    A choice is left out where the parent with this single change is ``known``; if that leaves nothing, every other
    choice is offered.
    """
    found = single_changes(codec, genotype)
    return found.offered(known(found.keys)) if found.keys else {}


def placebo_patch(offered: Offered, most_genes: int, rng: np.random.Generator) -> dict[str, Choice]:
    """Ruling 20: size uniform in 1..``most_genes``, genes uniform without replacement, choices uniform.

    Raises:
        PatchError: nothing is on offer.
    """
    if not offered:
        raise PatchError("nothing in this architecture can change")
    size = int(rng.integers(1, min(most_genes, len(offered)) + 1))
    genes = [list(offered)[i] for i in rng.choice(len(offered), size, replace=False)]
    return {gene: offered[gene][int(rng.integers(len(offered[gene])))] for gene in genes}


def seed_of(seed: int, generation: int, slot: int, purpose: str) -> int:
    """A 48-bit seed for whoever is outside numpy, keyed as every draw is (ruling 13)."""
    text = f"{seed}/{generation}/{slot}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
