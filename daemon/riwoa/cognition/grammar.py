"""The grammar of one request: a JSON object of at most ``most_genes`` offered genes, each with an offered choice.

Written for llguidance in its Lark dialect. Genes stand in their offered order, so that no patch names a gene twice and
each patch has exactly one spelling: what the model may write is what the placebo may draw (ruling 20).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from riwoa.cognition.protocol import Choice
from riwoa.cognition.spelling import in_json


def patch_grammar(choices: Mapping[str, Sequence[Choice]], most_genes: int = 1) -> str:
    """The Lark grammar of the patches that a request may be answered with.

    Raises:
        ValueError: no gene is offered, or one without choices, or ``most_genes`` is below 1.
    """
    if not choices or not all(choices.values()) or most_genes < 1:
        raise ValueError("a grammar needs at least one gene, choices for each, and room for one gene in the patch")
    genes = list(choices)
    rules = [f'start: "{{" p_0_{min(most_genes, len(genes))} "}}"']
    rules += [f"g_{i}: {_pair(gene, choices[gene])}" for i, gene in enumerate(genes)]
    rules += [
        # From gene i on, with room for k genes: take gene i (and perhaps more after it), or leave it out.
        f"p_{i}_{k}: " + " | ".join(_from(i, k, len(genes)))
        for k in range(1, min(most_genes, len(genes)) + 1)
        for i in range(len(genes))
    ]
    return "\n".join(rules)


def _pair(gene: str, choices: Sequence[Choice]) -> str:
    values = " | ".join(_literal(in_json(choice)) for choice in choices)
    return f"{_literal(in_json(gene) + ': ')} ({values})"


def _from(i: int, k: int, genes: int) -> list[str]:
    last = i + 1 == genes
    taken = [f"g_{i}"] + ([] if last or k == 1 else [f'g_{i} ", " p_{i + 1}_{k - 1}'])
    return taken if last else [*taken, f"p_{i + 1}_{k}"]


def _literal(text: str) -> str:
    """A Lark string that matches ``text``."""
    return json.dumps(text)
