"""A search space as declared data: named genes with ordered or nominal choices and conditional activity.

A space is written by a user as JSON (or TOML)::

    {"name": "tiny",
     "genes": [
       {"name": "depth",    "choices": [2, 3, 4]},
       {"name": "kernel.3", "choices": [3, 5, 7], "active_if": {"gene": "depth", "at_least": 3}},
       {"name": "op",       "choices": ["conv", "pool"], "kind": "nominal"}]}

Words: a *genotype* is a vector in the unit cube (see ``codec``); *indices* are one choice index a gene, ``-1`` where
the gene is inactive (canonical form); an *architecture* (phenotype) is a JSON object ``{gene: choice}`` of active
genes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Choice = str | int | float
IntArray = npt.NDArray[np.int64]

INACTIVE = -1


class SpaceError(ValueError):
    """The declaration of a space, or an architecture of it, is invalid; the message names the gene."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The gene is active where ``gene`` holds a choice >= ``at_least`` (numeric choices only)."""

    gene: str
    at_least: float


@dataclass(frozen=True, slots=True)
class Gene:
    """A named position with its choices, in order when ``kind`` is "ordered"."""

    name: str
    choices: tuple[Choice, ...]
    kind: Literal["ordered", "nominal"] = "ordered"
    active_if: Condition | None = None


@dataclass(frozen=True)
class Space:
    """A named tuple of genes. A condition may only refer to an earlier, unconditional gene."""

    name: str
    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        seen: dict[str, Gene] = {}
        if not self.genes:
            raise SpaceError(f"space {self.name!r} declares no genes")
        for gene in self.genes:
            if gene.name in seen:
                raise SpaceError(f"gene {gene.name!r} is declared twice")
            if len(gene.choices) < 1 or len(set(gene.choices)) != len(gene.choices):  # 1 and 1.0 are not distinct
                raise SpaceError(f"gene {gene.name!r} needs distinct choices, got {list(gene.choices)!r}")
            if gene.kind not in ("ordered", "nominal"):
                raise SpaceError(f"gene {gene.name!r}: kind must be 'ordered' or 'nominal', got {gene.kind!r}")
            if gene.active_if is not None:
                other = seen.get(gene.active_if.gene)
                if other is None or other.active_if is not None:
                    raise SpaceError(
                        f"gene {gene.name!r}: active_if must name an earlier gene that is always active, "
                        f"got {gene.active_if.gene!r}"
                    )
                if not all(isinstance(c, (int, float)) for c in other.choices):
                    raise SpaceError(f"gene {gene.name!r}: active_if needs numeric choices in {other.name!r}")
            seen[gene.name] = gene

    def __len__(self) -> int:
        return len(self.genes)

    @cached_property
    def cardinalities(self) -> IntArray:
        """Number of choices a gene, shape (G,)."""
        return np.array([len(g.choices) for g in self.genes], dtype=np.int64)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Gene name -> index into ``genes``."""
        return {g.name: i for i, g in enumerate(self.genes)}

    @cached_property
    def _activity(self) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
        """Conditional genes (c,), their controlling genes (c,), and controlling choice index -> active (c, most)."""
        genes = [i for i, g in enumerate(self.genes) if g.active_if is not None]
        others, table = [], np.zeros((len(genes), int(self.cardinalities.max())), dtype=np.bool_)
        for row, i in enumerate(genes):
            condition = self.genes[i].active_if
            assert condition is not None
            other = self.position[condition.gene]
            others.append(other)
            for j, choice in enumerate(self.genes[other].choices):
                table[row, j] = float(choice) >= condition.at_least
        return np.array(genes, dtype=np.int64), np.array(others, dtype=np.int64), table

    def canonical(self, indices: IntArray) -> IntArray:
        """Indices with ``-1`` at inactive genes. Shape (..., G) in and out; the input is not changed."""
        genes, others, table = self._activity
        out = indices.copy()
        active = table[np.arange(len(genes)), indices[..., others]]
        out[..., genes] = np.where(active, out[..., genes], INACTIVE)
        return out

    def architecture(self, indices: IntArray) -> dict[str, Choice]:
        """The JSON object of one row of indices, shape (G,): active genes only, in declared order."""
        row = self.canonical(indices)
        return {g.name: g.choices[int(i)] for g, i in zip(self.genes, row, strict=True) if i >= 0}

    def indices(self, architecture: Mapping[str, Any]) -> IntArray:
        """Canonical indices, shape (G,), of an architecture.

        Raises:
            SpaceError: an unknown or missing gene, an inactive gene given, or a choice that is not in the space.
        """
        unknown = [k for k in architecture if k not in self.position]
        if unknown:
            raise SpaceError(f"unknown gene {unknown[0]!r} in space {self.name!r}")
        out = np.full(len(self.genes), INACTIVE, dtype=np.int64)
        for i, gene in enumerate(self.genes):
            if gene.name in architecture:
                out[i] = self.choice_index(i, architecture[gene.name])
        probe = np.where(out < 0, 0, out)
        canonical = self.canonical(probe)
        for i, gene in enumerate(self.genes):
            if canonical[i] >= 0 and out[i] < 0:
                raise SpaceError(f"gene {gene.name!r} is missing")
            if canonical[i] < 0 and out[i] >= 0:
                raise SpaceError(f"gene {gene.name!r} is inactive in this architecture")
        return out

    def gene_index(self, name: str) -> int:
        """Number of the gene called ``name``.

        Raises:
            SpaceError: there is none.
        """
        if name not in self.position:
            raise SpaceError(f"unknown gene {name!r} in space {self.name!r}")
        return self.position[name]

    def choice_index(self, gene: int, choice: object) -> int:
        """Index of ``choice`` in gene number ``gene``; ``True`` is not ``1`` here.

        Raises:
            SpaceError: the choice is not in the gene.
        """
        for j, known in enumerate(self.genes[gene].choices):
            if known == choice and isinstance(choice, bool) == isinstance(known, bool):
                return j
        raise SpaceError(
            f"gene {self.genes[gene].name!r} has no choice {choice!r}; choose from {list(self.genes[gene].choices)!r}"
        )

    def neighbours(self, gene: int, index: int) -> list[int]:
        """Choices one step from ``index``: ±1 where the gene is ordered, every other choice where it is nominal."""
        count = len(self.genes[gene].choices)
        if self.genes[gene].kind == "nominal":
            return [c for c in range(count) if c != index]
        return [c for c in (index - 1, index + 1) if 0 <= c < count]

    def key(self, indices: IntArray) -> str:
        """The cache key of one row, shape (G,): canonical choice indices joined by dots, ``_`` where inactive."""
        return ".".join("_" if i < 0 else str(int(i)) for i in self.canonical(indices))

    def to_json(self) -> dict[str, Any]:
        """The declaration as JSON; ``Space.from_json`` reads it back."""
        genes = []
        for g in self.genes:
            row: dict[str, Any] = {"name": g.name, "choices": list(g.choices)}
            if g.kind != "ordered":
                row["kind"] = g.kind
            if g.active_if is not None:
                row["active_if"] = {"gene": g.active_if.gene, "at_least": g.active_if.at_least}
            genes.append(row)
        return {"name": self.name, "genes": genes}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Space:
        """A space from its declaration.

        Raises:
            SpaceError: a key is missing, unknown or of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise SpaceError(f"a space is a table with 'name' and 'genes', got {type(data).__name__}")
        try:
            extra = set(data) - {"name", "genes"}
            if extra:
                raise SpaceError(f"unknown key {sorted(extra)[0]!r} in the space; expected 'name' and 'genes'")
            return Space(str(data["name"]), tuple(_gene(g) for g in _rows(data["genes"])))
        except KeyError as error:
            raise SpaceError(f"the space lacks the key {error.args[0]!r}") from None

    @cached_property
    def sha256(self) -> str:
        """Hash of the declaration."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _rows(value: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(r, Mapping) for r in value):
        raise SpaceError("'genes' must be a list of tables")
    return value


def _gene(row: Mapping[str, Any]) -> Gene:
    extra = set(row) - {"name", "choices", "kind", "active_if"}
    if extra:
        raise SpaceError(f"unknown key {sorted(extra)[0]!r} in gene {row.get('name', '?')!r}")
    choices = row["choices"]
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise SpaceError(f"gene {row.get('name', '?')!r}: choices must be a list")
    for choice in choices:
        if isinstance(choice, bool) or not isinstance(choice, (str, int, float)):
            raise SpaceError(f"gene {row.get('name', '?')!r}: a choice must be a string or a number, got {choice!r}")
        if not isinstance(choice, str) and not _is_finite(choice):
            raise SpaceError(f"gene {row.get('name', '?')!r}: a choice must be finite, got {str(choice)[:40]}")
    condition = row.get("active_if")
    active_if = None
    if condition is not None:
        if not isinstance(condition, Mapping) or set(condition) != {"gene", "at_least"}:
            raise SpaceError(f"gene {row.get('name', '?')!r}: active_if needs exactly 'gene' and 'at_least'")
        limit = condition["at_least"]
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not _is_finite(limit):
            raise SpaceError(f"gene {row.get('name', '?')!r}: at_least must be a number, got {str(limit)[:40]}")
        active_if = Condition(str(condition["gene"]), limit)  # as it is written: the hash is over the text
    return Gene(str(row["name"]), tuple(choices), row.get("kind", "ordered"), active_if)


def _is_finite(number: float) -> bool:
    """Whether a float holds it: choices are compared as such, and JSON may hold integers of thousands of digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
