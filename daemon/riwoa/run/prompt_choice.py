"""Which strategy of prompt a request for a pool is written by: a bandit on what came of those before.

A strategy has won where a patch that the search chose from its reply beat its parent. Thompson sampling (1933) from
Beta posteriors of these wins; the tallies lie in the counters of each generation, so a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from riwoa.cognition.prompt import Template
from riwoa.search.rng import generator

PromptTallies = Mapping[str, tuple[int, int]]  # strategy -> (replies that joined, those of them that won)


def tallied_prompts(before: PromptTallies, joined: Mapping[str, str], won: Collection[str]) -> dict[str, list[int]]:
    """The tallies after a generation.

    Args:
        before: those of the generation before.
        joined: strategies of the replies that joined, by request id.
        won: the request ids of which a patch won.
    """
    tallies = {name: list(tally) for name, tally in before.items()}
    for request_id, name in joined.items():
        tally = tallies.setdefault(name, [0, 0])
        tally[0] += 1
        tally[1] += request_id in won
    return {name: tallies[name] for name in sorted(tallies)}


def chosen_prompt(templates: Sequence[Template], tallies: PromptTallies, seed: int, generation: int) -> Template:
    """The strategy of a generation's request."""
    draw = generator(seed, generation, "pool.strategy")
    hopes = []
    for template in templates:
        joined, won = tallies.get(template.name, (0, 0))
        hopes.append(draw.beta(1 + won, 1 + joined - won))
    return templates[hopes.index(max(hopes))]
