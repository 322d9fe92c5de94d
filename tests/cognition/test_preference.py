"""Learning from comparisons, with a real (tiny, random) Llama."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.cognition import preference
from riwoa.cognition.gate import judge
from riwoa.cognition.protocol import CLOSING, Comparison, GenerationSettings, TrainingJob
from riwoa.cognition.writer import ModelWriter

ANSWERS = ('{"depth": 2}', '{"depth": 3}', '{"depth": 4}', '{"kernel": 7, "width": 5}')


def comparison(number: int, gains: tuple[float, ...] = (-0.02, 0.01, 0.03, 0.0)) -> Comparison:
    return Comparison(
        id=str(number),
        system="You patch.",
        prompt=f"parent {number}",
        lead=CLOSING.lstrip(),
        answers=ANSWERS,
        gains=gains,
        greedy=3,
    )


def job(path: Path) -> TrainingJob:
    return TrainingJob(
        examples=(),
        held_out=(),
        comparisons=tuple(map(comparison, range(4))),
        judging=tuple(map(comparison, range(10, 14))),
        probes=(),
        settings=GenerationSettings(),
        seed=3,
        weights_path=str(path / "adapter.safetensors"),
        epochs=12,
        learning_rate=0.05,
        batch=2,
    )


def test_likelihoods_are_those_of_the_whole_text(model: ModelWriter) -> None:
    """One answer at a time, prompt and answer in one sequence: the plain way."""
    c = comparison(0)
    (found,) = preference.answers_likelihoods(model, [c])
    prompt = model.prompt_ids(c.system, c.prompt, c.lead)
    for answer, likelihood in zip(c.answers, found.tolist(), strict=True):
        ids = torch.tensor([prompt + model.reply_ids(answer)])
        with torch.no_grad():
            logits = model.lora.model(ids).logits[0].log_softmax(-1)
        plain = sum(float(logits[n - 1, ids[0, n]]) for n in range(len(prompt), ids.shape[1]))
        assert likelihood == pytest.approx(plain, rel=1e-4)


def test_the_bare_model_starts_at_the_loss_of_indifference(model: ModelWriter) -> None:
    (lesson,) = preference.lessons(model, [comparison(0)])
    assert float(preference.loss_of(lesson.base, lesson)) == pytest.approx(math.log(len(ANSWERS)))
    target = np.exp(np.array(comparison(0).gains) / np.std(comparison(0).gains))
    assert lesson.target.numpy() == pytest.approx(target / target.sum(), rel=1e-5)


@pytest.mark.parametrize("piece", [1, 3])
def test_pieces_give_the_gradients_of_the_whole(piece: int, model: ModelWriter) -> None:
    batch = preference.lessons(model, [comparison(0), comparison(1)])
    model.lora.begin_training()
    found = []
    for size in (8, piece):
        model.piece = size
        for parameter in model.lora.parameters():
            parameter.grad = None
        loss = preference.learn(model, batch)
        found.append((loss, [p.grad for p in model.lora.parameters()]))
    (whole, gradients), (pieces, of_pieces) = found
    assert pieces == pytest.approx(whole, rel=1e-5)
    assert any(float(g.abs().max()) > 0 for g in gradients if g is not None)
    for ours, theirs in zip(gradients, of_pieces, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_training_tilts_unseen_parents_towards_what_gained_and_leaves_what_was_in_use(
    model: ModelWriter, tmp_path: Path
) -> None:
    (bare,) = preference.answers_likelihoods(model, [comparison(20)])
    trained = model.train(job(tmp_path))
    assert trained.losses[-1] < trained.losses[0]
    assert trained.after.greedy_known == 4
    assert trained.after.top_gains is not None
    assert len(trained.after.top_gains) == 4
    assert preference.answers_likelihoods(model, [comparison(20)])[0].tolist() == bare.tolist()
    model.use_adapter(str(tmp_path / "adapter.safetensors"))
    (found,) = preference.answers_likelihoods(model, [comparison(20)])
    ratios = (found - bare).tolist()
    assert ratios[2] > max(ratios[0], ratios[1], ratios[3])  # the best of all
    assert ratios[0] < min(ratios[1], ratios[2])


def test_a_training_is_a_function_of_its_job(model: ModelWriter, tmp_path: Path) -> None:
    first = model.train(replace(job(tmp_path), epochs=1))
    assert model.train(replace(job(tmp_path), epochs=1)).sha256 == first.sha256


def test_a_job_and_a_record_go_through_json(model: ModelWriter, tmp_path: Path) -> None:
    asked = job(tmp_path)
    assert TrainingJob.from_json(asked.to_json()) == asked
    trained = model.train(replace(asked, epochs=1))
    assert type(trained).from_json(trained.to_json()) == trained
    assert "parents" in judge(trained).reasons[0]
