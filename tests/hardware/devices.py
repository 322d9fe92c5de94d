"""Devices made up: a module takes a time that depends on what it holds, and on what the test does to the device."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from riwoa.hardware.bench import Timed


@dataclass
class FakeClock:
    """Every leaf of a module takes 10 us and 1 ns a parameter; a network is the sum of its parts, times ``network``.

    ``noise`` is drawn for each repeat from a generator of the test's own; ``slower`` multiplies what it picks.
    """

    noise: Callable[[random.Random], float] = lambda rng: 1.0
    network: float = 1.0
    slower: Callable[[torch.nn.Module], float] = lambda module: 1.0
    warm_up_s: float = 0.0
    warm_up_rounds: int = 3
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    _known: dict[int, tuple[torch.nn.Module, float]] = field(default_factory=dict)

    def operator_ms(self, item: Timed) -> float:
        return self._undisturbed_ms(item.module) * self.slower(item.module) * self.noise(self.rng)

    def network_ms(self, item: Timed) -> float:
        return self.network * self._undisturbed_ms(item.module) * self.noise(self.rng)

    def _undisturbed_ms(self, module: torch.nn.Module) -> float:
        if id(module) not in self._known:
            leaves = [m for m in module.modules() if not list(m.children())]
            ms = sum(0.01 + 1e-6 * sum(p.numel() for p in leaf.parameters()) for leaf in leaves)
            self._known[id(module)] = module, ms
        return self._known[id(module)][1]


def busy(rng: random.Random) -> float:
    """Half of all repeats beside another process: up to three times as long, and 3 % of jitter on all."""
    return (1 + 2 * rng.random() if rng.random() < 0.5 else 1.0) * (1 + 0.03 * rng.random())


class FakeCuda:
    """A card with a timeline: kernels queue, launching costs the host time, events are stamped where the queue is.

    Stands in for the module ``torch`` inside ``bench``; modules run on it are ``Kernels``.
    """

    launch_ms = 0.008  # of a kernel from Python, or of a whole graph

    def __init__(self) -> None:
        self.host_ms = self.device_ms = 0.0
        self.capturing: list[float] | None = None
        self.captured: list[int] = []  # kernels of each graph
        self.pools: list[object] = []
        self.nn, self.cuda = torch.nn, self
        self.Event: Any = partial(_Event, self)
        self.CUDAGraph: Any = partial(_Graph, self)
        self.Stream: Any = partial(_Stream, self)

    def is_available(self) -> bool:
        return True

    def graph_pool_handle(self) -> object:
        return "pool"

    def stream(self, stream: object) -> AbstractContextManager[None]:
        return nullcontext()

    def zeros(self, *shape: int, device: str) -> torch.Tensor:
        return torch.zeros(*shape)

    def synchronize(self) -> None:
        assert self.capturing is None, "synchronising breaks a capture"
        self.host_ms = max(self.host_ms, self.device_ms)

    def launch(self, ms: float) -> None:
        if self.capturing is not None:
            self.capturing.append(ms)
            return
        self.host_ms += self.launch_ms
        self.device_ms = max(self.device_ms, self.host_ms) + ms

    def perf_counter_ns(self) -> int:
        return round(self.host_ms * 1e6)


@dataclass
class _Event:
    cuda: FakeCuda
    enable_timing: bool
    at_ms: float = 0.0

    def record(self) -> None:
        self.at_ms = max(self.cuda.device_ms, self.cuda.host_ms)

    def synchronize(self) -> None:
        self.cuda.synchronize()

    def elapsed_time(self, end: _Event) -> float:
        return end.at_ms - self.at_ms


@dataclass
class _Stream:
    cuda: FakeCuda

    def synchronize(self) -> None:
        self.cuda.synchronize()


@dataclass
class _Graph:
    cuda: FakeCuda
    kernels: list[float] = field(default_factory=list)

    def capture_begin(self, pool: object) -> None:
        self.cuda.pools.append(pool)
        self.cuda.capturing = []

    def capture_end(self) -> None:
        assert self.cuda.capturing is not None
        self.kernels, self.cuda.capturing = self.cuda.capturing, None
        self.cuda.captured.append(len(self.kernels))

    def replay(self) -> None:
        self.cuda.launch(sum(self.kernels))


class Kernels(torch.nn.Module):
    """Launches kernels of given lengths on a made-up card."""

    def __init__(self, cuda: FakeCuda, *ms: float) -> None:
        super().__init__()
        self._cuda, self._ms = cuda, ms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for ms in self._ms:
            self._cuda.launch(ms)
        return x
