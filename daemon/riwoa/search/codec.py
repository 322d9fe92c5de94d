"""Between genotypes (vectors in the unit cube) and choice indices.

An ordered gene of c choices is one coordinate cut into c equal bins: decoded by floor, encoded at bin centres. A
nominal gene has no order, so it is c coordinates (logits) decoded by argmax. A linear map (the rotation of the search
move) mixes ordered coordinates meaningfully; between the logits of nominal genes it can only learn which choices go
together, not a direction, so rotation invariance promises less there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa.search.space import Choice, IntArray, Space

BELOW_ONE = float(np.nextafter(1.0, 0.0))
CHOSEN, OTHERS, UNDECIDED = 0.75, 0.25, 0.5  # logits of the choice, of its rivals, of an inactive gene


class CodecError(ValueError):
    """A genotype or row of indices does not belong to the space."""


class Codec:
    """Decodes, encodes, reflects and patches genotypes of one space.

    Args:
        space: the space.
        seed: of the tie-break between equal logits; the run's seed.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        cards = space.cardinalities
        self._nominal = np.array([g.kind == "nominal" for g in space.genes], dtype=np.bool_)
        widths = np.where(self._nominal, cards, 1)
        self._start = np.concatenate(([0], np.cumsum(widths)))
        self.dimension = int(self._start[-1])
        self._ordered_genes = np.flatnonzero(~self._nominal)
        self._ordered_columns = self._start[self._ordered_genes]
        self._ordered_cards = cards[self._ordered_genes]
        self._nominal_genes = [int(g) for g in np.flatnonzero(self._nominal)]
        rng = generator(seed, 0, "codec.ties")
        # Looking at the logits in a random, fixed order makes argmax's "first wins" favour no choice in particular.
        self._tie_order = {g: rng.permutation(int(cards[g])) for g in self._nominal_genes}

    def columns(self, gene: int) -> slice:
        """The coordinates of gene number ``gene``."""
        return slice(int(self._start[gene]), int(self._start[gene + 1]))

    def raw_indices(self, genotypes: FloatArray) -> IntArray:
        """Indices of every gene, inactive ones too. Shape (n, D) in, (n, G) out."""
        x = self._checked(genotypes)
        out = np.empty((len(x), len(self.space)), dtype=np.int64)
        bins = np.floor(x[:, self._ordered_columns] * self._ordered_cards).astype(np.int64)
        out[:, self._ordered_genes] = np.minimum(bins, self._ordered_cards - 1)  # x·c may round up to c
        for gene in self._nominal_genes:
            order = self._tie_order[gene]
            out[:, gene] = order[np.argmax(x[:, self.columns(gene)][:, order], axis=1)]
        return out

    def decode(self, genotypes: FloatArray) -> IntArray:
        """Canonical indices, ``-1`` at inactive genes. Shape (n, D) in, (n, G) out.

        Raises:
            CodecError: wrong shape, or a coordinate outside [0, 1).
        """
        return self.space.canonical(self.raw_indices(genotypes))

    def encode(self, indices: IntArray) -> FloatArray:
        """Genotypes at bin centres; inactive genes (``-1``) sit in the middle. Shape (n, G) in, (n, D) out.

        Raises:
            CodecError: wrong shape, or an index that is not in its gene.
        """
        indices = np.asarray(indices, dtype=np.int64)
        cards = self.space.cardinalities
        if indices.ndim != 2 or indices.shape[1] != len(self.space):
            raise CodecError(f"indices must have shape (n, {len(self.space)}), got {indices.shape}")
        if np.any(indices < -1) or np.any(indices >= cards):
            wrong = self.space.genes[int(np.flatnonzero(np.any((indices < -1) | (indices >= cards), axis=0))[0])]
            raise CodecError(f"gene {wrong.name!r} has {len(wrong.choices)} choices; an index is outside them")
        out = np.full((len(indices), self.dimension), UNDECIDED)
        ordered = indices[:, self._ordered_genes]
        out[:, self._ordered_columns] = np.where(ordered < 0, UNDECIDED, (ordered + 0.5) / self._ordered_cards)
        for gene in self._nominal_genes:
            rows = np.flatnonzero(indices[:, gene] >= 0)
            block = np.full((len(rows), int(cards[gene])), OTHERS)
            block[np.arange(len(rows)), indices[rows, gene]] = CHOSEN
            out[rows, self.columns(gene)] = block
        return out

    def reflect(self, vectors: FloatArray) -> FloatArray:
        """Fold any finite vectors into [0, 1) as a ball bounces between walls. Any shape.

        Clipping would gather probability on the walls, that is, in the outermost choices.

        Raises:
            CodecError: a coordinate is not finite.
        """
        if not np.all(np.isfinite(vectors)):
            raise CodecError("a genotype has a coordinate that is not finite")
        folded = np.mod(vectors, 2.0)
        return np.asarray(np.minimum(np.minimum(folded, 2.0 - folded), BELOW_ONE))

    def patch(self, vector: FloatArray, changes: Mapping[str, Choice]) -> FloatArray:
        """A copy of one genotype, shape (D,), with named genes set; every other gene keeps its raw coordinates.

        Raises:
            SpaceError: an unknown gene or a choice that is not in it.
        """
        out: FloatArray = self._checked(np.asarray(vector)[None, :])[0].copy()
        for name, choice in changes.items():
            gene = self.space.gene_index(name)
            self.set_choice(out, gene, self.space.choice_index(gene, choice))
        return out

    def set_choice(self, vector: FloatArray, gene: int, index: int) -> None:
        """Set one gene of a genotype, shape (D,), in place, to the centre of its bin."""
        if self._nominal[gene]:
            vector[self.columns(gene)] = OTHERS
            vector[int(self._start[gene]) + index] = CHOSEN
        else:
            vector[int(self._start[gene])] = (index + 0.5) / int(self.space.cardinalities[gene])

    def _checked(self, genotypes: FloatArray) -> FloatArray:
        x = np.asarray(genotypes, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise CodecError(f"genotypes must have shape (n, {self.dimension}), got {x.shape}")
        if not np.all((x >= 0.0) & (x < 1.0)):  # false for NaN too
            raise CodecError("a genotype has a coordinate outside [0, 1); reflect it first")
        return x
