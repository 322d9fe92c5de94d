"""A search space as declared data: named genes with ordered or nominal choices and conditional activity.

A space is written by a user as JSON, or in the same words as TOML::

    {"name": "tiny",
     "genes": [
       {"name": "depth",    "choices": [2, 3, 4]},
       {"name": "kernel.3", "choices": [3, 5, 7], "active_if": {"gene": "depth", "at_least": 3}},
       {"name": "op",       "choices": ["conv", "pool"], "kind": "nominal"},
       {"name": "act",      "choices": [0, 1], "words": ["relu", "silu"], "kind": "nominal"},
       {"name": "groups",   "choices": [1, 2], "active_if": {"gene": "op", "among": ["conv"]}}]}

Words: a *genotype* is a vector in the unit cube (see ``codec``); *indices* are one choice index a gene, ``-1`` where
the gene is inactive (canonical form); an *architecture* (phenotype) is a JSON object ``{gene: choice}`` of active
genes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Choice = str | int | float
IntArray = npt.NDArray[np.int64]

INACTIVE = -1


class SpaceError(ValueError):
    """The declaration of a space, or an architecture of it, is invalid; the message names the gene.

    The message is the first problem, ``problems`` holds all of them.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems[:1])
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Condition:
    """The gene is active where ``gene`` holds a choice >= ``at_least`` (numeric choices only), or one ``among`` these.

    Exactly one of the two is given.
    """

    gene: str
    at_least: float | None = None
    among: tuple[Choice, ...] | None = None

    def holds(self, choice: Choice) -> bool:
        """Whether the gene is active where the controlling gene holds ``choice``."""
        return choice in self.among if self.among is not None else float(choice) >= float(self.at_least or 0.0)

    def to_json(self) -> dict[str, Any]:
        """As it is declared."""
        limit = {"at_least": self.at_least} if self.among is None else {"among": list(self.among)}
        return {"gene": self.gene, **limit}


@dataclass(frozen=True, slots=True)
class Gene:
    """A named position with its choices, in order when ``kind`` is "ordered".

    ``words``: what the choices are called where they are numbers that stand for something else, one a choice; for those
    who read, a language model among them. No gene differs by it, so neither hash nor journal holds it.
    """

    name: str
    choices: tuple[Choice, ...]
    kind: Literal["ordered", "nominal"] = "ordered"
    active_if: Condition | None = None
    words: tuple[str, ...] | None = field(default=None, compare=False)

    def word(self, choice: Choice) -> Choice:
        """What a choice is called."""
        return choice if self.words is None else self.words[self.choices.index(choice)]


@dataclass(frozen=True)
class Space:
    """A named tuple of genes. A condition may only refer to an earlier, unconditional gene."""

    name: str
    genes: tuple[Gene, ...]

    def __post_init__(self) -> None:
        problems = [] if self.genes else [f"space {self.name!r} declares no genes"]
        seen: dict[str, Gene] = {}
        for gene in self.genes:
            if gene.name in seen:
                problems.append(f"gene {gene.name!r} is declared twice")
            problems += _problems_of(gene, seen)
            seen.setdefault(gene.name, gene)
        if problems:
            raise SpaceError(*problems)

    def __len__(self) -> int:
        return len(self.genes)

    @cached_property
    def cardinalities(self) -> IntArray:
        """Number of choices a gene, shape (G,)."""
        return np.array([len(g.choices) for g in self.genes], dtype=np.int64)

    @cached_property
    def size(self) -> int:
        """Number of different architectures."""
        count = 1
        for gene in self.genes:
            if gene.active_if is None:
                below = [g for g in self.genes if g.active_if is not None and g.active_if.gene == gene.name]
                count *= sum(
                    math.prod(len(g.choices) for g in below if g.active_if is not None and g.active_if.holds(choice))
                    for choice in gene.choices
                )
        return count

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Gene name -> index into ``genes``."""
        return {g.name: i for i, g in enumerate(self.genes)}

    @cached_property
    def in_words(self) -> Space:
        """The space as it is told: of each gene that has words for its choices, those."""
        genes = {gene.name: gene for gene in self.genes}

        def told(gene: Gene) -> Gene:
            condition = gene.active_if
            if condition is not None and genes[condition.gene].words is not None:  # words are not "at least" anything
                other = genes[condition.gene]
                among = tuple(other.word(choice) for choice in other.choices if condition.holds(choice))
                condition = Condition(condition.gene, among=among)
            return replace(gene, choices=tuple(map(gene.word, gene.choices)), active_if=condition, words=None)

        return Space(self.name, tuple(map(told, self.genes)))

    def worded(self, architecture: Mapping[str, Choice]) -> dict[str, Choice]:
        """An architecture, or a patch on one, in the words of ``in_words``."""
        return {name: self.genes[self.position[name]].word(choice) for name, choice in architecture.items()}

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
                table[row, j] = condition.holds(choice)
        return np.array(genes, dtype=np.int64), np.array(others, dtype=np.int64), table

    def canonical(self, indices: IntArray) -> IntArray:
        """Indices with ``-1`` at inactive genes. Shape (..., G) in and out; the input is not changed."""
        genes, others, table = self._activity
        out = indices.copy()
        active = table[np.arange(len(genes)), indices[..., others]]
        out[..., genes] = np.where(active, out[..., genes], INACTIVE)
        return out

    @cached_property
    def _named(self) -> list[tuple[str, tuple[Choice, ...]]]:
        return [(gene.name, gene.choices) for gene in self.genes]

    def architecture(self, indices: IntArray) -> dict[str, Choice]:
        """The JSON object of one row of indices, shape (G,): active genes only, in declared order."""
        row = self.canonical(indices).tolist()
        return {name: choices[i] for (name, choices), i in zip(self._named, row, strict=True) if i >= 0}

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
        """The declaration as JSON, without words; ``Space.from_json`` reads it back."""
        genes = []
        for g in self.genes:
            row: dict[str, Any] = {"name": g.name, "choices": list(g.choices)}
            if g.kind != "ordered":
                row["kind"] = g.kind
            if g.active_if is not None:
                row["active_if"] = g.active_if.to_json()
            genes.append(row)
        return {"name": self.name, "genes": genes}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Space:
        """A space from its declaration.

        Raises:
            SpaceError: keys are missing, unknown or of the wrong type; its ``problems`` are all of them.
        """
        if not isinstance(data, Mapping):
            raise SpaceError(f"a space is a table with 'name' and 'genes', got {type(data).__name__}")
        problems = [f"unknown key {key!r} in the space; expected 'name' and 'genes'" for key in _extra(data, _SPACE)]
        problems += [f"the space lacks the key {key!r}" for key in ("name", "genes") if key not in data]
        rows = data.get("genes", [])
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not all(isinstance(r, Mapping) for r in rows):
            problems.append("'genes' must be a list of tables")
            rows = []
        genes = [_gene(row, problems) for row in rows]
        whole = tuple(gene for gene in genes if gene is not None)
        name = str(data.get("name"))
        if not problems:
            return Space(name, whole)
        if len(whole) == len(genes) > 0:  # what genes say of one another is known only where all can be read
            try:
                Space(name, whole)
            except SpaceError as error:
                problems += error.problems
        raise SpaceError(*problems)

    @cached_property
    def sha256(self) -> str:
        """Hash of the declaration."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_SPACE = ("name", "genes")
_GENE = ("name", "choices", "kind", "active_if", "words")


def gene_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Genes in which two architectures differ: each with both choices, None where it is not active.

    In the order of the second; what only the first has comes last.
    """
    names = dict.fromkeys((*after, *before))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _problems_of(gene: Gene, earlier: Mapping[str, Gene]) -> list[str]:
    """What is wrong with a gene that stands behind others."""
    where, problems = f"gene {gene.name!r}", []
    if len(gene.choices) < 1 or len(set(gene.choices)) != len(gene.choices):  # 1 and 1.0 are not distinct
        problems.append(f"{where} needs distinct choices, got {list(gene.choices)!r}")
    if gene.kind not in ("ordered", "nominal"):
        problems.append(f"{where}: kind must be 'ordered' or 'nominal', got {gene.kind!r}")
    condition = gene.active_if
    if condition is None:
        return problems
    other = earlier.get(condition.gene)
    if other is None or other.active_if is not None:
        return [
            *problems,
            f"{where}: active_if must name an earlier gene that is always active, got {condition.gene!r}",
        ]
    if condition.among is not None:
        strange = [choice for choice in condition.among if choice not in other.choices]
        problems += [f"{where}: active_if: {other.name!r} has no choice {choice!r}" for choice in strange]
    elif not all(isinstance(c, (int, float)) for c in other.choices):
        problems.append(f"{where}: active_if needs numeric choices in {other.name!r}, or 'among'")
    return problems


def _extra(row: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    return sorted(str(key) for key in row if key not in known)


def _gene(row: Mapping[str, Any], problems: list[str]) -> Gene | None:
    """A gene as it is declared; None where it cannot be read, for reasons that go to ``problems``."""
    before, name = len(problems), row.get("name", "?")
    where = f"gene {name!r}"
    problems += [f"unknown key {key!r} in {where}" for key in _extra(row, _GENE)]
    problems += [f"{where} lacks the key {key!r}" for key in ("name", "choices") if key not in row]
    if not isinstance(name, str) or not name:
        problems.append(f"{where}: a name is a text")
    choices = _choices(row.get("choices", []), f"{where}: ", "a choice", problems)
    active_if = None
    if row.get("active_if") is not None:
        active_if = _condition(row["active_if"], where, problems)
    kind = row.get("kind", "ordered")
    words = None if row.get("words") is None else _words(row["words"], choices, where, problems)
    return Gene(name, choices, kind, active_if, words) if len(problems) == before else None


def _words(value: object, choices: Sequence[Choice], where: str, problems: list[str]) -> tuple[str, ...]:
    """What choices are called: a text for each, by which no other choice goes."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(w, str) and w for w in value):
        problems.append(f"{where}: words must be a list of texts, one a choice")
        return ()
    if len(value) != len(choices) or len(set(value)) != len(value):
        problems.append(f"{where} needs a word of its own for each of its {len(choices)} choices, got {list(value)!r}")
    taken = [w for i, w in enumerate(value) for j, choice in enumerate(choices) if w == choice and i != j]
    problems += [f"{where}: the word {w!r} is another of its choices" for w in taken]
    return tuple(value)


def _choices(value: object, where: str, what: str, problems: list[str]) -> tuple[Choice, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        problems.append(f"{where}choices must be a list")
        return ()
    for choice in value:
        if isinstance(choice, bool) or not isinstance(choice, (str, int, float)):
            problems.append(f"{where}{what} must be a string or a number, got {choice!r}")
        elif not isinstance(choice, str) and not _is_finite(choice):
            problems.append(f"{where}{what} must be finite, got {str(choice)[:40]}")
    return tuple(value)


def _condition(condition: object, where: str, problems: list[str]) -> Condition | None:
    keys = set(condition) if isinstance(condition, Mapping) else set()
    if not isinstance(condition, Mapping) or keys not in ({"gene", "at_least"}, {"gene", "among"}):
        problems.append(f"{where}: active_if needs exactly 'gene' and 'at_least', or 'gene' and 'among'")
        return None
    if "among" in keys:
        among = _choices(condition["among"], f"{where}: active_if: ", "a choice", problems)
        return Condition(str(condition["gene"]), among=among)
    limit = condition["at_least"]
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not _is_finite(limit):
        problems.append(f"{where}: at_least must be a number, got {str(limit)[:40]}")
        return None
    return Condition(str(condition["gene"]), limit)  # as it is written: the hash is over the text


def _is_finite(number: float) -> bool:
    """Whether a float holds it: choices are compared as such, and JSON may hold integers of thousands of digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
