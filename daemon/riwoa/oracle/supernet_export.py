"""The winner of a supernet as files that need no riwoa, and what architecture.json says of them.

The model is the recalibrated subnet in float32. A search may have measured in bfloat16, and then the journaled accuracy
and this model's can differ by a few images; architecture.json holds both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from riwoa.datasets.arrays import ByteArray, FloatArray, Images, IntArray, Split
from riwoa.datasets.catalogue import ImageTask, check_every_split, task_of
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError, OracleError
from riwoa.files.ownership import safetensors_notes
from riwoa.hardware.deployed import DeployedNetwork
from riwoa.hardware.runtime import INT8
from riwoa.oracle.export_texts import Deployment, model_source
from riwoa.oracle.kind import ExportForm, FoundNetwork, NetworkFiles
from riwoa.oracle.onnx_files import LOGITS, OnnxNetwork, Session, quantised, with_preprocessing, with_softmax
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.parsing import parse_json, parse_json_object
from riwoa.search.paired import BoolArray, difference_of
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.job import told_finetuning
from riwoa.supernet.network import Supernet
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.onnx_graph import subnet_graph
from riwoa.supernet.published import PUBLISHED
from riwoa.supernet.space import OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.text import printable
from riwoa_storage.durable import flush

ONNX_TOLERANCE = 1e-4
MODULE_TOLERANCE = 1e-6  # of model.py, which computes the same in the same order
_BATCH_IMAGES = 200
_MOST_LICENCE_CHARACTERS = 100
_CHECKED_IMAGES = 32
_MOST_CALIBRATING_IMAGES = 200
_JUDGED: tuple[Split, ...] = ("validation", "test")
Accuracies = Mapping[str, Mapping[str, Any]]


def export_subnet(found: FoundNetwork, form: ExportForm) -> NetworkFiles:
    """The standalone network of a winner, checked on every split of its data; all of it in memory.

    Raises:
        InputError: the checkpoint or the data is missing or damaged.
        OracleError: onnxruntime, or the written module, and torch disagree on the model.
    """
    spec, config = SupernetSpec.from_json(found.spec), ofa_config(found.architecture)
    task = task_of(spec)
    check_every_split(task, spec)
    net = winning_net(spec, config, task)
    if found.finetuned is not None:
        net = with_finetuned_weights(net, found.finetuned)
    subnet = _Subnet(net, config, task, spec)
    network = subnet.onnx_network(form) if form.onnx else None
    in_int8 = found.precision == INT8
    small = subnet.in_int8() if form.int8 or (in_int8 and form.onnx) else None
    timed = small if in_int8 else network
    right = subnet.right()
    deployment = Deployment(
        class_names=class_names(task, spec.n_classes),
        rule=subnet.rule,
        accuracies={split: top_1(answers) for split, answers in right.items()},
        int8_accuracies=None if small is None else subnet.accuracies_in_8_bits(small, right),
        network=network,
        notes={**found.notes, "weights_licence": weights_licence(spec)},
        is_timed=timed is not None and timed.sha256 == found.notes.get("latency_measured_sha256"),
        precision=found.precision,
    )
    files = subnet.module_files(found.notes)
    files["labels.txt"] = deployment.labels.encode()
    files["preprocess.json"] = json.dumps(deployment.preprocess, indent=1).encode() + b"\n"
    files["README.md"] = deployment.readme.encode()
    if network is not None:
        files["model.onnx"] = network.described(deployment.facts())
        subnet.check_onnx(network, files["model.onnx"])
    if small is not None:
        files["model.int8.onnx"] = _formed(small, form).described(deployment.facts(int8=True))

    def write(directory: Path) -> None:
        for name, content in files.items():
            (directory / name).write_bytes(content)
            flush(directory / name)

    return NetworkFiles(subnet.description(found, deployment), None if form.onnx else "not asked for", write)


def deployed_subnet(found: FoundNetwork) -> DeployedNetwork:
    """The network of ``export_subnet`` to be timed; in 8 bits, where the run's latencies are, judged on validation.

    Raises:
        InputError: the checkpoint or the data is missing or damaged.
    """
    spec, config = SupernetSpec.from_json(found.spec), ofa_config(found.architecture)
    task = task_of(spec)
    net = winning_net(spec, config, task)
    subnet, shape = _Subnet(net, config, task, spec), (3, config.r, config.r)
    if found.precision != INT8:
        return DeployedNetwork(subnet.graph().bare, shape, net)
    small = subnet.in_int8()
    return DeployedNetwork(small.bare, shape, net, float(subnet.right_in_onnxruntime(small, "validation").mean()))


def load_exported(directory: Path) -> tuple[nn.Module, int]:
    """The exported model in evaluation mode and its input resolution, from the files alone.

    Raises:
        InputError: a file is missing, damaged, or of another model.
    """
    try:
        description = parse_json((directory / "architecture.json").read_bytes())
        net: nn.Module = import_ofa().MobileNetV3.build_from_config(description["network"])
        # OFA's own loading is not asked: strict, every weight is there and none besides.
        nn.Module.load_state_dict(net, load_file(directory / "model.safetensors"))
        return net.eval(), int(description["resolution"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{directory} holds no intact export ({reason}); run riwoactl export again") from error


def winning_net(spec: SupernetSpec, config: OfaConfig, task: ImageTask) -> nn.Module:
    """The standalone float32 subnet, BatchNorm recalibrated as the search did.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    supernet = Supernet.load(checkpoint_path(spec), spec.width_mult, spec.n_classes, spec.stem)
    recalibration = {config.r: task.recalibration(config.r, spec.recalibration_images)}
    # The evaluator asks for validation images, and recalibrates on none of them: one will do.
    validation = {config.r: (recalibration[config.r][:1], np.zeros(1, dtype=np.int64))}
    evaluator = SubnetEvaluator(supernet, recalibration, validation, dtype="float32", prefix_cache_bytes=0)
    return evaluator.recalibrated_net(config)


def with_finetuned_weights(net: nn.Module, file: Path) -> nn.Module:
    """The network with the weights of a file, its BatchNorm's statistics too.

    Raises:
        InputError: the file is damaged, or of another network.
    """
    try:
        nn.Module.load_state_dict(net, load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} cannot be used ({reason}); `riwoactl finetune --again` makes another") from error
    return net.eval()


def right_answers(net: nn.Module, images: Images, labels: IntArray) -> BoolArray:
    """Which pictures a model names rightly."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH_IMAGES):
            logits = net(torch.from_numpy(images[start : start + _BATCH_IMAGES]))
            found.append(logits.argmax(1).numpy() == labels[start : start + _BATCH_IMAGES])
    return np.concatenate(found)


def top_1(right: BoolArray) -> dict[str, Any]:
    """Top-1 accuracy of a model's answers: {"accuracy", "correct", "images"}."""
    correct = int(right.sum())
    return {"accuracy": correct / len(right), "correct": correct, "images": len(right)}


def class_names(task: ImageTask, n_classes: int) -> tuple[str, ...]:
    """What the data calls its classes, in the order of the outputs; numbers where it has no names for all of them."""
    names = task.class_names
    return tuple(names) if len(names) == n_classes else tuple(map(str, range(n_classes)))


def weights_licence(spec: SupernetSpec) -> str:
    """Under which licence the weights may be used, as far as it is known."""
    if spec.checkpoint is None:
        return "MIT, riwoa"
    if spec.checkpoint in PUBLISHED:
        return PUBLISHED[spec.checkpoint].licence
    notes = safetensors_notes(spec.checkpoint)
    stated = notes.get("licence", notes.get("license"))
    if stated:
        return printable(stated, _MOST_LICENCE_CHARACTERS)
    return _licence_of_training(notes) or f"not stated by {Path(spec.checkpoint).name}"


def _licence_of_training(notes: Mapping[str, Any]) -> str | None:
    """What riwoa's own training notes say: its weights are the user's, but for those that they began as."""
    try:
        source = parse_json_object(str(notes["recipe"])).get("source", "")
    except (KeyError, ValueError):
        return None
    if not source:
        return "yours, trained by riwoa from scratch"
    began = PUBLISHED[source].licence if source in PUBLISHED else "not stated"
    return f"trained by riwoa from {printable(source, _MOST_LICENCE_CHARACTERS)} ({began})"


@dataclass(frozen=True, slots=True)
class _Subnet:
    """A recalibrated network with the pictures that judge it."""

    net: Any
    config: OfaConfig
    task: ImageTask
    spec: SupernetSpec

    @property
    def rule(self) -> Preprocessing:
        return self.task.preprocessing(self.config.r)

    def right(self) -> dict[Split, BoolArray]:
        """Which pictures it names rightly, a split each."""
        return {split: right_answers(self.net, *self._views(split)) for split in _JUDGED if split in self.task.splits}

    def accuracies_in_8_bits(self, network: OnnxNetwork, right: Mapping[Split, BoolArray]) -> dict[str, dict[str, Any]]:
        """Of a network that takes standardised images, and how far they are from those of the answers in float32."""
        found: dict[str, dict[str, Any]] = {}
        for split, exact in right.items():
            small = self.right_in_onnxruntime(network, split)
            pictures = len(self.task.labels(split))  # each of them in some views, which are no pictures of their own
            less = asdict(difference_of(*(answers.reshape(-1, pictures).T for answers in (small, exact))))
            found[split] = {**top_1(small), "against_float32": less}
        return found

    def right_in_onnxruntime(self, network: OnnxNetwork, split: Split) -> BoolArray:
        """Which pictures a network that takes standardised images names rightly."""
        return Session(network.described({})).right(*self._views(split))

    def _views(self, split: Split) -> tuple[Images, IntArray]:
        return self.task.views(split, self.config.r, self.spec.validation_views)

    def calibrating(self) -> FloatArray:
        """Training images that scale the activations of 8 bits: some of those that recalibrated BatchNorm."""
        n = min(self.spec.recalibration_images, _MOST_CALIBRATING_IMAGES)
        return self.task.recalibration(self.config.r, n)[:]

    def graph(self) -> OnnxNetwork:
        """The network as it is timed, for any number of images."""
        return OnnxNetwork(subnet_graph(self.net, self.config.r, batch=None), self.rule)

    def in_int8(self) -> OnnxNetwork:
        """The same in 8 bits, scaled on training pictures."""
        return quantised(self.graph(), self.calibrating())

    def onnx_network(self, form: ExportForm) -> OnnxNetwork:
        return _formed(self.graph(), form)

    def check_onnx(self, network: OnnxNetwork, content: bytes) -> None:
        """Run the file beside torch on real pictures, one and several at a time.

        Raises:
            OracleError: what they put out differs by more than ``ONNX_TOLERANCE``.
        """
        images, pixels = self._some_pictures()
        session = Session(content)
        counts = (1, len(images))
        difference = max(self._difference(network, session, images[:n], pixels[:n]) for n in counts)
        if not difference <= ONNX_TOLERANCE:
            raise OracleError(
                f"onnxruntime and torch differ by {difference:.1e} on the exported model (at most {ONNX_TOLERANCE}); "
                "export with --no-onnx, and report this"
            )

    def _difference(self, network: OnnxNetwork, session: Session, images: FloatArray, pixels: ByteArray) -> float:
        with torch.inference_mode():
            logits = self.net(torch.from_numpy(images))
            expected = logits if network.output == LOGITS else logits.softmax(1)
        return float(np.abs(session.run(network.fed(images, pixels)) - expected.numpy()).max())

    def _some_pictures(self) -> tuple[FloatArray, ByteArray]:
        """The first validation pictures, standardised and as bytes."""
        rule = self.rule
        images, whole = (
            self.task.views("validation", side, 1)[0][:_CHECKED_IMAGES] for side in (rule.resolution, rule.crop_px)
        )
        return images, rule.pixels_of(whole)

    def module_files(self, notes: Mapping[str, str]) -> dict[str, bytes]:
        """model.safetensors, and model.py, which was loaded and run beside the network.

        Raises:
            OracleError: they differ.
        """
        weights = {name: tensor.detach().contiguous() for name, tensor in self.net.state_dict().items()}
        source = model_source(self.net.config, self.config.r)
        module: dict[str, Any] = {"__name__": "model", "__file__": "model.py"}
        exec(compile(source, "model.py", "exec", dont_inherit=True), module)  # what was just made of our own template
        again: nn.Module = module["Network"]()
        again.load_state_dict(weights)
        images = torch.from_numpy(self._some_pictures()[0])
        with torch.inference_mode():
            difference = float((again.eval()(images) - self.net(images)).abs().max())
        if not difference <= MODULE_TOLERANCE:
            raise OracleError(f"model.py and the network differ by {difference:.1e}; report this")
        return {"model.safetensors": save(weights, {"format": "pt", **notes}), "model.py": source.encode()}

    def description(self, found: FoundNetwork, deployment: Deployment) -> dict[str, Any]:
        """What architecture.json says of the network beside its numbers."""
        r, rule = self.config.r, self.rule
        small = deployment.int8_accuracies
        return {
            "resolution": r,
            "ofa": self.config.to_json(),
            "network": self.net.config,
            "input": {"name": "images", "shape": ["batch", 3, r, r], "dtype": "float32"}
            | {"range_before": [0.0, 1.0], "mean": list(rule.mean), "std": list(rule.std)},
            "output": {"name": "logits", "shape": ["batch", self.spec.n_classes]},
            "journaled": {"metrics": dict(found.metrics), "dtype": self.spec.dtype},
            "exported": dict(deployment.accuracies),
            **({} if found.finetuned is None else {"finetuned": told_finetuning(found.finetuned, found.notes)}),
            **({} if small is None else {"int8": dict(small)}),
        }


def _formed(network: OnnxNetwork, form: ExportForm) -> OnnxNetwork:
    """The network with what is asked for around it."""
    network = with_preprocessing(network) if form.preprocessing else network
    return with_softmax(network) if form.softmax else network
