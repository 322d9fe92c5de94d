"""How the language model of a run writes and learns: the configuration with every "auto" resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from riwoa.cognition.models import Recommended
from riwoa.cognition.prompt import Template, load_template
from riwoa.cognition.protocol import GenerationSettings
from riwoa.config.schema import Cognition

TOKENS_A_GENE = 48  # more than a gene and its choice take: a patch is never cut short
# What "auto" means where no model is asked: the scripted provider heeds none of it.
_UNMODELLED = Recommended(temperature=0.7, top_p=0.95, thinking_tokens=48, template="compact", learning_rate=1e-3)


@dataclass(frozen=True, slots=True)
class Style:
    """How the model writes and learns: the configuration with every "auto" resolved."""

    settings: GenerationSettings
    template: Template
    learning_rate: float


def style_of(cognition: Cognition, recommended: Recommended = _UNMODELLED) -> Style:
    """The style of a configuration for a model with these recommendations (``cognition.models.recommended``)."""

    def resolved(value: Any, auto: Any) -> Any:
        return auto if value == "auto" else value

    thinking_tokens = resolved(cognition.thinking_tokens, recommended.thinking_tokens)
    least = min(GenerationSettings().least_thinking_tokens, thinking_tokens)
    settings = GenerationSettings(
        grammar=cognition.grammar,
        thinking_tokens=thinking_tokens,
        least_thinking_tokens=least,
        patch_tokens=max(GenerationSettings().patch_tokens, TOKENS_A_GENE * cognition.patch_genes),
        temperature=resolved(cognition.temperature, recommended.temperature),
        top_p=resolved(cognition.top_p, recommended.top_p),
    )
    template = load_template(resolved(cognition.template, recommended.template))
    return Style(settings, template, resolved(cognition.learning_rate, recommended.learning_rate))
