"""Prompts made from what the search knows; the words are data files (``riwoa/data/prompts``), frozen by tests."""

from __future__ import annotations

from riwoa.cognition.protocol import Ask
from riwoa_storage.records import RequestRecord


def ask_of(request: RequestRecord) -> Ask:
    """The request as the model's process takes it."""
    p = request.parameters
    return Ask(
        id=request.request_id,
        seed=request.seed,
        system=p["system"],
        prompt=request.prompt,
        choices={gene: tuple(choices) for gene, choices in p["choices"].items()},
        most_genes=p["most_genes"],
    )
