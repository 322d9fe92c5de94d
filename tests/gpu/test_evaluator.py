"""Accuracies on a GPU are those of the CPU: the same supernet, the same images, the same subnets. ``make test-gpu``."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from riwoa.datasets.digits import load_digits_task
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.search.codec import Codec
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.network import Supernet
from riwoa.supernet.space import OfaConfig, mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
PX = (24, 32, 40)


def evaluator(device: str, dtype: str = "float32") -> SubnetEvaluator:
    task = load_digits_task()
    supernet = Supernet.load(checkpoint_path(SupernetSpec()), 0.25, 10)
    recalibration = {r: task.recalibration(r, 400) for r in PX}
    validation = {r: task.views("validation", r, 8) for r in PX}
    return SubnetEvaluator(supernet, recalibration, validation, dtype=dtype, device=device)  # type: ignore[arg-type]


def subnets(count: int) -> list[OfaConfig]:
    space = mobilenet_space(PX)
    codec = Codec(space, 0)
    vectors = np.random.default_rng(7).random((count, codec.dimension))
    return [ofa_config(space.architecture(row)) for row in codec.decode(vectors)]


def test_logits_on_the_gpu_are_the_cpus_to_a_thousandth() -> None:
    cpu, gpu = evaluator("cpu"), evaluator("cuda")
    for config in subnets(4):
        difference = float((cpu.logits(config) - gpu.logits(config).cpu()).abs().max())
        print(f"\n{config.r} px: {difference:.2e}")
        assert difference < 1e-3


def test_half_precision_on_the_gpu_ranks_as_float32_does() -> None:
    exact, fast = evaluator("cuda"), evaluator("cuda", "bfloat16")
    pairs = [(exact.evaluate(c)["accuracy"], fast.evaluate(c)["accuracy"]) for c in subnets(30)]
    differences = [abs(a - b) for a, b in pairs]
    print(f"\nbfloat16: {100 * np.mean(differences):.3f} points on average, {100 * max(differences):.3f} at most")
    assert max(differences) < 0.01


def test_the_same_subnet_gives_the_same_accuracy_whatever_came_before() -> None:
    gpu = evaluator("cuda", "bfloat16")
    first = [gpu.evaluate(c)["correct"] for c in subnets(6)]
    assert [gpu.evaluate(c)["correct"] for c in reversed(subnets(6))] == first[::-1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_how_fast_it_is(dtype: str) -> None:
    gpu = evaluator("cuda", dtype)
    configs = subnets(60)
    for config in configs[:10]:
        gpu.evaluate(config)
    torch.cuda.synchronize()
    started = time.monotonic()
    for config in configs[10:]:
        gpu.evaluate(config)
    torch.cuda.synchronize()
    print(f"\n{dtype}: {50 / (time.monotonic() - started):.1f} subnets/s on 3,200 images")
