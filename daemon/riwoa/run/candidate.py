"""A genotype on its way from whoever proposed it to its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from riwoa.run.history import Identity
from riwoa.search.base import Proposal
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genotype with where it came from and the architecture that it stands for."""

    slot: int
    operator: str
    genotype: FloatArray
    parent: Identity | None
    key: str
    architecture: Mapping[str, Any]
    request_id: str | None = None
    error: str | None = None  # why a semantic slot, or a placebo's, fell back to a geometric move


def candidate(codec: Codec, p: Proposal, **changes: Any) -> Candidate:
    """The candidate of a proposal; ``changes`` replace its fields."""
    genotype = changes.pop("genotype", p.genotype)
    indices = codec.decode(genotype[None, :])[0]
    return Candidate(
        slot=changes.pop("slot", p.slot),
        operator=changes.pop("operator", p.operator),
        genotype=genotype,
        parent=p.parent,
        key=codec.space.key(indices),
        architecture=codec.space.architecture(indices),
        **changes,
    )


def parent_genotype(p: Proposal) -> FloatArray:
    """The vector that a patch would change."""
    assert p.parent_genotype is not None, f"a {p.operator} proposal names its parent's genotype"
    return p.parent_genotype
