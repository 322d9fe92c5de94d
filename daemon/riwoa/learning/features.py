"""Steps as numbers: what changes in which part of a network, and in which direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from riwoa.search.fitness import BoolArray, FloatArray
from riwoa.search.space import Choice, Gene, IntArray, Space

MOST_COLUMNS = 32  # a run has some hundred steps to learn from


@dataclass(frozen=True, slots=True)
class Part:
    """Genes that are taken together: where they are ("stage1", "" for everywhere) and what they are ("kernel").

    Attributes:
        choice: of nominal genes, the one that is counted; None for positions of ordered ones.
        word: what the choice is called.
    """

    where: str
    what: str
    choice: Choice | None = None
    word: Choice | None = None

    @property
    def named(self) -> str:
        """Where and what it is: "kernel in stage4"; of a gene whose name ends with a number, that name: "ops.3"."""
        if self.what.isdigit():
            return f"{self.where}.{self.what}".lstrip(".")
        return f"{self.what}{f' in {self.where}' if self.where else ''}".strip()

    @property
    def called(self) -> Choice | None:
        """The choice, by its word."""
        return self.choice if self.word is None else self.word

    def words(self, *, grows: bool) -> str:
        """More of it, or less."""
        if self.choice is not None:
            return f"{self.named} {'to' if grows else 'from'} {self.called}"
        way = "up" if grows else "down"
        return f"{self.named} {way}" if self.what.isdigit() else f"{self.what} {way}{self.named[len(self.what) :]}"


def _finest(gene: Gene) -> tuple[str, str]:
    where, _, what = gene.name.rpartition(".")
    return where, what


def _by_stage(gene: Gene) -> tuple[str, str]:
    where, what = gene.name.split(".")[0], gene.name.rpartition(".")[2]
    return ("" if where == what else where), ("" if what.isdigit() else what)


def _by_kind(gene: Gene) -> tuple[str, str]:
    name = gene.name.rpartition(".")[2]
    return "", gene.name.rpartition(".")[0] if name.isdigit() else name


class StepFeatures:
    """Columns of steps from one network to another: a signed sum for each part of the space.

    Of an ordered gene the distance in shares of its range; of a nominal one, for each choice, whether it comes (1) or
    goes (−1). Genes are taken together by stage and kind, or by kind, where they would make too many columns.

    Args:
        space: of the networks.

    Attributes:
        parts: what the columns are.
        genes: numbers of the genes of each.
    """

    def __init__(self, space: Space) -> None:
        ordered = [i for i, gene in enumerate(space.genes) if gene.kind == "ordered"]
        nominal = [i for i, gene in enumerate(space.genes) if gene.kind == "nominal"]
        levels: list[Callable[[Gene], tuple[str, str]]] = [_by_stage, _by_kind]
        if len(ordered) + sum(len(space.genes[i].choices) for i in nominal) <= MOST_COLUMNS:
            levels = [_finest]
        for level in levels:
            found: dict[Part, list[int]] = {}
            for i in ordered:
                found.setdefault(Part(*level(space.genes[i])), []).append(i)
            for i in nominal:
                gene = space.genes[i]
                for choice in gene.choices:
                    word = None if gene.words is None else gene.word(choice)
                    found.setdefault(Part(*level(gene), choice, word), []).append(i)
            if len(found) <= MOST_COLUMNS:
                break
        self.parts = tuple(found)
        self.genes = tuple(tuple(genes) for genes in found.values())
        self._columns = [np.array(genes) for genes in found.values()]
        self._chosen = [
            [space.genes[gene].choices.index(part.choice) for gene in genes] if part.choice is not None else []
            for part, genes in found.items()
        ]
        self._space = space

    def steps(self, before: IntArray, after: IntArray) -> FloatArray:
        """Of canonical indices (n, genes) and (n, genes), (n, parts)."""
        return self.positions(after) - self.positions(before)

    def positions(self, indices: IntArray) -> FloatArray:
        """Of each part: sums of positions in [0, 1], or counts of a choice, (n, parts); an inactive gene adds none."""
        out = np.empty((len(indices), len(self.parts)))
        for column, (part, genes) in enumerate(zip(self.parts, self._columns, strict=True)):
            chosen = indices[:, genes]
            if part.choice is None:
                out[:, column] = ((chosen + 1) / self._space.cardinalities[genes]).sum(axis=1)  # an inactive gene is -1
            else:
                out[:, column] = (chosen == np.array(self._chosen[column])).sum(axis=1)
        return out

    def room(self, indices: IntArray) -> BoolArray:
        """Whether there may be less (column 0) and more (1) of each part in a network (genes,), (parts, 2)."""
        out = np.zeros((len(self.parts), 2), dtype=np.bool_)
        for row, (part, genes) in enumerate(zip(self.parts, self._columns, strict=True)):
            chosen, last = indices[genes], self._space.cardinalities[genes] - 1
            active = chosen >= 0
            if part.choice is None:
                out[row] = (chosen > 0).any(), (active & (chosen < last)).any()
            else:
                its = chosen == np.array(self._chosen[row])
                out[row] = its.any(), (active & ~its).any()
        return out
