"""The winner's files: architecture.json, model.safetensors, model.onnx and provenance.json.

Where the run's language model learned, ``adapter/`` holds its LoRA weights too, as PEFT loads them. A run on a table
or a predictor has no network, and writes no model.

The directory is written whole beside its place, flushed to the disk and renamed into it: whoever looks sees the old
export or the new one, and the files of their own that they keep there in both. (Linux renames no directory over a full
one, so the old one steps aside first; a power cut in between leaves neither in place, and exporting again brings both
back: the export comes from the journal, the other files from where the old one stepped.)

The model is the recalibrated subnet in float32. A search may have measured in bfloat16, and then the journaled accuracy
and this model's can differ by a few images; architecture.json holds both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from riwoa import __version__
from riwoa.cognition.protocol import ModelSpec
from riwoa.datasets.arrays import FloatArray, Images, IntArray, Split
from riwoa.datasets.catalogue import ImageTask, check_every_split, task_of
from riwoa.errors import InputError, OracleError, RiwoaError
from riwoa.files.ownership import deny_writing_to_others, json_object, output_directory, unwritable
from riwoa.files.staging import finish_left, replacing
from riwoa.hardware.probe import library_versions
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.oracle.build import checkpoint_path
from riwoa.parsing import parse_json
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.network import Supernet
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa_storage.durable import flush
from riwoa_storage.errors import StorageError
from riwoa_storage.events import AdapterUnusable, RunResumed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, Json, RunRecord

SCHEMA = 1
ONNX_TOLERANCE = 1e-4
_ONNX_HINT = "pip install 'riwoa[export]'"
_BATCH_IMAGES = 200
_ADAPTER_README = """\
---
library_name: peft
---
A LoRA adapter (rank {rank}) that riwoa trained on the proposals that won during its search.

Base model: `{name}` (a name and the fingerprint of its files; `riwoactl model list` shows where it lies).

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the base model's directory")
model = PeftModel.from_pretrained(base, "this directory")
```
"""
_LIBRARIES = ("torch", "ofa", "numpy", "safetensors", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Winner:
    """What a run found, as journaled: its leader (within the target as soon as one is), and all it depends on."""

    run: RunRecord
    leader: Json
    config: Json
    fitness_version: str
    adapter: AdapterRecord | None = None  # in force at the end, whole
    restarted: Json = field(default_factory=dict)  # keys that a start changed in the run, as it saw them last

    @property
    def architecture(self) -> Json:
        """The leader's canonical architecture."""
        found: Json = self.leader["architecture"]
        return found


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; ``onnx`` is None, or why there is no model.onnx."""

    directory: Path
    architecture: Json
    provenance: Json
    onnx_left_out: str | None


def read_winner(journal: Path, run_id: int | None = None) -> Winner:
    """The leader of a run (the latest) from its last committed generation.

    Raises:
        InputError: no run was begun, or no evaluation succeeded in it.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        run = reader.run(run_id) if run_id is not None else reader.latest_run()
        if run is None:
            raise InputError(f"{journal} holds no run yet; start riwoad (or make run) first")
        last = reader.last_generation(run.run_id)
        if last is None or last.leader is None:
            raise InputError(f"run {run.run_id} has no leader yet: no evaluation succeeded; let it run on")
        revisions = reader.config_revisions(run.run_id)
        adapters = reader.adapters(run.run_id)
        restarts = [event.restarted for event in reader.events(run.run_id, RunResumed)]
        refused = {event.sha256 for event in reader.events(run.run_id, AdapterUnusable) if event.refused}
        searched = [s.generation for s in reader.generation_summaries(run.run_id) if s.phase == "search"]
    restarted = {key: value for changed in restarts for key, value in changed.items()}
    config = revisions[-1].config if revisions else {}
    learned = run.provenance.get("model_spec") is not None  # a script in a model's place learns nothing real
    usable = [adapter for adapter in adapters if adapter.sha256 not in refused]
    adapter = _in_force(usable, max(searched, default=0)) if learned else None
    return Winner(run, last.leader, config, last.individuals[0].fitness_version, adapter, restarted)


def _in_force(adapters: Sequence[AdapterRecord], generation: int) -> AdapterRecord | None:
    """The newest accepted adapter whose bytes are there and whole, as a resumed search would take it.

    ``generation``: the last of the search; an adapter that was due later wrote nothing.
    """
    for row in reversed(adapters):
        whole = row.weights is not None and hashlib.sha256(row.weights).hexdigest() == row.sha256
        if whole and row.status != "rejected" and row.generation <= generation:
            return row
    return None


def export_run(journal: Path, out: Path, run_id: int | None = None, *, onnx: bool = True) -> Exported:
    """Write the winner of a run (the latest) into ``out``, replacing an older export there.

    Raises:
        InputError: nothing to export, or the checkpoint is missing.
        UsageError: ``out`` holds something else.
        StateDirectoryError, FullDiskError: ``out`` cannot be written.
        OracleError: onnxruntime and torch disagree on the model.
        StorageError: the journal cannot be read.
    """
    winner = read_winner(journal, run_id)
    spec = _spec_now(winner)
    with _writing(out):
        finish_left(Path(os.path.realpath(out)), made_export)
    out = output_directory(out, lambda directory: made_export(directory) is not None)
    if spec.get("kind") in ("table", "predictor"):
        return _export_numbers(winner, out, spec["kind"])
    if spec.get("kind") != "supernet":
        raise InputError(f"run {winner.run.run_id} searched with a {spec.get('kind')!r} oracle, which has no weights")
    config = ofa_config(winner.architecture)
    named = SupernetSpec.from_json(spec)
    task = task_of(named)
    check_every_split(task, named)
    net = winning_net(named, config, task)
    left_out = _why_no_onnx() if onnx else "not asked for"
    with _replacing(out) as temporary:
        description = _describe(winner, net, config, task, named)
        _write(temporary / "model.safetensors", _weights(net, winner, config))
        if left_out is None:
            _write_onnx(net, task.views("validation", config.r, 1)[0][:32], temporary / "model.onnx")
        provenance = _write_descriptions(winner, description, temporary)
    return Exported(out, description, provenance, left_out)


def _spec_now(winner: Winner) -> Json:
    """The oracle as the run began with it, its files where a later start said that they lie."""
    spec = dict(winner.run.provenance.get("oracle", {}))
    moved = {key.removeprefix("oracle."): value for key, value in winner.restarted.items()}
    for name in ("checkpoint", "data", "recalibration_data"):
        if name in spec and moved.get(name) not in (None, "embedded", "digits"):
            place = Path(moved[name])
            spec[name] = str(place.absolute()) if place.exists() else moved[name]
    return spec


def _export_numbers(winner: Winner, out: Path, kind: str) -> Exported:
    """A table or a predictor knows its architectures' numbers and no networks: there is no model to write."""
    description = _found(winner) | {"schema": SCHEMA, "journaled": {"metrics": dict(winner.leader["metrics"])}}
    if kind == "predictor":  # a network that OFA's published supernets hold: get_active_subnet takes this
        config = ofa_config(winner.architecture)
        description |= {"resolution": config.r, "ofa": config.to_json()}
    with _replacing(out) as temporary:
        provenance = _write_descriptions(winner, description, temporary)
    return Exported(out, description, provenance, f"a {kind} holds no networks")


def _write_descriptions(winner: Winner, description: Json, directory: Path) -> Json:
    """architecture.json, adapter/ where the language model learned, provenance.json; the last one's content."""
    _write_json(directory / "architecture.json", description)
    if winner.adapter is not None:
        _write_adapter(winner.adapter, winner.run, directory / "adapter")
    provenance = _provenance(winner, directory)
    _write_json(directory / "provenance.json", provenance)
    return provenance


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


def _describe(winner: Winner, net: Any, config: OfaConfig, task: ImageTask, spec: SupernetSpec) -> dict[str, Any]:
    judged: tuple[Split, ...] = ("validation", "test")
    splits = [split for split in judged if split in task.splits]
    return {
        "schema": SCHEMA,
        **_found(winner),
        "resolution": config.r,
        "ofa": config.to_json(),
        "network": net.config,
        "input": {"name": "images", "shape": ["batch", 3, config.r, config.r], "dtype": "float32"}
        | {"range_before": [0.0, 1.0], "mean": list(task.mean), "std": list(task.std)},
        "output": {"name": "logits", "shape": ["batch", spec.n_classes]},
        "journaled": {"metrics": dict(winner.leader["metrics"]), "dtype": spec.dtype},
        "exported": {s: accuracy(net, *task.views(s, config.r, spec.validation_views)) for s in splits},
    }


def _found(winner: Winner) -> dict[str, Any]:
    """What architecture.json says of any winner."""
    return {
        "architecture": dict(winner.architecture),
        "architecture_key": winner.leader["architecture_key"],
        "fitness": winner.leader["fitness"],
        "fitness_version": winner.fitness_version,
        "feasible": winner.leader["feasible"],
    }


def _weights(net: nn.Module, winner: Winner, config: OfaConfig) -> bytes:
    notes = {
        "format": "pt",
        "architecture_key": str(winner.leader["architecture_key"]),
        "resolution": str(config.r),
        "run_digest": winner.run.digest,
        "riwoa": __version__,
    }
    return save({name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}, notes)


def _provenance(winner: Winner, directory: Path) -> dict[str, Any]:
    run = winner.run
    return {
        "schema": SCHEMA,
        "digest": run.digest,
        "run_id": run.run_id,
        "generations": run.generations,
        "found_at": [winner.leader["generation"], winner.leader["slot"]],
        "seed": run.provenance.get("seed"),
        "latency_table_sha256": run.provenance.get("latency_table_sha256"),
        "oracle_version": run.provenance.get("oracle_version"),
        "model": run.provenance.get("model"),
        "adapter": None if winner.adapter is None else winner.adapter.sha256,
        "run": dict(run.provenance),
        "config": dict(winner.config),
        "exported_with": {"riwoa": __version__, **library_versions(_LIBRARIES)},
        "files_sha256": {
            file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(directory.rglob("*"))
            if file.is_file()
        },
    }


# -- the adapter ------------------------------------------------------------------------------------------------------


def _write_adapter(adapter: AdapterRecord, run: RunRecord, directory: Path) -> None:
    """A directory that ``peft.PeftModel.from_pretrained(base, directory)`` loads."""
    from riwoa.cognition.lora import write_peft_directory

    spec = ModelSpec.from_json({"directory": "", **run.provenance["model_spec"]})
    assert adapter.weights is not None, "only whole adapters are exported"
    write_peft_directory(spec, adapter.weights, directory)
    _write(directory / "README.md", _ADAPTER_README.format(name=spec.name, rank=spec.lora_rank).encode())
    flush(directory)


# -- ONNX ------------------------------------------------------------------------------------------------------------


def _why_no_onnx() -> str | None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: {_ONNX_HINT}, then riwoactl export" if missing else None


def _write_onnx(net: nn.Module, images: FloatArray, path: Path) -> None:
    """Trace, write, and check in onnxruntime on two batch sizes.

    The TorchScript exporter, although torch calls it old: on one core it takes 3 s where the new one took 43, prints
    nothing, and this fixed graph needs nothing newer.

    Raises:
        OracleError: the logits differ by more than ``ONNX_TOLERANCE``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.from_numpy(images[:2]),),
            str(path),
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )
    flush(path)
    difference = max(onnx_difference(path, net, images[:n]) for n in (1, len(images)))
    if not difference <= ONNX_TOLERANCE:
        raise OracleError(
            f"onnxruntime and torch differ by {difference:.1e} on the exported model (at most {ONNX_TOLERANCE}); "
            "export with --no-onnx, and report this"
        )


def onnx_difference(path: Path, net: nn.Module, images: FloatArray) -> float:
    """The largest difference of any logit between onnxruntime and torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images})
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    return float(np.abs(found - expected).max())


# -- files -----------------------------------------------------------------------------------------------------------


def made_export(directory: Path) -> list[str] | None:
    """What an export wrote into a directory, by its own list; None where the directory is no export."""
    provenance = json_object(directory / "provenance.json")
    listed = provenance.get("files_sha256")
    return ["provenance.json", *map(str, listed)] if isinstance(listed, dict) and "digest" in provenance else None


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """An empty directory that takes the place of ``out`` once the block has filled it.

    Raises:
        StateDirectoryError, FullDiskError: ``out`` cannot be written.
        UsageError: a file in ``out`` that is not riwoa's is in the way.
    """
    with _writing(out), replacing(out, made_export) as new:
        yield new


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(out, error, "name another with --out") from None


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    flush(path)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def main(arguments: list[str]) -> int:
    """``python -m riwoa.export JOURNAL DIRECTORY``: the daemon's child, which does not outlive it."""
    die_with_parent()
    watch_stdin()
    deny_writing_to_others()
    try:
        export_run(Path(arguments[0]), Path(arguments[1]))
    except (RiwoaError, StorageError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
