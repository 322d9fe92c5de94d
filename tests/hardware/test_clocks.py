"""What the CUDA clocks report, on a made-up card: kernels without launches, networks as their user waits for them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from riwoa.hardware import bench
from riwoa.hardware.bench import Timed
from tests.hardware.devices import FakeCuda, Kernels

X = torch.zeros(1)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(bench, "torch", fake)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter_ns=fake.perf_counter_ns))
    return fake


@pytest.mark.parametrize("kernels", [(0.001,), (0.002, 0.001), (0.01, 0.02, 0.005), (0.3, 0.4)])
def test_a_captured_operator_is_timed_without_its_launch_however_short_it_is(
    cuda: FakeCuda, kernels: tuple[float, ...]
) -> None:
    clock = bench.clock_for("cuda", 1, "graph")
    item = Timed(Kernels(cuda, *kernels), X)
    assert [clock.operator_ms(item) for _ in range(3)] == pytest.approx([sum(kernels)] * 3)


def test_an_operator_is_captured_once_as_often_as_fills_the_span_and_all_graphs_share_a_pool(cuda: FakeCuda) -> None:
    clock = bench.clock_for("cuda", 1, "graph")
    short, long = Timed(Kernels(cuda, 0.004), X), Timed(Kernels(cuda, 0.5), X)
    tiny = Timed(Kernels(cuda, 0.0001), X)
    for _ in range(3):
        for item in (short, long, tiny):
            clock.operator_ms(item)
    # The pool's first graph (a real ReLU launches nothing here), then for each the probe of 8 and what it led to.
    assert cuda.captured == [0, 8, 20, 8, 1, 8, 64]
    assert set(cuda.pools) == {"pool"}


def test_a_captured_network_is_one_invocation_with_its_launch(cuda: FakeCuda) -> None:
    clock = bench.clock_for("cuda", 1, "graph")
    network = Timed(Kernels(cuda, *[0.003] * 100), X)
    assert [clock.network_ms(network) for _ in range(3)] == pytest.approx([cuda.launch_ms + 0.3] * 3, abs=1e-5)
    assert cuda.captured == [0, 100]


def test_an_eager_operator_is_as_slow_as_its_launches(cuda: FakeCuda) -> None:
    clock = bench.clock_for("cuda", 1, "eager")
    bound_by_launches = Timed(Kernels(cuda, *[0.002] * 10), X)
    bound_by_work = Timed(Kernels(cuda, 1.0, 1.0), X)
    assert clock.operator_ms(bound_by_launches) == pytest.approx(10 * cuda.launch_ms + 0.002)
    assert clock.operator_ms(bound_by_work) == pytest.approx(2.0 + cuda.launch_ms)
    assert clock.network_ms(bound_by_launches) == pytest.approx(10 * cuda.launch_ms + 0.002, abs=1e-5)
    assert cuda.captured == []


def test_a_capture_that_fails_ends(cuda: FakeCuda) -> None:
    class Broken(Kernels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self._cuda.capturing is not None:
                raise RuntimeError("operation not permitted when stream is capturing")
            return x

    clock = bench.clock_for("cuda", 1, "graph")
    with pytest.raises(RuntimeError, match="not permitted"):
        clock.operator_ms(Timed(Broken(cuda), X))
    assert cuda.capturing is None
