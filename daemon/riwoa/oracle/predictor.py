"""The kind ``predictor``: OFA's accuracy predictor without OFA's code, and OFA's tables of latencies.

The predictor is a small perceptron over one-hot choices; torch is needed to load it, no more.

Cai et al., ICLR 2020. Input 128: 20 kernels and 20 expansions of three choices (all zero where the layer does not
exist), then eight resolutions from 112 in steps of 16; three hidden layers of 400 with ReLU; output: ImageNet top-1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from riwoa.config.kinds.predictor import PredictorSettings
from riwoa.errors import ConfigError, InputError, OracleError
from riwoa.files.ownership import regular_file
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.hardware.probe import probe
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.attainable import Range
from riwoa.oracle.kind import (
    DeviceLatency,
    ExportForm,
    FoundNetwork,
    NetworkFiles,
    OracleKind,
    Problem,
    Refusals,
    mobilenet_ranges,
    mobilenet_sizes,
)
from riwoa.oracle.protocol import CandidateError, Metrics
from riwoa.search.space import Space
from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig, mobilenet_space, ofa_config

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.config.schema import Oracle as OracleTable

RESOLUTIONS_PX = tuple(range(112, 225, 16))
BACKBONE = Backbone(1.2, 1000)  # what the predictor was trained on, and what OFA's tables time
_LAYERS = STAGES * BLOCKS
_INPUTS = 6 * _LAYERS + len(RESOLUTIONS_PX)
_SHAPES = ((400, _INPUTS), (400, 400), (400, 400), (1, 400))
_NUMBERS = (0, 2, 4, 6)  # of the linear layers in OFA's nn.Sequential; a ReLU stands between each two


class AccuracyPredictor:
    """Accuracies (fractions) of batches of subnets, in float32; the last bits depend on the size of the batch.

    Args:
        weights: the four (weight (out, in), bias (out,)) pairs, first layer first.
    """

    def __init__(self, weights: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]) -> None:
        self._weights = tuple(weights)

    @classmethod
    def load(cls, file: Path) -> AccuracyPredictor:
        """Read OFA's ``acc_predictor.pth``.

        Raises:
            InputError: unreadable, or not that network.
        """
        if not os.path.isfile(file):
            raise InputError(f"{file}: not OFA's accuracy predictor: there is no such file")
        from riwoa.supernet.checkpoint import read_checkpoint

        regular_file(file)
        try:
            state = read_checkpoint(file)
            pairs = [(_array(state[f"{i}.weight"]), _array(state[f"{i}.bias"])) for i in _NUMBERS]
        except Exception as error:  # torch raises whatever its unpickler met
            reason = str(error).partition("\n")[0][:200]
            raise InputError(f"{file}: not OFA's accuracy predictor ({type(error).__name__}: {reason})") from None
        shapes = tuple(w.shape for w, _ in pairs)
        if shapes != _SHAPES or any(b.shape != w.shape[:1] for w, b in pairs):
            raise InputError(f"{file}: not OFA's accuracy predictor: layers of shapes {shapes}, should be {_SHAPES}")
        if not all(np.isfinite(w).all() and np.isfinite(b).all() for w, b in pairs):
            raise InputError(f"{file}: damaged: a weight of the accuracy predictor is not finite")
        return cls(pairs)

    def accuracies(self, configs: Sequence[OfaConfig]) -> npt.NDArray[np.float32]:
        """Predicted top-1 of each subnet, shape (n,).

        Raises:
            OracleError: a choice outside the space, or a resolution outside the predictor's eight.
        """
        x = one_hot(configs)
        for weight, bias in self._weights[:-1]:
            x = np.maximum(x @ weight.T + bias, 0.0)
        weight, bias = self._weights[-1]
        return np.asarray((x @ weight.T + bias)[:, 0])

    @property
    def sha256(self) -> str:
        """Hash of the weights' values; the same whatever container they were read from."""
        digest = hashlib.sha256()
        for weight, bias in self._weights:
            digest.update(np.ascontiguousarray(weight).tobytes() + np.ascontiguousarray(bias).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSpec:
    """An oracle that asks OFA's accuracy predictor."""

    predictor: str  # absolute path
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets; a part of a run's digest."""
        return {"kind": "predictor", **asdict(self)}

    @classmethod
    def from_json(cls, frame: Mapping[str, Any]) -> PredictorSpec:
        """The specification of ``to_json``."""
        return cls(**{name: value for name, value in frame.items() if name != "kind"})


class PredictorKind(OracleKind):
    """OFA's predictor as a judge of the Once-for-All space."""

    name = "predictor"
    settings = PredictorSettings
    metrics = frozenset({"accuracy", "latency_ms", "macs", "parameters"})

    def spec(self, oracle: OracleTable) -> PredictorSpec:
        """See ``OracleKind.spec``.

        Raises:
            ConfigError: the predictor or its latency tables are not named, or a resolution is none of the predictor's.
        """
        settings = oracle.predictor
        needed = {"file": "OFA's acc_predictor.pth", "latency_tables": "a folder of OFA's tables"}
        wrong = [
            f"oracle.kind = predictor needs oracle.predictor.{name}, {what}"
            for name, what in needed.items()
            if getattr(settings, name) is None
        ]
        unknown = [r for r in settings.resolutions if r not in RESOLUTIONS_PX]
        if unknown:
            wrong.append(f"oracle.predictor.resolutions: OFA's predictor knows {RESOLUTIONS_PX}, not {unknown[0]}")
        if wrong:
            raise ConfigError(*wrong)
        return PredictorSpec(predictor=str(Path(str(settings.file)).absolute()), threads=oracle.threads)

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """See ``OracleKind.problem``."""
        spec, settings = self.spec(config.oracle), config.oracle.predictor
        tables = OfaLatencyTable(Path(str(settings.latency_tables)))
        low_ms, high_ms = tables.range_ms(settings.resolutions)
        return Problem(
            space=mobilenet_space(settings.resolutions),
            spec=spec,
            latency_of=lambda architecture: tables.latency_ms(ofa_config(architecture)),
            layer_ms=lambda architecture: tables.layers_ms(ofa_config(architecture)),
            range_ms=(low_ms, high_ms),
            auto_target_ms=math.sqrt(low_ms * high_ms),
            latency_sha256=tables.sha256(settings.resolutions),
            known=self.known_metrics(config),
        )

    def device_latency(self, table: str, config: Config) -> DeviceLatency:
        """See ``OracleKind.device_latency``: another folder of OFA's tables."""
        tables = OfaLatencyTable(Path(table))
        sha256 = tables.sha256(config.oracle.predictor.resolutions)  # reads them all
        range_ms = tables.range_ms(config.oracle.predictor.resolutions)
        return DeviceLatency(lambda architecture: tables.latency_ms(ofa_config(architecture)), range_ms, sha256)

    def known_metrics(self, config: Config) -> Mapping[str, Callable[[Mapping[str, Any]], float]]:
        """See ``OracleKind.known_metrics``."""
        return mobilenet_sizes(BACKBONE)

    def known_ranges(self, config: Config) -> Mapping[str, Range]:
        """See ``OracleKind.known_ranges``."""
        return mobilenet_ranges(BACKBONE, config.oracle.predictor.resolutions)

    def check(self, refusals: Refusals, config: Config, latency_table: Path) -> Space | None:
        """See ``OracleKind.check``: the predictor's weights too."""
        spec = refusals.ask(self.spec, config.oracle)
        if spec is None:
            return None
        refusals.ask(PredictorOracle, spec)
        return super().check(refusals, config, latency_table)

    def shipped(self, spec: Mapping[str, Any]) -> Mapping[str, Sequence[Path]]:
        """See ``OracleKind.shipped``: the weights."""
        return {"predictor": [Path(spec["predictor"])]}

    def build(self, spec: Mapping[str, Any]) -> PredictorOracle:
        """See ``OracleKind.build``."""
        return PredictorOracle(PredictorSpec.from_json(spec))

    def export(self, found: FoundNetwork, form: ExportForm) -> NetworkFiles:
        """See ``OracleKind.export``: of a network that OFA's published supernets hold, what get_active_subnet takes."""
        config = ofa_config(found.architecture)
        numbers = super().export(found, form)
        return replace(numbers, description={**numbers.description, "resolution": config.r, "ofa": config.to_json()})


class PredictorOracle:
    """Predicted accuracies as an oracle; one architecture at a time, so that none depends on its company.

    Raises:
        InputError: the file is unreadable, or not OFA's predictor.
    """

    def __init__(self, spec: PredictorSpec) -> None:
        self._predictor = AccuracyPredictor.load(Path(spec.predictor))
        device = probe()  # numpy's kernels, and with them the last bits, follow the processor
        processor = [device.architecture, device.cpu, list(device.flags)]
        facts = ["predictor-1", self._predictor.sha256, np.__version__, spec.threads, processor]
        self._version = hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def version(self) -> str:
        """Hash of everything that decides an accuracy."""
        return self._version

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """Predicted accuracy; MACs and parameters of the network that it was trained on, of width 1.2.

        Raises:
            CandidateError: no architecture of the Once-for-All space, or of a resolution that the predictor never saw.
        """
        try:
            config = ofa_config(architecture)
            accuracy = float(self._predictor.accuracies([config])[0])
        except (OracleError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CandidateError(f"not an architecture that OFA's predictor knows: {error}") from None
        return {
            "accuracy": accuracy,
            "macs": geometry.macs(config, BACKBONE),
            "parameters": geometry.parameters(config, BACKBONE),
        }

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """There is nothing cheaper than a prediction."""
        raise CandidateError(f"OFA's predictor has no rung {rung}")


def one_hot(configs: Sequence[OfaConfig]) -> npt.NDArray[np.float32]:
    """The inputs of each subnet, (n, 128): kernels, expansions (zero where the layer does not exist), resolution.

    Raises:
        OracleError: a choice outside the space, or a resolution outside the predictor's eight.
    """
    exists = np.arange(BLOCKS) < _positions(configs, "d", DEPTHS)[..., None] + DEPTHS[0]  # (n, stages, blocks)
    layers = [_hot(_positions(configs, gene, choices)) for gene, choices in (("ks", KERNELS), ("e", EXPANSIONS))]
    unknown = [c.r for c in configs if c.r not in RESOLUTIONS_PX]
    if unknown:
        raise OracleError(f"the predictor knows the resolutions {RESOLUTIONS_PX}, not {unknown[0]}")
    resolutions = np.array([c.r for c in configs], dtype=np.int64)
    parts = [(layer * exists.reshape(-1, _LAYERS, 1)).reshape(-1, 3 * _LAYERS) for layer in layers]
    return np.hstack([*parts, resolutions[:, None] == np.array(RESOLUTIONS_PX)], dtype=np.float32)


def _positions(configs: Sequence[OfaConfig], gene: str, choices: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Which of its choices each of a subnet's genes of one kind took, (n, genes)."""
    count = STAGES if gene == "d" else _LAYERS
    values = np.array([getattr(c, gene) for c in configs], dtype=np.int64).reshape(-1, count)
    found = np.minimum(np.searchsorted(choices, values), len(choices) - 1)
    wrong = np.array(choices)[found] != values
    if wrong.any():
        raise OracleError(f"{gene} is one of {choices} in the Once-for-All space, not {values[wrong][0]}")
    return found


def _hot(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(n, genes) of three choices each -> (n, genes, 3)."""
    return np.asarray(positions[..., None] == np.arange(3))


def _array(tensor: Any) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.float().numpy())
