"""Learning from comparisons: patches of one parent that were evaluated, winners and losers. Needs torch.

The loss is listwise. With s_i = log p(answer_i) - log p_base(answer_i), the adapter's log-likelihood ratio to the bare
model, and a_i the answer's gain in standard deviations of all gains of the training,

    loss = - sum_i softmax(a)_i log softmax(beta s)_i

over the answers of one parent: direct preference optimisation (Rafailov et al., 2023) with a list in the place of a
pair, and gains in the place of verdicts. Ratios to the *bare* model, also where an adapter is trained further, anchor
every adapter to it: the optimum is the bare model tilted by the gains, the more the smaller ``beta``.

Answers are the patch alone, without reasoning: a model below a billion parameters repeats the list of the prompt in its
reasoning, and this costs most of the tokens. The prompt is read once for all answers, without gradients: those go
through the answers' own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from riwoa.cognition.protocol import Comparison

if TYPE_CHECKING:
    from riwoa.cognition.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Lesson:
    """A comparison as token ids, with the bare model's log-likelihood of each answer, (answers,)."""

    prompt: list[int]
    answers: list[list[int]]
    base: torch.Tensor
    target: torch.Tensor  # softmax of the gains in standard deviations, (answers,)


def lessons(model: LanguageModel, comparisons: Sequence[Comparison]) -> list[Lesson]:
    """Comparisons ready to be learned from; their gains are measured by all of them."""
    gains = np.concatenate([np.array(c.gains) for c in comparisons])
    unit = float(gains.std()) or 1.0
    found = []
    for c in comparisons:
        prompt, answers = tokens(model, c)
        with torch.inference_mode(), model.lora.model.disable_adapter():
            base = log_likelihoods(model, prompt, answers)
        target = torch.softmax(torch.tensor(c.gains, device=model.device) / unit, 0)
        found.append(Lesson(prompt, answers, base.clone(), target))
    return found


def tokens(model: LanguageModel, comparison: Comparison) -> tuple[list[int], list[list[int]]]:
    """Token ids of a comparison's prompt and of each of its answers."""
    prompt = model.prompt_ids(comparison.system, comparison.prompt)
    return prompt, [model.reply_ids(answer) for answer in comparison.answers]


def loss_of(model: LanguageModel, lesson: Lesson, beta: float) -> torch.Tensor:
    """The listwise loss of a lesson, a scalar with gradients."""
    ratios = log_likelihoods(model, lesson.prompt, lesson.answers) - lesson.base
    return -(lesson.target * torch.log_softmax(beta * ratios, 0)).sum()


def log_likelihoods(model: LanguageModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """Of each answer after the prompt, (answers,), of the weights as they are."""
    network, device = model.lora.model, model.device
    cache = DynamicCache()
    with torch.no_grad():
        # All but the last token, which is read with the answers: its logits are those of their first token.
        network(torch.tensor([list(prompt[:-1])], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(answers))
    longest = max(map(len, answers))
    ids = torch.zeros((len(answers), longest + 1), dtype=torch.long, device=device)
    used = torch.zeros((len(answers), longest), device=device)
    ids[:, 0] = prompt[-1]
    for i, answer in enumerate(answers):
        ids[i, 1 : len(answer) + 1] = torch.tensor(answer)
        used[i, : len(answer)] = 1.0
    # No mask: attention is causal, and the padding stands behind what counts.
    logits = network(ids[:, :-1], past_key_values=cache, use_cache=True).logits.float()
    of_tokens = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return -(of_tokens * used).sum(1)
