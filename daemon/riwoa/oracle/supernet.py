"""The kind ``supernet``: subnets of a trained supernet judged on pictures, latencies from this device's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from riwoa.config.kinds.supernet import TRAINED, SupernetSettings
from riwoa.datasets.catalogue import check_task, task_of
from riwoa.errors import InputError
from riwoa.hardware.accelerator import probe_accelerator
from riwoa.hardware.deployed import DeployedNetwork
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import backbone_of, known_table, obtain_table
from riwoa.hardware.probe import fastest_dtype
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.remarks import remarks
from riwoa.hardware.runtime import spoken
from riwoa.hardware.target import auto_target_ms
from riwoa.ipc.job import Orders, RunJob
from riwoa.limits import memory
from riwoa.oracle.attainable import Range
from riwoa.oracle.kind import (
    DeviceLatency,
    ExportForm,
    FineTuning,
    FoundNetwork,
    Json,
    NetworkFiles,
    OracleKind,
    Problem,
    Refusals,
    mobilenet_ranges,
    mobilenet_sizes,
)
from riwoa.oracle.protocol import Oracle, OracleSpec
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.oracle.trained import obtain_supernet, require_planned, trained_on, training_job
from riwoa.paths import StatePaths
from riwoa.search.space import Space
from riwoa.supernet.job import OnProgress, told_check, told_finetuning
from riwoa.supernet.lead import too_poor
from riwoa.supernet.plan import source_of
from riwoa.supernet.published import PUBLISHED, sha256_of
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.config.schema import Oracle as OracleTable

_WORKER_BYTES = 2**30  # resident, of the embedded supernet with its images
_DECODING_TIMEOUT_S = 3600.0  # the first worker on a folder decodes its images, the others wait for it


class SupernetKind(OracleKind):
    """Accuracies of subnets of one checkpoint on one task."""

    name = "supernet"
    settings = SupernetSettings
    measures_device = True
    metrics = frozenset({"accuracy", "images", "latency_ms", "macs", "parameters"})

    def spec(self, oracle: OracleTable) -> SupernetSpec:
        """See ``supernet_spec``."""
        return supernet_spec(oracle)

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """See ``OracleKind.problem``; this device is measured where its table is missing."""
        spec, resolutions = supernet_spec(config.oracle), config.oracle.supernet.resolutions
        described: Json = {}
        if spec.checkpoint == TRAINED:
            trained = StatePaths(latency_table.parent).supernet
            await obtain_supernet(training_job(trained, config, spec), progress)
            spec = _with_trained(spec, trained)
            described = {"checkpoint": TRAINED}
        table = await obtain_table(latency_table, config, progress)
        return Problem(
            space=mobilenet_space(resolutions),
            spec=spec,
            described=described,
            exact_spec=replace(spec, dtype="float32", rung_images=()) if spec.dtype != "float32" else None,
            latency_of=lambda architecture: table.latency_ms(ofa_config(architecture)),
            layer_ms=lambda architecture: table.layers_ms(ofa_config(architecture)),
            range_ms=table.range_ms(resolutions),
            auto_target_ms=auto_target_ms(table, resolutions),
            latency_sha256=table.sha256,
            measured=latency_table,
            warnings=(*_warnings(spec), *remarks(table)),
            known=self.known_metrics(config),
        )

    async def prepare(
        self, config: Config, latency_table: Path, run: RunJob, progress: ProgressCallback | None = None
    ) -> None:
        """See ``OracleKind.prepare``: the supernet, where it is to be trained first."""
        if config.oracle.supernet.checkpoint == TRAINED:
            trained = StatePaths(latency_table.parent).supernet
            await obtain_supernet(training_job(trained, config, supernet_spec(config.oracle)), progress, run)

    def device_latency(self, table: str, config: Config) -> DeviceLatency:
        """See ``OracleKind.device_latency``: a table as of this device, measured on the other."""
        found = LatencyTable.load(Path(table))
        missing = found.missing(config.oracle.supernet.resolutions, backbone_of(config))
        if missing:
            raise InputError(
                f"{table} lacks {len(missing)} operators of this space, first {missing[0]}; build it there with "
                "`riwoactl lut build`"
            )
        together = f", {found.settings.batch_size} images at once" if found.settings.batch_size > 1 else ""
        return DeviceLatency(
            lambda architecture: found.latency_ms(ofa_config(architecture)),
            found.range_ms(config.oracle.supernet.resolutions),
            found.sha256,
            None if found.interval is None else found.interval.half_width_percent / 100,
            spoken(found.settings) + together,
        )

    def known_metrics(self, config: Config) -> Mapping[str, Callable[[Json], float]]:
        """See ``OracleKind.known_metrics``."""
        return mobilenet_sizes(backbone_of(config))

    def known_ranges(self, config: Config) -> Mapping[str, Range]:
        """See ``OracleKind.known_ranges``."""
        return mobilenet_ranges(backbone_of(config), config.oracle.supernet.resolutions)

    def check(self, refusals: Refusals, config: Config, latency_table: Path) -> Space:
        """See ``OracleKind.check``: weights, data and, where this device was measured, the target."""
        resolutions = config.oracle.supernet.resolutions
        spec = refusals.ask(supernet_spec, config.oracle)
        if spec is not None:
            trained = StatePaths(latency_table.parent).supernet
            if spec.checkpoint != TRAINED:
                refusals.ask(_load_weights, spec)
            elif trained.exists():
                refusals.ask(require_planned, training_job(trained, config, spec))
                refusals.ask(_load_weights, _with_trained(spec, trained))
            else:
                refusals.ask(_check_trainable, spec, config.train.start)
            refusals.ask(_check_data, spec)
        table = refusals.ask(known_table, latency_table, config)
        if table is not None:
            refusals.ranges["latency_ms"] = table.range_ms(resolutions)
        return mobilenet_space(resolutions)

    def most_workers(self, oracle: OracleTable) -> int:
        """As many as the memory holds: where it is short, they would be killed in turns. One on a GPU."""
        if oracle_device(oracle.supernet) == "cuda":
            return 1  # each would hold a CUDA context and the images of its own
        return memory().total_bytes // _WORKER_BYTES

    def start_timeout_s(self, oracle: OracleTable) -> float | None:
        """An hour where a folder of pictures must be decoded first."""
        return _DECODING_TIMEOUT_S if Path(oracle.supernet.data).is_dir() else None

    def shipped(self, spec: Json) -> Mapping[str, Sequence[Path]]:
        """See ``OracleKind.shipped``: the checkpoint and the pictures, but for what is in the package."""
        found = SupernetSpec.from_json(spec)
        places = {"checkpoint": [checkpoint_path(found)]} if found.checkpoint is not None else {}
        if found.data != "digits":
            places["data"] = [Path(found.data)]
        if found.recalibration_data is not None:
            places["recalibration_data"] = [Path(found.recalibration_data)]
        return places

    def build(self, spec: Mapping[str, Any]) -> Oracle:
        """See ``OracleKind.build``."""
        from riwoa.oracle.supernet_oracle import build_supernet_oracle

        return build_supernet_oracle(SupernetSpec.from_json(spec))

    def test_spec(self, spec: OracleSpec) -> SupernetSpec | None:
        """See ``OracleKind.test_spec``."""
        assert isinstance(spec, SupernetSpec)
        if "test" not in task_of(spec).splits:
            return None
        return replace(spec, split="test", dtype="float32", rung_images=())

    def moved(self, spec: Json, changed: Mapping[str, Any], state: Path) -> Json:
        """See ``OracleKind.moved``; what lies in the package, or is made, has no place."""
        now = dict(spec)
        if now.get("checkpoint") == TRAINED:
            now["checkpoint"] = str(StatePaths(state).supernet)
        for name in ("checkpoint", "data", "recalibration_data"):
            if name in spec and changed.get(name) not in (None, "embedded", "digits", TRAINED):
                place = Path(changed[name])
                now[name] = _absolute(changed[name]) if place.exists() else changed[name]
        return now

    def finetune(
        self, found: FoundNetwork, how: FineTuning, out: Path, progress: OnProgress, orders: Orders | None = None
    ) -> Json:
        """See ``OracleKind.finetune``."""
        from riwoa.oracle.supernet_finetune import finetune_subnet  # torch

        return finetune_subnet(found, how, out, progress, orders)

    def finetuning_told(self, found: FoundNetwork, file: Path) -> Json | None:
        """See ``OracleKind.finetuning_told``."""
        return told_finetuning(file, found.notes)

    def deployed(self, found: FoundNetwork) -> DeployedNetwork:
        """See ``OracleKind.deployed``: with the weights that the search saw."""
        from riwoa.oracle.supernet_export import deployed_subnet  # torch

        return deployed_subnet(found)

    def export(self, found: FoundNetwork, form: ExportForm) -> NetworkFiles:
        """See ``OracleKind.export``: the recalibrated subnet in float32, as weights and as ONNX."""
        from riwoa.oracle.supernet_export import export_subnet  # torch

        return export_subnet(found, form)


def supernet_spec(oracle: OracleTable) -> SupernetSpec:
    """The worker's specification; "auto" is resolved here, once, and enters the oracle's version.

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    settings = oracle.supernet
    device = oracle_device(settings)
    return SupernetSpec(
        checkpoint=_checkpoint(settings.checkpoint),
        width_mult=settings.width_mult,
        n_classes=settings.n_classes,
        stem=settings.stem,
        data="digits" if settings.data == "digits" else _absolute(settings.data),
        resolutions=settings.resolutions,
        dtype=_fastest_dtype(device) if settings.dtype == "auto" else settings.dtype,
        batch_size=settings.batch_images if device == "cpu" else None,
        recalibration_images=settings.recalibration_images,
        validation_views=settings.validation_views,
        validation_images=settings.validation_images,
        data_seed=settings.data_seed,
        data_rules=1 if settings.data == "digits" else settings.data_rules,  # which are no files to be read
        recalibration_data=None if settings.recalibration_data == "train" else _absolute(settings.recalibration_data),
        rung_images=tuple(rung for rung in oracle.rungs if isinstance(rung, int)),
        threads=oracle.threads,
        device=device,
    )


def oracle_device(settings: SupernetSettings) -> Literal["cpu", "cuda"]:
    """Where accuracies are computed; "auto" is a GPU where torch can use one (a child process looks, once).

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    if settings.device == "cpu":
        return "cpu"
    if probe_accelerator() is not None:
        return "cuda"
    if settings.device == "cuda":
        raise InputError("oracle.supernet.device = cuda, but torch finds no CUDA GPU here; set it to auto or cpu")
    return "cpu"


def _fastest_dtype(device: Literal["cpu", "cuda"]) -> Literal["float32", "bfloat16"]:
    if device == "cpu":
        return fastest_dtype()
    accelerator = probe_accelerator()
    return "bfloat16" if accelerator is not None and accelerator.bfloat16 else "float32"


def _checkpoint(setting: str) -> str | None:
    if setting == "embedded":
        return None
    return setting if setting in (TRAINED, *PUBLISHED) else _absolute(setting)


def _with_trained(spec: SupernetSpec, trained: Path) -> SupernetSpec:
    """The specification with the supernet that lies in the state directory, and the pictures that it is bound to."""
    place, sha256 = str(trained), sha256_of(trained)
    return replace(spec, checkpoint=place, checkpoint_sha256=sha256, trained_on=trained_on(trained))


def _warnings(spec: SupernetSpec) -> tuple[str, ...]:
    """What the supernet's file says against searching in it."""
    poor = too_poor(told_check(checkpoint_path(spec)))
    return () if poor is None else (poor,)


def _check_trainable(spec: SupernetSpec, start: str) -> None:
    """Refuse pictures that cannot train a supernet, and a start that is not here.

    Raises:
        InputError: says what is missing.
    """
    task_of(spec).labels("train")
    source_of(start, spec.width_mult)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _load_weights(spec: SupernetSpec) -> None:
    """Load the weights, as a worker will.

    Raises:
        InputError: they are missing, damaged or of another network.
    """
    path = checkpoint_path(spec)  # before torch is imported
    from riwoa.supernet.network import Supernet

    Supernet.load(path, spec.width_mult, spec.n_classes, spec.stem)


def _check_data(spec: SupernetSpec) -> None:
    check_task(task_of(spec), spec)
