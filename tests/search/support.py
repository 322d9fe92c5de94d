"""Spaces, landscapes and drivers shared by the tests of the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from hypothesis import strategies as st

from riwoa.search.base import Outcome, Proposal, Strategy
from riwoa.search.codec import Codec
from riwoa.search.polish import Polish
from riwoa.search.space import Choice, Condition, Gene, IntArray, Space
from riwoa.supernet.space import mobilenet_space

Landscape = Callable[[IntArray], tuple[float, float]]  # canonical indices (G,) -> accuracy, latency_ms

MOBILE = mobilenet_space((24, 32, 40))
MIXED = Space(
    "mixed",
    (
        Gene("depth", (2, 3, 4)),
        Gene("only", ("x",)),
        Gene("kernel.3", (3, 5, 7), active_if=Condition("depth", 3)),
        Gene("kernel.4", (3, 5, 7), active_if=Condition("depth", 4)),
        Gene("op", ("none", "conv", "pool", "skip"), kind="nominal"),
        Gene("act", ("relu", "swish"), kind="nominal", active_if=Condition("depth", 4)),
    ),
)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Spaces with ordered, nominal and conditional genes, in any mixture."""
    genes: list[Gene] = []
    kinds: tuple[Literal["ordered", "nominal"], ...] = ("ordered", "nominal")
    for number in range(draw(st.integers(1, 8))):
        controllers = [g for g in genes if g.active_if is None]
        condition = None
        conditional: bool = draw(st.booleans())
        if controllers and conditional:
            other = draw(st.sampled_from(controllers))
            condition = Condition(other.name, draw(st.integers(0, len(other.choices))))
        choices: tuple[Choice, ...] = tuple(range(draw(st.integers(1, 5))))
        genes.append(Gene(f"g{number}", choices, draw(st.sampled_from(kinds)), condition))
    return Space("drawn", tuple(genes))


def random_indices(space: Space, seed: int, count: int = 1) -> IntArray:
    """Canonical indices, shape (count, G)."""
    return space.canonical(np.random.default_rng(seed).integers(0, space.cardinalities, (count, len(space))))


def hill(space: Space, seed: int = 0) -> Landscape:
    """Accuracy rises with agreement with a hidden architecture and with size; latency rises with size."""
    hidden = np.random.default_rng(seed).integers(0, space.cardinalities)

    def landscape(indices: IntArray) -> tuple[float, float]:
        active = indices >= 0
        agreement = float(np.mean(np.where(active, indices == hidden, False)))
        size = float(np.where(active, indices + 1, 0).sum() / space.cardinalities.sum())
        return 0.5 + 0.3 * agreement + 0.2 * size, 1.0 + 10.0 * size

    return landscape


def outcomes(proposals: list[Proposal], codec: Codec, landscape: Landscape) -> list[Outcome]:
    """Every proposal evaluated."""
    return [
        Outcome(p.slot, p.operator, p.genotype, *landscape(codec.decode(p.genotype[None, :])[0]), p.parent)
        for p in proposals
    ]


def advance(strategy: Strategy | Polish, codec: Codec, landscape: Landscape) -> list[Proposal]:
    """One generation; what was asked."""
    proposals = strategy.ask()
    strategy.tell(outcomes(proposals, codec, landscape))
    return proposals


def same(a: list[Proposal], b: list[Proposal]) -> bool:
    """Whether two asks are equal bit for bit."""
    return len(a) == len(b) and all(
        (p.slot, p.operator, p.parent) == (q.slot, q.operator, q.parent)
        and np.array_equal(p.genotype, q.genotype)
        and (p.parent_genotype is None) == (q.parent_genotype is None)
        and (
            p.parent_genotype is None
            or q.parent_genotype is None
            or np.array_equal(p.parent_genotype, q.parent_genotype)
        )
        for p, q in zip(a, b, strict=True)
    )
