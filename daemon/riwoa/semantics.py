"""The semantic half of a generation: requests out, replies in, placebos beside them.

A request offers choices; the model's grammar, the reader of its reply and the placebo all hold to the same offer
(rulings 15 and 20). Everything that a request says follows from committed generations and the configuration in force,
so a resumed run asks the same.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from riwoa.candidate import Candidate, candidate, parent_genotype
from riwoa.cognition.desk import ProposalDesk
from riwoa.cognition.parse import PatchError, parse_patch, split_thinking
from riwoa.cognition.prompt import Remembered, Situation, Template, compose, load_template
from riwoa.cognition.protocol import Ask, Choice, GenerationSettings
from riwoa.config import Cognition
from riwoa.history import History, Identity, genotype_of
from riwoa.search.base import Proposal
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, IndividualRecord, ReplyRecord, RequestRecord

WORSE = "worse than its parent"
NOT_EVALUATED = "could not be evaluated"
BEST_SHOWN, BEST_AMONG = 3, 20  # successes in a prompt, and among how many of the last
REJECTED_KEPT = 8  # as many as the longest template can show
Offered = dict[str, tuple[Choice, ...]]
Known = Callable[[str], bool]  # architecture key -> evaluated in a committed generation, or asked for already
LatencyOf = Callable[[Mapping[str, Any]], float]  # architecture -> milliseconds
LayerMs = Callable[[Mapping[str, Any]], Mapping[str, float]]  # architecture -> milliseconds of each layer


def offered_choices(codec: Codec, genotype: FloatArray, known: Known) -> Offered:
    """What may change in one parent, shape (D,): each active gene's other choices, each giving something new.

    A choice is left out where the parent with this single change is ``known`` (novelty rejection); if that leaves
    nothing, every other choice is offered; {} where the space leaves nothing to change at all.
    """
    parent = codec.space.architecture(codec.decode(genotype[None, :])[0])
    changes = [
        (gene.name, choice)
        for gene in codec.space.genes
        if gene.name in parent
        for choice in gene.choices
        if choice != parent[gene.name]
    ]
    if not changes:
        return {}
    children = codec.decode(np.stack([codec.patch(genotype, {gene: choice}) for gene, choice in changes]))
    new = [change for change, row in zip(changes, children, strict=True) if not known(codec.space.key(row))]
    offered: dict[str, list[Choice]] = {}
    for gene, choice in new or changes:
        offered.setdefault(gene, []).append(choice)
    return {gene: tuple(choices) for gene, choices in offered.items()}


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
