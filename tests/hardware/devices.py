"""Devices made up: a module takes a time that depends on what it holds, and on what the test does to the device."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

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
