"""Fused and plain kernels compute the same thing, and a build of torch without the fused ones still works."""

from __future__ import annotations

import pytest
import torch

from riwoa.supernet import kernels
from riwoa.supernet.kernels import (
    HARDSIGMOID,
    HARDSWISH,
    IDENTITY,
    RELU,
    Geometry,
    OneDnnKernels,
    PlainKernels,
    best_kernels,
)

CPU = torch.device("cpu")
fused_only = pytest.mark.skipif(
    best_kernels(CPU, torch.float32).name != "onednn", reason="this build of torch has no fused kernels"
)


@pytest.fixture(autouse=True)
def _forget_the_probe() -> None:
    kernels._fused_works.cache_clear()


@fused_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [RELU, HARDSWISH, HARDSIGMOID, IDENTITY])
@pytest.mark.parametrize(("kernel", "stride", "depthwise"), [(1, 1, False), (3, 2, False), (7, 1, True), (5, 2, True)])
def test_fused_and_plain_agree(dtype: torch.dtype, activation: str, kernel: int, stride: int, depthwise: bool) -> None:
    generator = torch.Generator().manual_seed(kernel)
    geometry = Geometry(kernel, stride, 24 if depthwise else 1, activation)
    weight = torch.randn(24, 1 if depthwise else 24, kernel, kernel, generator=generator)
    bias = torch.randn(24, generator=generator)
    x = torch.randn(3, 24, 9, 9, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    fused = OneDnnKernels().convolution(geometry, weight, bias, dtype)(x)
    plain = PlainKernels().convolution(geometry, weight, bias, dtype)(x)
    assert fused.dtype == plain.dtype == dtype
    assert fused.is_contiguous(memory_format=torch.channels_last)
    scale = plain.abs().max().item()
    torch.testing.assert_close(fused / scale, plain / scale, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)


def test_failing_probe_means_plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(OneDnnKernels, "linear", broken)
    assert best_kernels(CPU, torch.float32).name == "plain"


def test_wrong_answer_of_the_probe_means_plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneDnnKernels, "linear", lambda *_: lambda x: x * 2)
    assert best_kernels(CPU, torch.float32).name == "plain"


def test_another_device_gets_plain_kernels() -> None:
    assert best_kernels(torch.device("cuda"), torch.bfloat16).name == "plain"
