"""A candidate in words: its genes, what changed, and what the language model said of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from riwoa.cognition.parse import split_thinking
from riwoa.search.space import gene_changes
from riwoa.text import printable
from riwoa_storage.history import JudgedReply

_BLOCK = re.compile(r"(.+)\.block(\d+)\.(.+)")
_MOST_GENE_CHARACTERS = 60


def gene_lines(architecture: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The genes in words, a line a stage: ``("stage1", "depth 4; kernel/expand 7/6, 7/4, 3/6, 7/6")``.

    Genes that are named ``PART.blockN.WHAT`` go together, and those named ``PART.WHAT``; others have lines of their
    own.
    """
    parts: dict[str, dict[str, str]] = {}
    blocks: dict[str, dict[int, dict[str, str]]] = {}
    for gene, choice in architecture.items():
        shown, block = printable(choice, _MOST_GENE_CHARACTERS), _BLOCK.fullmatch(gene)
        if block is not None:
            part, at, what = block.groups()
            blocks.setdefault(part, {}).setdefault(int(at), {})[what] = shown
            parts.setdefault(part, {})
        else:
            part, _, what = gene.rpartition(".")
            parts.setdefault(part or gene, {})[what if part else ""] = shown
    return [
        (printable(part, _MOST_GENE_CHARACTERS), "; ".join((*_plain(genes), *_blocks(blocks.get(part, {})))))
        for part, genes in parts.items()
    ]


def _plain(genes: Mapping[str, str]) -> list[str]:
    return [f"{printable(what, _MOST_GENE_CHARACTERS)} {choice}".lstrip() for what, choice in genes.items()]


def _blocks(blocks: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Blocks in their order; those of a kind in few words: ``kernel/expand 7/6, 7/4``."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for _, genes in sorted(blocks.items()):
        names = tuple(sorted(genes, reverse=True))  # the kernel before the expansion, as everywhere
        kinds.setdefault(names, []).append("/".join(genes[name] for name in names))
    return [f"{printable('/'.join(names), _MOST_GENE_CHARACTERS)} {', '.join(rows)}" for names, rows in kinds.items()]


def changes(parent: Mapping[str, Any], child: Mapping[str, Any]) -> list[str]:
    """What a child has otherwise: ``stage1.depth 3 → 4``, ``new stage1.block4 expand 6, kernel 7``, ``no stage3.x``."""
    changed = gene_changes(parent, child)
    found = [
        f"{printable(gene, _MOST_GENE_CHARACTERS)} {printable(old, 30)} → {printable(new, 30)}"
        for gene, (old, new) in changed.items()
        if old is not None and new is not None
    ]
    added = _parts({gene: new for gene, (old, new) in changed.items() if old is None})
    gone = _parts({gene: old for gene, (old, new) in changed.items() if new is None})
    return found + [f"new {part} {words}".rstrip() for part, words in added.items()] + [f"no {part}" for part in gone]


def _parts(genes: Mapping[str, Any]) -> dict[str, str]:
    """Genes, those of a part together: part -> what they are."""
    found: dict[str, list[str]] = {}
    for gene, choice in genes.items():
        part, _, what = gene.rpartition(".")
        words = f"{what if part else ''} {printable(choice)}"
        found.setdefault(printable(part or gene, _MOST_GENE_CHARACTERS), []).append(words)
    return {part: printable(", ".join(words), 200).strip() for part, words in found.items()}


def change_words(changed: Sequence[str], most: int = 8) -> str:
    """What changed, as a list; the rest of a long one is counted."""
    more = f"; and {len(changed) - most} more" if len(changed) > most else ""
    return "; ".join(changed[:most]) + more if changed else "nothing: the same architecture"


def model_words(reply: JudgedReply) -> str:
    """Which model wrote, with which adapter."""
    adapter = reply.request.adapter_sha256
    by = "as it came, without an adapter" if adapter is None else f"with adapter {adapter[:12]}"
    return f"{printable(reply.request.model, 80)}, {by}"


def reasoning_of(reply: JudgedReply | None) -> str:
    """What the model thought before its patch; "" where it wrote none."""
    return "" if reply is None or reply.reply is None else split_thinking(reply.reply.text)[0]
