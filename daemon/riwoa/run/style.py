"""How the language model of a run writes and learns: the configuration with every "auto" resolved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from riwoa.cognition.models import Recommended
from riwoa.cognition.prompt import Template, load_template, pool_templates
from riwoa.cognition.protocol import CLOSING, GenerationSettings
from riwoa.config.schema import Cognition

TOKENS_A_GENE = 48  # more than a gene and its choice take: a patch is never cut short
POOL_GENES = 4  # that a patch of a pool changes at most, unless somebody says otherwise
POOL_TEMPERATURE = 1.0  # many texts of one prompt are to differ
# What "auto" means where no model is asked: the scripted provider heeds none of it.
_UNMODELLED = Recommended(temperature=0.7, top_p=0.95, thinking_tokens=48, template="compact", learning_rate=1e-3)


@dataclass(frozen=True, slots=True)
class Style:
    """How the model writes and learns: the configuration with every "auto" resolved.

    ``templates``: the strategies of prompt; one for slots, several for a pool, among which a bandit chooses.
    """

    settings: GenerationSettings
    templates: tuple[Template, ...]
    learning_rate: float

    @property
    def template(self) -> Template:
        """The first strategy of prompt, in which adapters are judged."""
        return self.templates[0]


def most_genes(cognition: Cognition) -> int:
    """Genes that a patch changes at most."""
    if cognition.patch_genes != "auto":
        return cognition.patch_genes
    return POOL_GENES if cognition.role == "pool" else 1


def lag_of(cognition: Cognition) -> int:
    """Generations between a request and its reply's joining; a pool is chosen from before its generation asks."""
    return max(1, cognition.lag) if cognition.role == "pool" else cognition.lag


def style_of(cognition: Cognition, recommended: Recommended = _UNMODELLED) -> Style:
    """The style of a configuration for a model with these recommendations (``cognition.models.recommended``)."""

    def resolved(value: Any, auto: Any) -> Any:
        return auto if value == "auto" else value

    if cognition.role == "pool":
        # Below a billion parameters reasoning takes most of the seconds and decides nothing.
        thinks = recommended.template == "full"
        recommended = replace(
            recommended,
            temperature=POOL_TEMPERATURE,
            thinking_tokens=recommended.thinking_tokens if thinks else 0,
        )
    thinking_tokens = resolved(cognition.thinking_tokens, recommended.thinking_tokens)
    least = min(GenerationSettings().least_thinking_tokens, thinking_tokens)
    settings = GenerationSettings(
        grammar=cognition.grammar,
        thinking_tokens=thinking_tokens,
        least_thinking_tokens=least,
        patch_tokens=max(GenerationSettings().patch_tokens, TOKENS_A_GENE * most_genes(cognition)),
        temperature=resolved(cognition.temperature, recommended.temperature),
        top_p=resolved(cognition.top_p, recommended.top_p),
    )
    return Style(
        settings,
        _templates(cognition, resolved(cognition.template, recommended.template), thinks=thinking_tokens > 0),
        resolved(cognition.learning_rate, recommended.learning_rate),
    )


def _templates(cognition: Cognition, name: Any, *, thinks: bool) -> tuple[Template, ...]:
    """The strategies of prompt; one that leaves no reasoning begins with the end of it."""
    found = pool_templates() if cognition.role == "pool" else (load_template(name),)
    return found if thinks else tuple(replace(template, lead=CLOSING) for template in found)
