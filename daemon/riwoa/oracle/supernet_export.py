"""The winner of a supernet as files: model.safetensors and model.onnx, and what architecture.json says of them.

The model is the recalibrated subnet in float32. A search may have measured in bfloat16, and then the journaled accuracy
and this model's can differ by a few images; architecture.json holds both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from riwoa.datasets.arrays import FloatArray, Images, IntArray, Split
from riwoa.datasets.catalogue import ImageTask, check_every_split, task_of
from riwoa.errors import InputError, OracleError
from riwoa.oracle.kind import FoundNetwork, NetworkFiles
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.parsing import parse_json
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.network import Supernet
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.onnx_graph import INPUT, OUTPUT, subnet_graph
from riwoa.supernet.space import OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa_storage.durable import flush

ONNX_TOLERANCE = 1e-4
_BATCH_IMAGES = 200


def export_subnet(found: FoundNetwork, *, onnx: bool) -> NetworkFiles:
    """The standalone network of a winner, checked on every split of its data.

    Raises:
        InputError: the checkpoint or the data is missing or damaged.
        OracleError: when writing: onnxruntime and torch disagree on the model.
    """
    spec, config = SupernetSpec.from_json(found.spec), ofa_config(found.architecture)
    task = task_of(spec)
    check_every_split(task, spec)
    net = winning_net(spec, config, task)
    left_out = None if onnx else "not asked for"

    def write(directory: Path) -> None:
        weights = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
        (directory / "model.safetensors").write_bytes(save(weights, {"format": "pt", **found.notes}))
        flush(directory / "model.safetensors")
        if left_out is None:
            _write_onnx(net, task.views("validation", config.r, 1)[0][:32], directory / "model.onnx")

    return NetworkFiles(_describe(found, net, config, task, spec), left_out, write)


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


def accuracy(net: nn.Module, images: Images, labels: IntArray) -> dict[str, Any]:
    """Top-1 of a model in batches: {"accuracy", "correct", "images"}."""
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH_IMAGES):
            logits = net(torch.from_numpy(images[start : start + _BATCH_IMAGES]))
            correct += int((logits.argmax(1).numpy() == labels[start : start + _BATCH_IMAGES]).sum())
    return {"accuracy": correct / len(images), "correct": correct, "images": len(images)}


def _describe(found: FoundNetwork, net: Any, config: OfaConfig, task: ImageTask, spec: SupernetSpec) -> dict[str, Any]:
    """What architecture.json says of the network beside its numbers."""
    judged: tuple[Split, ...] = ("validation", "test")
    splits = [split for split in judged if split in task.splits]
    return {
        "resolution": config.r,
        "ofa": config.to_json(),
        "network": net.config,
        "input": {"name": INPUT, "shape": ["batch", 3, config.r, config.r], "dtype": "float32"}
        | {"range_before": [0.0, 1.0], "mean": list(task.mean), "std": list(task.std)},
        "output": {"name": OUTPUT, "shape": ["batch", spec.n_classes]},
        "journaled": {"metrics": dict(found.metrics), "dtype": spec.dtype},
        "exported": {s: accuracy(net, *task.views(s, config.r, spec.validation_views)) for s in splits},
    }


# -- ONNX ------------------------------------------------------------------------------------------------------------


def _write_onnx(net: nn.Module, images: FloatArray, path: Path) -> None:
    """Write the graph, and check it in onnxruntime on two batch sizes.

    It is written directly (``supernet.onnx_graph``), not traced: what a tracer writes takes twice as long to run.

    Raises:
        OracleError: the logits differ by more than ``ONNX_TOLERANCE``.
    """
    graph = subnet_graph(net, images.shape[-1], batch=None)
    path.write_bytes(graph.SerializeToString())
    flush(path)
    difference = max(onnx_difference(path, net, images[:n]) for n in (1, len(images)))
    if not difference <= ONNX_TOLERANCE:
        raise OracleError(
            f"onnxruntime and torch differ by {difference:.1e} on the exported model (at most {ONNX_TOLERANCE}); "
            "export with --no-onnx, and report this"
        )


def onnx_difference(path: Path, net: nn.Module, images: FloatArray) -> float:
    """The largest difference of any logit between onnxruntime and torch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: images})
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    return float(np.abs(found - expected).max())
