"""Online LoRA training, and the measurements its gate judges by. Needs torch.

A job has comparisons to prefer by (``riwoa.cognition.preference``) or successful traces to imitate, as follows.

Causal language modelling with the prompt masked: only the reply's tokens (reasoning, patch, end of text) carry loss.
The embedding of the prompt is still computed, but its logits are not (they would be most of the memory). In training
each token of the patch weighs ``ANSWER_WEIGHT`` times one of the reasoning, so that both weigh about alike: there are
three to five times as many of the others. What is measured, before and after, is the plain mean.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from riwoa.cognition.anchor import Anchor, FisherDiagonal
from riwoa.cognition.memory import as_memory_allows, free_memory, out_of_memory
from riwoa.cognition.parse import PatchError, offered_patch
from riwoa.cognition.preference import answers_likelihoods, learn, lessons
from riwoa.cognition.protocol import CLOSING, Example, GenerationRequest, Measured, Trained, TrainingJob

if TYPE_CHECKING:
    from riwoa.cognition.language_model import LanguageModel

ANSWER_WEIGHT = 4.0
_WARM_UP_SHARE = 0.1  # of the steps
_CLIP = 1.0  # norm of the gradient


@dataclass(frozen=True, slots=True)
class _Sample:
    """Token ids of prompt and reply; ``start`` is where the reply begins, ``answer`` where its patch does."""

    ids: list[int]
    start: int
    answer: int


def train(model: LanguageModel, job: TrainingJob) -> Trained:
    """Train a copy of the adapter in use, measure before and after, write the weights, go back to what was in use.

    Raises:
        MemoryError, torch.OutOfMemoryError: one example at a time and with checkpointing there is not enough memory.
    """
    started = time.monotonic()
    model.piece = min(model.piece, job.piece)
    if job.trial:
        return _trial(model, job)
    if job.checkpointing and not job.comparisons and not model.lora.checkpointing:
        model.lora.checkpoint()  # comparisons read the prompt into a cache, which that forbids
    in_use = model.lora.current(), model.lora.fisher
    try:
        before = measure(model, job)
        samples = [_sample(model, e) for e in job.examples]
        compared = lessons(model, job.comparisons)
        if compared:
            losses, fisher = _fit(model, job, len(compared), lambda rows: learn(model, [compared[i] for i in rows]))
        else:
            losses, fisher = _fit(model, job, len(samples), lambda rows: _backward(model, [samples[i] for i in rows]))
        model.weights_changed()
        after = measure(model, job)
        if not all(map(math.isfinite, after.held_out_losses)):
            raise FloatingPointError(
                "the training diverged: a held-out loss is no number; lower cognition.learning_rate"
            )
        file = Path(job.weights_path)
        model.lora.save(file, fisher)
    finally:
        model.lora.set(*in_use)
        model.weights_changed()
    return Trained(
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        losses=tuple(losses),
        tokens=sum(map(_reply_tokens, samples)) + sum(len(answer) for c in compared for answer in c.answers),
        duration_s=time.monotonic() - started,
        before=before,
        after=after,
    )


def _trial(model: LanguageModel, job: TrainingJob) -> Trained:
    """What the adapter in use is worth beside the bare model."""
    started = time.monotonic()
    in_use = model.lora.current(), model.lora.fisher
    try:
        model.lora.set(None)
        model.weights_changed()
        before = measure(model, job)
    finally:
        model.lora.set(*in_use)
        model.weights_changed()
    after = measure(model, job)
    duration_s = time.monotonic() - started
    return Trained(sha256="", losses=(), tokens=0, duration_s=duration_s, before=before, after=after)


def measure(model: LanguageModel, job: TrainingJob) -> Measured:
    """Held-out loss, validity without the grammar and distinct patches with it, of the weights as they are."""
    losses = held_out_losses(model, job.held_out)
    tops = [int(found.argmax()) for found in answers_likelihoods(model, job.judging)]
    valid, distinct = _probed(model, job)
    return Measured(
        held_out_loss=float(np.mean(losses)) if losses else None,
        held_out_losses=tuple(losses),
        valid_without_grammar=valid,
        distinct_with_grammar=distinct,
        probes=len(job.probes),
        top_gains=tuple(c.gains[top] for c, top in zip(job.judging, tops, strict=True)) if job.compares else None,
        greedy=sum(c.greedy == top for c, top in zip(job.judging, tops, strict=True)),
        greedy_known=sum(c.greedy is not None for c in job.judging),
    )


def _probed(model: LanguageModel, job: TrainingJob) -> tuple[int, int]:
    """(valid without the grammar, distinct with it) among the probes.

    The probes are fixed, so what was counted after one training need not be counted again before the next.
    """
    key = hashlib.sha256(json.dumps([p.to_json() for p in job.probes] + [job.settings.to_json()]).encode())
    for name, weights in sorted(model.lora.current_or_fresh().items()):
        key.update(name.encode() + weights.float().cpu().numpy().tobytes())
    if key.digest() not in model.probed:
        free = _written(model, job, grammar=False)
        bound = _written(model, job, grammar=True)
        model.probed[key.digest()] = (
            sum(_valid(ask, text) for ask, text in zip(job.probes, free, strict=True)),
            len({text.rpartition("</think>")[2].strip() for text in bound}),
        )
    return model.probed[key.digest()]


def _written(model: LanguageModel, job: TrainingJob, *, grammar: bool) -> list[str]:
    settings = replace(job.settings, grammar=grammar)
    written, _ = as_memory_allows(
        lambda most: model.generate(job.probes, replace(settings, batch=most)), settings.batch
    )
    return [w.text for w in written]


@torch.inference_mode()
def held_out_losses(model: LanguageModel, examples: Sequence[Example]) -> list[float]:
    """Mean loss of each example's reply, one at a time: the same whatever else is measured."""
    return [float(_loss(model, [_sample(model, e)])) for e in examples]


# -- fitting -----------------------------------------------------------------------------------------------------------


def _fit(
    model: LanguageModel, job: TrainingJob, count: int, backward: Callable[[Sequence[int]], float]
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """AdamW over ``count`` examples, held to the job's anchor; the mean loss of each step, and the Fisher diagonal.

    ``backward`` adds the gradients of the mean loss of some of them, by number, and returns it.
    """
    # The starting point is the adapter in use, or a fresh one, whose B is zero: the same function as the bare model.
    model.lora.begin_training()
    named = model.lora.named_parameters()
    parameters = list(named.values())
    fisher = FisherDiagonal(model.lora.fisher)
    anchor = None if job.anchor_path is None else Anchor.of(*model.lora.read(Path(job.anchor_path)))
    optimiser = torch.optim.AdamW(parameters, lr=job.learning_rate, weight_decay=0.0)
    batches = list(_batches(count, job))
    warm_up = max(1, round(_WARM_UP_SHARE * len(batches)))
    losses: list[float] = []
    with _training(model, job.seed):
        for step, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = job.learning_rate * min((step + 1) / warm_up, (len(batches) - step) / len(batches))
            losses.append(backward(batch))
            fisher.add(named, len(batch))
            if anchor is not None:
                anchor.pull(named)
            torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            model.on_progress({"step": step + 1, "steps": len(batches), "loss": losses[-1]})
    return losses, fisher.value()


def _batches(count: int, job: TrainingJob) -> Iterator[list[int]]:
    """Every example's number once an epoch, in an order of its own."""
    for epoch in range(job.epochs):
        order = np.random.Generator(np.random.Philox(key=[job.seed, epoch])).permutation(count)
        for start in range(0, len(order), job.batch):
            yield order[start : start + job.batch].tolist()


def _backward(model: LanguageModel, batch: Sequence[_Sample]) -> float:
    """Gradients of the batch's mean loss over its reply tokens; in smaller pieces where memory asks for it.

    When a single example does not fit, activations are computed again in the backward pass (gradient checkpointing).
    """
    while True:
        piece = min(len(batch), model.piece)
        try:
            return _in_pieces(model, batch, piece)
        except Exception as error:
            if not out_of_memory(error) or (piece == 1 and model.lora.checkpointing):
                raise
        # Outside the handler: the exception's frames held what is to be freed.
        for parameter in model.lora.parameters():
            parameter.grad = None
        free_memory()
        if piece > 1:
            model.piece = piece // 2
        else:
            model.lora.checkpoint()


def _in_pieces(model: LanguageModel, batch: Sequence[_Sample], piece: int) -> float:
    weight, total = sum(map(_weight, batch)), 0.0
    for start in range(0, len(batch), piece):
        part = batch[start : start + piece]
        loss = _loss(model, part, ANSWER_WEIGHT) * (sum(map(_weight, part)) / weight)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _reply_tokens(s: _Sample) -> int:
    return len(s.ids) - s.start


def _weight(s: _Sample) -> float:
    """Of a sample in its batch's loss."""
    return s.answer - s.start + ANSWER_WEIGHT * (len(s.ids) - s.answer)


def _loss(model: LanguageModel, samples: Sequence[_Sample], answer_weight: float = 1.0) -> torch.Tensor:
    """Weighted mean cross-entropy over the reply tokens of samples, padded on the right.

    No mask: attention is causal, so no token sees the padding after it, and without a mask torch skips what no token
    may see.
    """
    longest = max(len(s.ids) for s in samples)
    first = min(s.start for s in samples)
    ids = torch.zeros((len(samples), longest), dtype=torch.long, device=model.device)
    weights = torch.zeros((len(samples), longest), device=model.device)
    for i, s in enumerate(samples):
        ids[i, : len(s.ids)] = torch.tensor(s.ids)
        weights[i, s.start : s.answer] = 1.0
        weights[i, s.answer : len(s.ids)] = answer_weight
    # Positions by index: a slice is not contiguous, and torch would copy the vocabulary's weights once a row.
    before = torch.arange(first - 1, longest - 1, device=model.device)
    logits = model.lora.model(ids, use_cache=False, logits_to_keep=before).logits.float()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, first:].flatten(), reduction="none")
    used = weights[:, first:].flatten()
    return (losses * used).sum() / used.sum()


def _sample(model: LanguageModel, example: Example) -> _Sample:
    prompt = model.prompt_ids(example.system, example.prompt, example.lead)
    reply = model.reply_ids(example.text, example.lead)
    if CLOSING in example.lead:
        return _Sample(prompt + reply, len(prompt), len(prompt))  # it has no reasoning
    # As many tokens as the reasoning has by itself: where tokens span the tag's end, one too many or too few.
    thought = len(model.reply_ids("".join(example.text.rpartition("</think>")[:2]), example.lead)) - 1
    return _Sample(prompt + reply, len(prompt), len(prompt) + min(thought, len(reply)))


def _valid(ask: GenerationRequest, text: str) -> bool:
    try:
        offered_patch(text, ask.choices, ask.most_genes)
    except PatchError:
        return False
    return True


@contextmanager
def _training(model: LanguageModel, seed: int) -> Iterator[None]:
    """Dropout on, drawn from its own seed; afterwards torch's generator and the mode are what they were."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model.lora.model.train()
    try:
        yield
    finally:
        model.lora.model.eval()
        torch.random.set_rng_state(before)
