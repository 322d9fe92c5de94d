"""Time operators and whole networks on this device. Torch; runs in a child of the daemon.

Timing drifts on shared machines, so everything is timed round-robin: each operator once a round in a fresh order, and
the whole networks in every fifth round among them. Whatever slows the machine for a while then slows all of them alike,
and weights are as cold as they are inside a network. Rounds done are saved beside the table and survive a kill.

On one CPU thread the clock is that thread's processor time: the same as wall time on a device left to itself, and blind
to other processes taking turns. With wall time, six runnable processes on two cores tripled the networks' tenth
percentile (a network outlasts its time slice, an operator does not), and the table seemed 65 % wrong.

In onnxruntime, and where a program of the user's times ONNX files, clock and items differ: ``onnx_clock``.

On CUDA only the clock differs. Single operators of a small network are bound by their launches, so each is captured as
a CUDA graph of several invocations, long enough for the event timer; see ``CudaGraphClock``.
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
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from riwoa.errors import TableError
from riwoa.files.ownership import output_file
from riwoa.hardware.lut import Timing
from riwoa.supernet.geometry import Backbone, Operator
from riwoa.supernet.network import build_network
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig
from riwoa_storage.durable import replace_durably

NETWORK_EVERY = 5  # rounds: a network takes as long as twenty operators and there are fewer of them
_WARM_UP_ROUNDS = 3
_CUDA_WARM_UP_S = 1.0  # a card that idled takes about that to reach its clocks
_CUDA_SPAN_MS = 0.08  # what one timed repeat of an operator should take: the event timer ticks in half microseconds
_CUDA_PROBE_CALLS = 8
_CUDA_MOST_CALLS = 64
_SAVE_EVERY_S = 2.0
_PERCENTILE = 10.0  # see lut.py

FloatArray = npt.NDArray[np.float64]
OnRound = Callable[[int, int], None]  # rounds done, rounds in all


@dataclass(frozen=True, slots=True)
class Timed:
    """A module in evaluation mode and its input, on the device where they are timed."""

    module: torch.nn.Module
    input: torch.Tensor


_Item = TypeVar("_Item", contravariant=True)
_AnyItem = TypeVar("_AnyItem")


class Clock(Protocol[_Item]):
    """How long something takes, in milliseconds: the one thing in which devices and runtimes differ."""

    @property
    def warm_up_rounds(self) -> int:
        """Rounds to take, at least, before anything counts."""
        ...

    @property
    def warm_up_s(self) -> float:
        """Seconds to run, at least, before anything counts."""
        ...

    def operator_ms(self, item: _Item) -> float:
        """Milliseconds of one repeat of an operator as it runs among others of its network."""
        ...

    def network_ms(self, item: _Item) -> float:
        """Milliseconds of one repeat of a whole network as its user waits for it: from call to result."""
        ...


@dataclass(frozen=True, slots=True)
class CpuClock:
    """Reads ``now_ns`` before and after: this thread's processor time for one thread, the wall clock for more."""

    now_ns: Callable[[], int]
    warm_up_s: float = 0.0
    warm_up_rounds: int = _WARM_UP_ROUNDS

    def operator_ms(self, item: Timed) -> float:
        """Milliseconds of one call."""
        start_ns = self.now_ns()
        item.module(item.input)
        return (self.now_ns() - start_ns) / 1e6

    def network_ms(self, item: Timed) -> float:
        """Milliseconds of one call: the same as for an operator."""
        return self.operator_ms(item)


@dataclass
class Samples:
    """Milliseconds of each item in each of its rounds, NaN where not yet taken."""

    operators: FloatArray  # (operators, rounds)
    networks: FloatArray  # (networks, ceil(rounds / network_every))
    rounds_done: int = 0
    network_every: int = NETWORK_EVERY

    @staticmethod
    def empty(operators: int, networks: int, rounds: int, network_every: int = NETWORK_EVERY) -> Samples:
        """Samples of which none is taken yet."""
        of_networks = np.full((networks, -(-rounds // network_every)), np.nan)
        return Samples(np.full((operators, rounds), np.nan), of_networks, network_every=network_every)


def _is_partial(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "header.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


class PartialFile:
    """Samples saved beside the table while they are taken; anything that does not fit the header is ignored."""

    def __init__(self, table: Path, header: Mapping[str, Any]) -> None:
        self.path = table.with_name(f".{table.name}.partial")
        self._header = json.dumps(header, sort_keys=True)

    def save(self, samples: Samples) -> None:
        """Write the samples; the file is replaced whole.

        Raises:
            UsageError: what lies there is no such file.
            OSError: it cannot be written.
        """
        output_file(self.path, "a measurement under way", _is_partial, option="the file")
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
        """The samples that a killed measurement of the same table left; ``fallback`` where there are none."""
        try:
            with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as stored:
                taken, of_networks, done = stored["operators"], stored["networks"], int(stored["rounds_done"])
                found = Samples(taken, of_networks, done, fallback.network_every)
                same = bytes(stored["header"]).decode() == self._header
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return fallback
        fits = found.operators.shape == fallback.operators.shape and found.networks.shape == fallback.networks.shape
        taken = found.operators[:, : found.rounds_done] if fits else np.empty(0)
        return found if same and fits and 0 <= found.rounds_done and bool(np.all(taken > 0)) else fallback

    def remove(self) -> None:
        """Remove the file, once the table is written."""
        self.path.unlink(missing_ok=True)


def measure(
    operators: Sequence[_AnyItem],
    networks: Sequence[_AnyItem],
    samples: Samples,
    clock: Clock[_AnyItem],
    partial: PartialFile | None = None,
    progress: OnRound | None = None,
) -> Samples:
    """Take the rounds that ``samples`` lacks, in place."""
    rounds = samples.operators.shape[1]
    saved_s = time.monotonic()
    with torch.inference_mode(), _undisturbed():
        _warm_up(operators, networks, clock)
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


def _warm_up(operators: Sequence[_AnyItem], networks: Sequence[_AnyItem], clock: Clock[_AnyItem]) -> None:
    end_s = time.monotonic() + clock.warm_up_s
    rounds = 0
    while rounds < clock.warm_up_rounds or time.monotonic() < end_s:
        for item in operators:
            clock.operator_ms(item)
        for item in networks:
            clock.network_ms(item)
        rounds += 1


def _one_round(
    operators: Sequence[_AnyItem],
    networks: Sequence[_AnyItem],
    samples: Samples,
    done: int,
    clock: Clock[_AnyItem],
) -> None:
    order = random.Random(done)  # a fresh order, so that no operator always follows the same neighbour
    for i in order.sample(range(len(operators)), len(operators)):
        samples.operators[i, done] = clock.operator_ms(operators[i])
    if done % samples.network_every == 0:
        for i in order.sample(range(len(networks)), len(networks)):
            samples.networks[i, done // samples.network_every] = clock.network_ms(networks[i])


def undisturbed_ms(samples: FloatArray) -> FloatArray:
    """The tenth percentile of each row: the time on the device left to itself."""
    return np.asarray(np.percentile(samples, _PERCENTILE, axis=1))


def timing(row: FloatArray) -> Timing:
    """Statistics of one operator's repeats, rounded to the nanosecond that the clock resolves."""
    p10, p50, p90 = np.percentile(row, [_PERCENTILE, 50.0, 90.0])
    values = (round(float(v), 6) for v in (row.mean(), row.std(), p10, p50, p90))
    return Timing(len(row), *values)


def clock_for(compute: str, threads: int, regime: str = "eager") -> Clock[Timed]:
    """The clock of a device and regime.

    Raises:
        TableError: ``compute`` is not "cpu", or "cuda" with a card that torch can use; or it has no such regime.
    """
    if compute not in ("cpu", "cuda"):
        raise TableError(f"cannot measure on {compute!r}; choose 'cpu' or 'cuda'")
    if regime not in (("eager",) if compute == "cpu" else ("eager", "graph")):
        raise TableError(f"no regime {regime!r} on {compute!r}; choose 'eager', or 'graph' on 'cuda'")
    if compute == "cpu":
        return CpuClock(time.thread_time_ns if threads == 1 else time.perf_counter_ns)
    if not torch.cuda.is_available():
        raise TableError("torch sees no CUDA device; measure on 'cpu', or install a CUDA build of torch")
    return CudaGraphClock() if regime == "graph" else CudaEagerClock()


def accelerator(compute: str) -> str:
    """The name of the card that is measured; "" for the processor."""
    return str(torch.cuda.get_device_name()) if compute == "cuda" and torch.cuda.is_available() else ""


def card(compute: str) -> str | None:
    """What ``nvidia-smi`` calls the card that is measured; None for the processor."""
    if accelerator(compute) == "":
        return None
    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    return f"GPU-{uuid}" if uuid else str(torch.cuda.current_device())


def compute_notes(compute: str) -> dict[str, Any]:
    """What else decides which kernels run on a card; nothing for the processor."""
    if compute != "cuda":
        return {}
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_matmuls": torch.backends.cuda.matmul.allow_tf32,
        "operator_span_ms": _CUDA_SPAN_MS,
    }


def operator_items(operators: Sequence[Operator], compute: str, batch_size: int = 1) -> list[Timed]:
    """Each operator as the module that the subnet itself would hold."""
    modules = operator_modules(operators)
    return [
        timed(module, (batch_size, *operator_shapes(op)[0]), compute)
        for op, module in zip(operators, modules, strict=True)
    ]


def network_items(configs: Sequence[OfaConfig], backbone: Backbone, compute: str, batch_size: int = 1) -> list[Timed]:
    """Extracted subnets, weights random: values do not change how long they take."""
    return [
        timed(net, (batch_size, 3, config.r, config.r), compute)
        for config, net in zip(configs, subnets(configs, backbone), strict=True)
    ]


def subnets(configs: Sequence[OfaConfig], backbone: Backbone) -> Iterator[torch.nn.Module]:
    """Extracted subnets in evaluation mode, weights random."""
    supernet: Any = build_network(backbone)
    for config in configs:
        supernet.set_active_subnet(ks=list(config.ks), e=list(config.e), d=list(config.d))
        yield supernet.get_active_subnet(preserve_weight=False).eval()


def operator_modules(operators: Sequence[Operator]) -> Iterator[torch.nn.Module]:
    """Each operator as the module that the subnet itself would hold, in evaluation mode."""
    return (_module(op).eval() for op in operators)


def spread_configs(resolutions: Sequence[int], count: int, seed: str) -> list[OfaConfig]:
    """Different subnets spread over the whole range of sizes, to fit on: both extremes, and steps in between.

    Two alike would spoil every leave-one-out error: the one left out would still be known.
    """
    small, large = (
        OfaConfig((k,) * STAGES * BLOCKS, (e,) * STAGES * BLOCKS, (d,) * STAGES, r)
        for k, e, d, r in (
            (KERNELS[0], EXPANSIONS[0], DEPTHS[0], min(resolutions)),
            (KERNELS[-1], EXPANSIONS[-1], DEPTHS[-1], max(resolutions)),
        )
    )
    # A generator of their own for second draws: the others stay those that tables of format 1 were fitted on.
    rng, again = random.Random(seed), random.Random(f"{seed} again")
    found = {_active(config): config for config in (small, large)}
    for i in range(count - 2):
        config = _biased_config(rng, resolutions, (i + 0.5) / (count - 2))
        while _active(config) in found:
            config = _biased_config(again, resolutions, 0.5)
        found[_active(config)] = config
    return list(found.values())


def _active(config: OfaConfig) -> tuple[object, ...]:
    """A subnet's choices, without those of blocks beyond a stage's depth."""
    there = [i for s, depth in enumerate(config.d) for i in range(s * BLOCKS, s * BLOCKS + depth)]
    return config.d, config.r, tuple((config.ks[i], config.e[i]) for i in there)


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


def operator_shapes(op: Operator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of an operator's input and output, of one image."""
    if op.kind == "classifier":
        return (op.in_c,), (op.out_c,)
    return (op.in_c, op.in_h, op.in_w), (op.out_c, op.out_h, op.out_w)


def timed(module: torch.nn.Module, shape: tuple[int, ...], compute: str) -> Timed:
    """A module in evaluation mode on the device where it is timed, with an input of this shape."""
    # Inputs from a generator of our own: timing must not touch the global random state.
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    module = module.eval().requires_grad_(False)
    if compute == "cuda":
        module = module.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        data = data.to("cuda", memory_format=layout)
    return Timed(module, data)


class CudaEagerClock:
    """Every kernel launched by torch, one after another: what ``module(x)`` takes. Python's share is part of it."""

    warm_up_s = _CUDA_WARM_UP_S
    warm_up_rounds = _WARM_UP_ROUNDS

    def operator_ms(self, item: Timed) -> float:
        """One call between two events, from an idle card: launches are timed with the kernels, as in a network."""
        torch.cuda.synchronize()
        return _between_events_ms(lambda: item.module(item.input))

    def network_ms(self, item: Timed) -> float:
        """One call by the wall clock, from an idle card to the result."""
        return _until_done_ms(lambda: item.module(item.input))


class CudaGraphClock:
    """Kernels captured into CUDA graphs, so that one launch starts them all: how small networks are deployed.

    An operator is captured as so many invocations back to back that a replay takes ``_CUDA_SPAN_MS``: single kernels of
    microseconds would drown in the launch of the graph. Each timed replay queues behind an untimed one of the same
    graph, so that its launch hides behind work and the events enclose kernels alone. A network is one invocation,
    replayed on an idle card and waited for.
    """

    warm_up_s = _CUDA_WARM_UP_S
    warm_up_rounds = _WARM_UP_ROUNDS

    def __init__(self) -> None:
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # One pool for all: replays never overlap, nobody reads what they put out, and a pool each would take gigabytes.
        # A pool whose last graph is gone cannot be used again: the first one stays.
        self._pool = torch.cuda.graph_pool_handle()
        self._first = self._captured(Timed(torch.nn.ReLU(), torch.zeros(1, device="cuda")), 1)
        self._graphs: dict[int, tuple[Timed, Any, int]] = {}  # the item is held, so that its id stays its own

    def operator_ms(self, item: Timed) -> float:
        """A replay of several invocations between two events, behind another one; for one invocation."""
        graph, calls = self._graph(item, self._calls)
        graph.replay()
        return _between_events_ms(graph.replay) / calls

    def network_ms(self, item: Timed) -> float:
        """A replay by the wall clock, from an idle card to the result."""
        return _until_done_ms(self._graph(item, lambda _: 1)[0].replay)

    def _graph(self, item: Timed, calls: Callable[[Timed], int]) -> tuple[Any, int]:
        found = self._graphs.get(id(item))
        if found is None:
            n = calls(item)
            found = self._graphs[id(item)] = item, self._captured(item, n), n
        return found[1:]

    def _calls(self, item: Timed) -> int:
        graph = self._captured(item, _CUDA_PROBE_CALLS)
        graph.replay()
        once_ms = _between_events_ms(graph.replay) / _CUDA_PROBE_CALLS
        return max(1, min(_CUDA_MOST_CALLS, round(_CUDA_SPAN_MS / max(once_ms, 1e-4))))

    def _captured(self, item: Timed, calls: int) -> Any:
        # Not torch.cuda.graph(): it may collect garbage and empty the cache each time, longer than all the rest.
        graph: Any = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_ROUNDS):  # libraries choose their kernels before they are captured
                item.module(item.input)
            self._stream.synchronize()
            graph.capture_begin(pool=self._pool)
            try:
                for _ in range(calls):
                    item.module(item.input)
            finally:
                graph.capture_end()
        torch.cuda.synchronize()
        return graph


def _between_events_ms(work: Callable[[], object]) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _until_done_ms(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start_ns = time.perf_counter_ns()
    work()
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - start_ns) / 1e6


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from running in the middle of a repeat."""
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
