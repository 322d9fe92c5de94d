"""Time operators and whole networks on this device. Torch; runs in a child of the daemon.

Timing drifts on shared machines, so everything is timed round-robin: each operator once a round in a fresh order, and
the whole networks in every fifth round among them. Whatever slows the machine for a while then slows all of them alike,
and weights are as cold as they are inside a network. Rounds done are saved beside the table and survive a kill.

On one CPU thread the clock is that thread's processor time: the same as wall time on a device left to itself, and blind
to other processes taking turns. With wall time, six runnable processes on two cores tripled the networks' tenth
percentile (a network outlasts its time slice, an operator does not), and the table seemed 65 % wrong.
"""

from __future__ import annotations

import gc
import io
import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from riwoa.errors import TableError
from riwoa.hardware.lut import Timing
from riwoa.oracle.geometry import Backbone, Operator
from riwoa.oracle.mobilenet import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig
from riwoa.oracle.ofa_import import import_ofa
from riwoa.oracle.supernet import build_network
from riwoa_storage.durable import replace_durably

NETWORK_EVERY = 5  # rounds: a network takes as long as twenty operators and there are fewer of them
_WARM_UP_ROUNDS = 3
_SAVE_EVERY_S = 2.0
_PERCENTILE = 10.0  # see lut.py

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # rounds done, rounds in all


@dataclass(frozen=True, slots=True)
class Timed:
    """A module in evaluation mode and its input, on the device where they are timed."""

    module: torch.nn.Module
    input: torch.Tensor


Clock = Callable[[Timed], float]  # runs the module once; milliseconds


@dataclass
class Samples:
    """Milliseconds of each item in each of its rounds, NaN where not yet taken."""

    operators: FloatArray  # (operators, rounds)
    networks: FloatArray  # (networks, ceil(rounds / NETWORK_EVERY))
    rounds_done: int = 0

    @staticmethod
    def empty(operators: int, networks: int, rounds: int) -> Samples:
        """Nothing taken yet."""
        network_rounds = -(-rounds // NETWORK_EVERY)
        return Samples(np.full((operators, rounds), np.nan), np.full((networks, network_rounds), np.nan))


class PartialFile:
    """Samples saved beside the table while they are taken; anything that does not fit the header is ignored."""

    def __init__(self, table: Path, header: Mapping[str, Any]) -> None:
        self.path = table.with_name(f".{table.name}.partial")
        self._header = json.dumps(header, sort_keys=True)

    def save(self, samples: Samples) -> None:
        """Replace the file whole."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            header=np.frombuffer(self._header.encode(), dtype=np.uint8),
            operators=samples.operators,
            networks=samples.networks,
            rounds_done=np.int64(samples.rounds_done),
        )
        replace_durably(self.path, buffer.getvalue())

    def load(self, fallback: Samples) -> Samples:
        """What an earlier, killed measurement of the same table left; ``fallback`` where there is nothing usable."""
        try:
            with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as stored:
                found = Samples(stored["operators"], stored["networks"], int(stored["rounds_done"]))
                same = bytes(stored["header"]).decode() == self._header
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return fallback
        fits = found.operators.shape == fallback.operators.shape and found.networks.shape == fallback.networks.shape
        taken = found.operators[:, : found.rounds_done] if fits else np.empty(0)
        return found if same and fits and 0 <= found.rounds_done and bool(np.all(taken > 0)) else fallback

    def remove(self) -> None:
        """The table is written; its samples are no longer needed."""
        self.path.unlink(missing_ok=True)


def measure(
    operators: Sequence[Timed],
    networks: Sequence[Timed],
    samples: Samples,
    clock: Clock,
    partial: PartialFile | None = None,
    progress: Progress | None = None,
) -> Samples:
    """Take the rounds that ``samples`` lacks, in place."""
    rounds = samples.operators.shape[1]
    saved_s = time.monotonic()
    with torch.inference_mode(), _undisturbed():
        for _ in range(_WARM_UP_ROUNDS):
            for item in (*operators, *networks):
                clock(item)
        for done in range(samples.rounds_done, rounds):
            _one_round(operators, networks, samples, done, clock)
            samples.rounds_done = done + 1
            if progress is not None:
                progress(done + 1, rounds)
            if partial is not None and time.monotonic() - saved_s > _SAVE_EVERY_S:
                partial.save(samples)
                gc.collect()
                saved_s = time.monotonic()
    return samples


def _one_round(
    operators: Sequence[Timed], networks: Sequence[Timed], samples: Samples, done: int, clock: Clock
) -> None:
    order = random.Random(done)  # a fresh order, so that no operator always follows the same neighbour
    for i in order.sample(range(len(operators)), len(operators)):
        samples.operators[i, done] = clock(operators[i])
    if done % NETWORK_EVERY == 0:
        for i in order.sample(range(len(networks)), len(networks)):
            samples.networks[i, done // NETWORK_EVERY] = clock(networks[i])


def undisturbed_ms(samples: FloatArray) -> FloatArray:
    """The tenth percentile of each row: the time on the device left to itself."""
    return np.asarray(np.percentile(samples, _PERCENTILE, axis=1))


def timing(row: FloatArray) -> Timing:
    """Statistics of one operator's repeats, rounded to the nanosecond that the clock resolves."""
    p10, p50, p90 = np.percentile(row, [_PERCENTILE, 50.0, 90.0])
    values = (round(float(v), 6) for v in (row.mean(), row.std(), p10, p50, p90))
    return Timing(len(row), *values)


def clock_for(compute: str, threads: int) -> Clock:
    """How to time one repeat on a device.

    Raises:
        TableError: ``compute`` is not "cpu", or "cuda" with a card that torch can use.
    """
    if compute == "cpu":
        return _thread_ms if threads == 1 else _wall_ms
    if compute != "cuda":
        raise TableError(f"cannot measure on {compute!r}; choose 'cpu' or 'cuda'")
    if not torch.cuda.is_available():
        raise TableError("torch sees no CUDA device; measure on 'cpu', or install a CUDA build of torch")
    return _cuda_ms


def operator_items(operators: Sequence[Operator], compute: str) -> list[Timed]:
    """Each operator as the module that the subnet itself would hold."""
    return [_timed(_module(op), _input_shape(op), compute) for op in operators]


def network_items(configs: Sequence[OfaConfig], backbone: Backbone, compute: str) -> list[Timed]:
    """Extracted subnets, weights random: values do not change how long they take."""
    supernet: Any = build_network(backbone)
    items = []
    for config in configs:
        supernet.set_active_subnet(ks=list(config.ks), e=list(config.e), d=list(config.d))
        subnet = supernet.get_active_subnet(preserve_weight=False)
        items.append(_timed(subnet, (1, 3, config.r, config.r), compute))
    return items


def spread_configs(resolutions: Sequence[int], count: int, seed: str) -> list[OfaConfig]:
    """Subnets spread over the whole range of sizes, to fit a line on: both extremes, and steps in between."""
    small, large = (
        OfaConfig((k,) * STAGES * BLOCKS, (e,) * STAGES * BLOCKS, (d,) * STAGES, r)
        for k, e, d, r in (
            (KERNELS[0], EXPANSIONS[0], DEPTHS[0], min(resolutions)),
            (KERNELS[-1], EXPANSIONS[-1], DEPTHS[-1], max(resolutions)),
        )
    )
    rng = random.Random(seed)
    return [small, large] + [_biased_config(rng, resolutions, (i + 0.5) / (count - 2)) for i in range(count - 2)]


def random_configs(resolutions: Sequence[int], count: int, seed: str) -> list[OfaConfig]:
    """Subnets drawn uniformly gene by gene, as a search first meets them."""
    rng = random.Random(seed)
    return [_biased_config(rng, resolutions, None) for _ in range(count)]


def _biased_config(rng: random.Random, resolutions: Sequence[int], bias: float | None) -> OfaConfig:
    """``bias`` 0 leans to the smallest choices, 1 to the largest; None draws uniformly."""

    def draw(choices: Sequence[int]) -> int:
        if bias is None:
            return rng.choice(choices)
        return choices[sum(rng.random() < bias for _ in choices[1:])]

    return OfaConfig(
        ks=tuple(draw(KERNELS) for _ in range(STAGES * BLOCKS)),
        e=tuple(draw(EXPANSIONS) for _ in range(STAGES * BLOCKS)),
        d=tuple(draw(DEPTHS) for _ in range(STAGES)),
        r=rng.choice(sorted(resolutions)),
    )


def _module(op: Operator) -> torch.nn.Module:
    import_ofa()  # makes the two imports below possible without torchvision
    from ofa.utils import MyGlobalAvgPool2d
    from ofa.utils.layers import ConvLayer, IdentityLayer, LinearLayer, MBConvLayer, ResidualBlock

    match op.kind:
        case "mbconv" | "sepconv":
            ratio = 1 if op.kind == "sepconv" else op.mid_c / op.in_c
            conv = MBConvLayer(op.in_c, op.out_c, op.kernel, op.stride, ratio, op.mid_c, op.act, op.se)
            module = ResidualBlock(conv, IdentityLayer(op.in_c, op.out_c) if op.skip else None)
        case "pool":
            module = MyGlobalAvgPool2d(keep_dim=True)
        case "classifier":
            module = LinearLayer(op.in_c, op.out_c)
        case _:
            normalised = op.kind != "feature_mix"
            module = ConvLayer(
                op.in_c, op.out_c, kernel_size=op.kernel, stride=op.stride, use_bn=normalised, act_func=op.act
            )
    assert isinstance(module, torch.nn.Module)
    return module


def _input_shape(op: Operator) -> tuple[int, ...]:
    return (1, op.in_c) if op.kind == "classifier" else (1, op.in_c, op.in_h, op.in_w)


def _timed(module: torch.nn.Module, shape: tuple[int, ...], compute: str) -> Timed:
    # Inputs from a generator of our own: timing must not touch the global random state.
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    module = module.eval().requires_grad_(False)
    if compute == "cuda":
        module = module.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        data = data.to("cuda", memory_format=layout)
    return Timed(module, data)


def _thread_ms(item: Timed) -> float:
    start_ns = time.thread_time_ns()
    item.module(item.input)
    return (time.thread_time_ns() - start_ns) / 1e6


def _wall_ms(item: Timed) -> float:
    start_ns = time.perf_counter_ns()
    item.module(item.input)
    return (time.perf_counter_ns() - start_ns) / 1e6


def _cuda_ms(item: Timed) -> float:
    """Between two events on the stream, waited for: queueing behind other operators is not timed."""
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    item.module(item.input)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection in the middle of a repeat."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Hold torch to a number of threads, and put the old one back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
