"""What a kind of oracle is: everything that riwoa must know of it, in one class. No torch.

``riwoa.oracle.kinds`` finds the class of a name. Other packages derive from it, too: the least that a kind needs is a
name, a problem and what a worker is to build.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from riwoa.config.fields import KindSettings
from riwoa.errors import ConfigError, InputError, RiwoaError
from riwoa.hardware.deployed import DeployedNetwork
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.runtime import FLOAT32
from riwoa.ipc.job import Orders, RunJob
from riwoa.oracle.attainable import Range, check_attainable
from riwoa.oracle.protocol import Metrics, Oracle, OracleSpec, SettingsSpec
from riwoa.search.catalogue import Catalogue
from riwoa.search.space import Space
from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.job import OnProgress
from riwoa.supernet.space import mobilenet_space, ofa_config

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.config.schema import Oracle as OracleTable

Architecture = Mapping[str, Any]
Json = Mapping[str, Any]


def no_latency_ms(architecture: Architecture) -> float:
    """0: what an architecture takes where nobody knows."""
    return 0.0


def no_layers_ms(architecture: Architecture) -> Mapping[str, float]:
    """Nothing: the times of an architecture's layers where nobody knows."""
    return {}


@dataclass(frozen=True, slots=True)
class Problem:
    """One oracle's space and latencies; fixed for a run.

    Attributes:
        space: the architectures.
        spec: what each worker process is given.
        described: what the run's provenance says otherwise of it: a file that was made here goes by its hash.
        exact_spec: judges the winner once more, as it will be exported; None where ``spec`` is exact.
        latency_of: milliseconds of an architecture; free, so a search may ask as often as it likes.
        layer_ms: the same by layers, for prompts; empty where layers have no times.
        range_ms: least and greatest latency of the space.
        auto_target_ms: what ``objective.latency_ms = "auto"`` stands for; None where there are no latencies.
        latency_sha256: of everything that decides a latency; a resumed run must find the same.
        measured: the file of this device's own table, where the latencies come from one.
        catalogue: the architectures that exist, where they can be counted.
        warnings: what a person should know before trusting such a search.
        known: further metrics that cost nothing to ask of an architecture, by name.
        ranges: least and greatest of such metrics in the space, where they are known.
    """

    space: Space
    spec: OracleSpec
    described: Json = field(default_factory=dict)
    exact_spec: OracleSpec | None = None
    latency_of: Callable[[Architecture], float] = no_latency_ms
    layer_ms: Callable[[Architecture], Mapping[str, float]] = no_layers_ms
    range_ms: tuple[float, float] = (0.0, 0.0)
    auto_target_ms: float | None = None
    latency_sha256: str = ""
    measured: Path | None = None
    catalogue: Catalogue | None = None
    warnings: tuple[str, ...] = ()
    known: Mapping[str, Callable[[Architecture], float]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def check_target(self, config: Config) -> None:
        """Refuse a latency target, or another limit, that no architecture meets.

        Raises:
            InfeasibleTargetError: says what is attainable.
        """
        known_ms = {} if self.auto_target_ms is None else {"latency_ms": self.range_ms}
        check_attainable(config, {**self.ranges, **known_ms})


@dataclass(frozen=True, slots=True)
class DeviceLatency:
    """Latencies on another device, by its table.

    Attributes:
        latency_of: milliseconds of an architecture.
        range_ms: least and greatest of the space.
        sha256: of everything that decides them.
        interval: half the width of the table's prediction interval, relative to a latency; None where it has none.
        measured_in: runtime and threads in words; "" where the table does not say.
    """

    latency_of: Callable[[Architecture], float]
    range_ms: Range
    sha256: str
    interval: float | None = None
    measured_in: str = ""


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A run's winner, as its oracle's kind needs it to export it.

    Attributes:
        spec: of the oracle, in JSON, its files where they lie now.
        architecture: the winner.
        metrics: as journaled.
        notes: text that goes into a model's file: what it is and where it comes from.
        finetuned: the file of its fine-tuned weights, of which the network is to be; None: of those it was found with.
        precision: that the run's latencies are of.
    """

    spec: Json
    architecture: Json
    metrics: Metrics
    notes: Mapping[str, str]
    finetuned: Path | None = None
    precision: str = FLOAT32


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How a winner is trained on.

    Attributes:
        epochs: passes over the training pictures.
        learning_rate: at its highest.
        seed: of the order of the pictures and of their augmentation.
        threads: of the processor.
    """

    epochs: int = 20
    learning_rate: float = 0.002
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ExportForm:
    """How a network is asked for.

    Attributes:
        onnx: as model.onnx beside its weights.
        preprocessing: model.onnx takes bytes; sizes, mean and deviation are inside.
        softmax: model.onnx puts out probabilities.
        int8: as model.int8.onnx too.
    """

    onnx: bool = True
    preprocessing: bool = False
    softmax: bool = False
    int8: bool = False


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """What a kind of oracle exports of a winner.

    Attributes:
        description: joins architecture.json.
        write: writes the network's files into a directory, flushed to the disk.
        onnx_left_out: why there is no model.onnx; None where there is one.
    """

    description: Json
    onnx_left_out: str | None
    write: Callable[[Path], None] = lambda directory: None


@dataclass(slots=True)
class Refusals:
    """Asks one part of a start after the other, and keeps what they refuse: one line each.

    ``ranges``: least and greatest in the space of what the parts know of, by metric.
    """

    found: list[str] = field(default_factory=list)
    ranges: dict[str, Range] = field(default_factory=dict)

    def ask(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """The part's answer, None where it refuses."""
        try:
            return part(*arguments)
        except ConfigError as error:
            self.found += error.problems
        except RiwoaError as error:
            self.found.append(str(error))
        return None


def mobilenet_ranges(backbone: Backbone, resolutions: Sequence[int]) -> dict[str, Range]:
    """Least and greatest of what ``mobilenet_sizes`` counts: each grows with every choice."""
    genes = mobilenet_space(resolutions).genes
    ends = [{gene.name: gene.choices[end] for gene in genes} for end in (0, -1)]
    return {name: (count(ends[0]), count(ends[1])) for name, count in mobilenet_sizes(backbone).items()}


def mobilenet_sizes(backbone: Backbone) -> Mapping[str, Callable[[Architecture], float]]:
    """Parameters and multiply-adds of the subnets of an OFA MobileNetV3, counted without a network."""
    return {
        "parameters": lambda architecture: geometry.parameters(ofa_config(architecture), backbone),
        "macs": lambda architecture: geometry.macs(ofa_config(architecture), backbone),
    }


class OracleKind(ABC):
    """One kind of oracle.

    Attributes:
        name: the value of ``oracle.kind``, and of its table, ``[oracle.NAME]``.
        settings: the model of that table; a class without keys where there is nothing to set.
        measures_device: whether its latencies come from this device's own table.
        metrics: what an evaluation gives, and what is known beforehand; None where that is anybody's.
    """

    name: ClassVar[str]
    settings: ClassVar[type[KindSettings]] = KindSettings
    measures_device: ClassVar[bool] = False
    metrics: ClassVar[frozenset[str] | None] = None

    # -- in the daemon -------------------------------------------------------------------------------------------------

    def spec(self, oracle: OracleTable) -> OracleSpec:
        """What each worker is given, and what enters the run's digest; here: the kind's settings as they are.

        Raises:
            RiwoaError: a setting is missing, or cannot be met here.
        """
        return SettingsSpec(self.name, oracle.settings.model_dump(mode="json"), oracle.threads)

    async def prepare(  # noqa: B027 - most kinds need nothing
        self, config: Config, latency_table: Path, run: RunJob, progress: ProgressCallback | None = None
    ) -> None:
        """Make what a problem needs and does not lie there yet, in processes that pause with a search. Here: nothing.

        Args:
            config: the configuration in force.
            latency_table: as ``problem`` is given it.
            run: runs a process.
            progress: told how it goes.

        Raises:
            RiwoaError: it cannot be made.
        """

    @abstractmethod
    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """Space, latencies and the worker's specification; may take minutes where this device must be measured first.

        Args:
            config: the configuration in force.
            latency_table: where this device's operator table lies, or is to lie.
            progress: told how the measurement goes.

        Raises:
            RiwoaError: a file is missing, damaged or of another device.
        """

    def check(self, refusals: Refusals, config: Config, latency_table: Path) -> Space | None:
        """Ask what a start would be refused for, and write nothing; the space, None where it is not known.

        Here: ask for the problem. A kind that measures, or whose workers read files, says more.
        """
        problem = refusals.ask(lambda: asyncio.run(self.problem(config, latency_table)))
        if not isinstance(problem, Problem):
            return None
        if problem.auto_target_ms is not None:
            refusals.ranges["latency_ms"] = problem.range_ms
        return problem.space

    def device_latency(self, table: str, config: Config) -> DeviceLatency:
        """Latencies on another device, by a table that a user names; here: there are none.

        Raises:
            RiwoaError: the table is missing, damaged, or of other networks.
        """
        raise ConfigError(
            f"an oracle of kind {self.name} knows no tables of other devices; let it give such latencies under names "
            "of their own, and limit them in objective.constraints"
        )

    def known_metrics(self, config: Config) -> Mapping[str, Callable[[Architecture], float]]:
        """Metrics other than latencies that cost nothing to ask of an architecture, by name; here: none."""
        return {}

    def known_ranges(self, config: Config) -> Mapping[str, Range]:
        """Least and greatest, in the space, of metrics other than latencies that are known beforehand; here: none."""
        return {}

    def most_workers(self, oracle: OracleTable) -> int | None:
        """The most worker processes that this machine can hold beside its cores' number; None for no other limit."""
        return None

    def start_timeout_s(self, oracle: OracleTable) -> float | None:
        """How long a worker may take to be ready; None for the usual."""
        return None

    def shipped(self, spec: Json) -> Mapping[str, Sequence[Path]]:
        """What the nodes of a cluster must be sent, by keys of a specification's JSON form whose value names a place.

        Of each key the place itself, a file or a directory, first; then files that must lie beside it. Here: nothing,
        what the specification names lies on every node.

        Raises:
            InputError: a file is missing.
        """
        return {}

    # -- in the worker -------------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, spec: Mapping[str, Any]) -> Oracle:
        """The oracle of a specification's JSON form, in a worker process.

        Raises:
            InputError: a file is missing or damaged.
        """

    # -- when the run is over ------------------------------------------------------------------------------------------

    def test_spec(self, spec: OracleSpec) -> OracleSpec | None:
        """Judges networks as exported, on pictures that chose nothing; None, as here, where there are none.

        Its workers hold a ``JudgingOracle``. May take a moment, to look at the data.

        Args:
            spec: of the search.

        Raises:
            RiwoaError: the data is gone or damaged.
        """
        return None

    def moved(self, spec: Json, changed: Mapping[str, Any], state: Path) -> Json:
        """A run's specification with its files where a later start said that they lie.

        Args:
            spec: as the run began with it.
            changed: settings of the kind that restarts have changed.
            state: the run's directory, for what was made in it.
        """
        return {**spec, "settings": {**spec["settings"], **changed}} if "settings" in spec else spec

    def finetune(
        self, found: FoundNetwork, how: FineTuning, out: Path, progress: OnProgress, orders: Orders | None = None
    ) -> Json:
        """Train a winner on, or continue, and write its weights into ``out``; returns what the training came to.

        ``orders`` may end it before: to leave its state behind (JobLeftError), or with what it has.

        Raises:
            InputError: as here, there is no network, or none that can be trained.
        """
        raise InputError(f"a {self.name} holds no networks, so there is nothing to fine-tune")

    def finetuning_told(self, found: FoundNetwork, file: Path) -> Json | None:
        """What ``finetune`` came to, from the file that it wrote; None where it is missing, or of another winner."""
        return None

    def deployed(self, found: FoundNetwork) -> DeployedNetwork | None:
        """A network of the run as it is exported, to be timed; None, as here, where there is none.

        Raises:
            RiwoaError: the network cannot be made.
        """
        return None

    def export(self, found: FoundNetwork, form: ExportForm) -> NetworkFiles:
        """What is written of a winner; here: its numbers alone, as of an oracle that holds no networks.

        Args:
            found: the winner.
            form: how it is asked for.

        Raises:
            RiwoaError: the network cannot be made.
        """
        return NetworkFiles({"journaled": {"metrics": dict(found.metrics)}}, f"a {self.name} holds no networks")
