"""Learning from comparisons: patches of one parent that were evaluated, winners and losers. Needs torch.

The loss is listwise. With s_i = log p(answer_i) - log p_base(answer_i), the adapter's log-likelihood ratio to the bare
model, and a_i the answer's gain in standard deviations of all gains of the training,

    loss = - sum_i softmax(a)_i log softmax(beta s)_i

over the answers of one parent, beta = ``BETA``: direct preference optimisation (Rafailov et al., 2023) with a list in
the place of a pair, and gains in the place of verdicts. Ratios to the *bare* model, also where an adapter is trained
further, anchor every adapter to it: the optimum is the bare model tilted by the gains, the more the smaller beta.

The prompt is read once for all answers, without gradients: those go through the answers' own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DynamicCache

from riwoa.cognition.memory import free_memory, out_of_memory
from riwoa.cognition.protocol import Comparison

if TYPE_CHECKING:
    from riwoa.cognition.language_model import LanguageModel

BETA = 0.1  # usual for pairs; at 1 the likeliest patch stays the shortest, whatever it gains
_Answers = Sequence[Sequence[int]]  # token ids of each
_Gradients = Sequence[torch.Tensor]  # of the adapter's parameters, in their order


@dataclass(frozen=True, slots=True)
class Lesson:
    """A comparison as token ids.

    ``base`` holds the bare model's log-likelihood of each answer, ``target`` the softmax of their gains, (answers,).
    """

    prompt: list[int]
    answers: list[list[int]]
    base: torch.Tensor
    target: torch.Tensor


def lessons(model: LanguageModel, comparisons: Sequence[Comparison]) -> list[Lesson]:
    """Comparisons ready to be learned from; their gains are measured by all of them."""
    if not comparisons:
        return []
    unit = float(np.concatenate([c.gains for c in comparisons]).std()) or 1.0
    found = []
    for c in comparisons:
        prompt, answers = _tokens(model, c)
        with model.lora.model.disable_adapter():
            base = _weighed(model, prompt, answers)
        target = torch.softmax(torch.tensor(c.gains, device=model.device) / unit, 0)
        found.append(Lesson(prompt, answers, base, target))
    return found


def loss_of(likelihoods: torch.Tensor, lesson: Lesson) -> torch.Tensor:
    """The listwise loss of the answers' log-likelihoods, (answers,), a scalar."""
    return -(lesson.target * torch.log_softmax(BETA * (likelihoods - lesson.base), 0)).sum()


def learn(model: LanguageModel, batch: Sequence[Lesson]) -> float:
    """Add the gradients of the mean loss of lessons to the adapter's, and return that loss.

    Raises:
        MemoryError, torch.OutOfMemoryError: one answer at a time is too much.
    """
    total, parameters = 0.0, model.lora.parameters()
    for lesson in batch:
        loss, gradients = _as_memory_allows(model, lesson, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            share = gradient / len(batch)
            parameter.grad = share if parameter.grad is None else parameter.grad + share
        total += loss / len(batch)
    return total


def answers_likelihoods(model: LanguageModel, judging: Sequence[Comparison]) -> list[torch.Tensor]:
    """Log-likelihoods of each comparison's answers, (answers,), of the weights as they are."""
    return [_weighed(model, *_tokens(model, c)) for c in judging]


def _tokens(model: LanguageModel, c: Comparison) -> tuple[list[int], list[list[int]]]:
    """Of a comparison's prompt and of each of its answers."""
    return model.prompt_ids(c.system, c.prompt, c.lead), [model.reply_ids(answer) for answer in c.answers]


def _as_memory_allows(
    model: LanguageModel, lesson: Lesson, parameters: Sequence[torch.nn.Parameter]
) -> tuple[float, _Gradients]:
    """The loss of a lesson and its gradients, with fewer answers at once each time that memory runs out."""
    while True:
        try:
            return _gradients(model, lesson, parameters)
        except Exception as error:
            if model.piece == 1 or not out_of_memory(error):
                raise
        # Outside the handler: the exception's frames held what is to be freed.
        free_memory()
        model.piece //= 2


def _gradients(
    model: LanguageModel, lesson: Lesson, parameters: Sequence[torch.nn.Parameter]
) -> tuple[float, _Gradients]:
    cache = _read(model, lesson.prompt)
    if len(lesson.answers) <= model.piece:
        loss = loss_of(_likelihoods(model, cache, lesson.prompt, lesson.answers), lesson)
        return float(loss.detach()), torch.autograd.grad(loss, parameters)
    # By the loss's slopes to the log-likelihoods: each answer can then be gone through by itself.
    with torch.no_grad():
        found = _likelihoods(model, cache, lesson.prompt, lesson.answers)
    loss = loss_of(found.requires_grad_(), lesson)
    (slopes,) = torch.autograd.grad(loss, found)
    total = [torch.zeros_like(p) for p in parameters]
    for start in range(0, len(lesson.answers), model.piece):
        piece = slice(start, start + model.piece)
        weighed = (_likelihoods(model, cache, lesson.prompt, lesson.answers[piece]) * slopes[piece]).sum()
        for whole, part in zip(total, torch.autograd.grad(weighed, parameters), strict=True):
            whole += part
    return float(loss.detach()), total


def _weighed(model: LanguageModel, prompt: Sequence[int], answers: _Answers) -> torch.Tensor:
    """Log-likelihood of each answer, (answers,), without gradients."""
    with torch.no_grad():
        return _likelihoods(model, _read(model, prompt), prompt, answers)


@torch.no_grad()
def _read(model: LanguageModel, prompt: Sequence[int]) -> DynamicCache:
    """The cache of a prompt but for its last token: with that the answers begin."""
    cache, ids = DynamicCache(), torch.tensor([prompt[:-1]], device=model.device)
    model.lora.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _likelihoods(model: LanguageModel, read: DynamicCache, prompt: Sequence[int], answers: _Answers) -> torch.Tensor:
    """Log-likelihood of each answer after a prompt that was read, (answers,)."""
    cache = DynamicCache()
    for i, layer in enumerate(read.layers):
        shape = (len(answers), -1, -1, -1)
        cache.update(layer.keys.expand(shape), layer.values.expand(shape), i)  # type: ignore[union-attr]
    longest = max(map(len, answers))
    ids = torch.zeros((len(answers), longest + 1), dtype=torch.long, device=model.device)
    used = torch.zeros((len(answers), longest), device=model.device)
    ids[:, 0] = prompt[-1]
    for i, answer in enumerate(answers):
        ids[i, 1 : len(answer) + 1] = torch.tensor(answer)
        used[i, : len(answer)] = 1.0
    # No mask: attention is causal, and the padding stands behind what counts.
    logits = model.lora.model(ids[:, :-1], past_key_values=cache, use_cache=True).logits.float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return -(losses * used).sum(1)
