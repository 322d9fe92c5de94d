"""What only a GPU can show of the language model: a model of three billion (random) parameters in 4-bit, writing and
learning. ``make test-gpu``.

On a CPU a model quantised by bitsandbytes trains with zero gradients once it has written; so here it writes first.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from riwoa.bench.gpu_model import write_model
from riwoa.cognition.models import choose
from riwoa.cognition.parse import offered_patch
from riwoa.cognition.protocol import GenerationSettings
from riwoa.cognition.training import held_out_losses
from riwoa.cognition.writer import ModelWriter
from tests.cognition.test_language_model import ask, examples, job

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
SETTINGS = GenerationSettings(thinking_tokens=32, least_thinking_tokens=16, patch_tokens=48, batch=8)
REQUESTS = tuple(ask(i) for i in range(8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelWriter:
    """Nanbeige4-3B's shape: 32 layers of 2,560, grouped attention, a vocabulary of its size."""
    directory = tmp_path_factory.mktemp("model")
    write_model(directory)
    torch.cuda.empty_cache()
    spec = choose(str(directory)).spec
    assert (spec.device, spec.quantization, spec.dtype) == ("cuda", "nf4", "bfloat16")
    before = torch.cuda.memory_allocated()
    started = time.monotonic()
    loaded = ModelWriter.load(spec)
    held = torch.cuda.memory_allocated() - before
    print(f"\nloaded in {time.monotonic() - started:.1f} s, {held / 2**20:,.0f} MiB on the GPU")
    return loaded


def test_in_four_bits_it_takes_a_third_of_its_memory(model: ModelWriter) -> None:
    parameters = 3_000_000_000
    assert torch.cuda.memory_allocated() < parameters * 2 / 2


def test_it_writes_valid_patches_and_a_batch_is_faster_than_one_by_one(model: ModelWriter) -> None:
    model.generate(REQUESTS[:1], SETTINGS)  # kernels
    started = time.monotonic()
    alone = model.generate(REQUESTS[:1], SETTINGS)
    alone_s = time.monotonic() - started
    started = time.monotonic()
    written = model.generate(REQUESTS, SETTINGS)
    batch_s = time.monotonic() - started
    for request, one in zip(REQUESTS, written, strict=True):
        assert len(offered_patch(one.text, request.choices, request.most_genes)) == 1
    rates = alone[0].tokens / alone_s, sum(w.tokens for w in written) / batch_s
    print(f"\n{rates[0]:.1f} tokens/s alone, {rates[1]:.1f} in a batch of 8")
    assert rates[1] > 2 * rates[0]


def test_having_written_it_learns_and_the_adapter_reloads(model: ModelWriter, tmp_path: Path) -> None:
    model.generate(REQUESTS, SETTINGS)
    work = job(tmp_path, examples=examples(16), settings=SETTINGS, probes=REQUESTS[:3], epochs=3, learning_rate=2e-4)
    before = held_out_losses(model, work.held_out)
    trained = model.train(work)
    loss = trained.after.held_out_loss
    print(f"\nheld-out loss {trained.before.held_out_loss} to {loss} in {trained.duration_s:.1f} s")
    assert trained.before.held_out_losses == pytest.approx(before, rel=1e-3)
    assert loss is not None
    assert loss < 0.9 * min(before)
    model.use_adapter(work.weights_path)
    assert held_out_losses(model, work.held_out) == pytest.approx(trained.after.held_out_losses, rel=1e-3)
    model.use_adapter(None)
    assert held_out_losses(model, work.held_out) == pytest.approx(before, rel=1e-3)
