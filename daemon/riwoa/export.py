"""The files of a run's winner, or of another of its networks; which, its kind of oracle says (``OracleKind.export``).

``architecture.json`` and ``provenance.json`` are there always. Where the run's language model learned, ``adapter/``
holds its LoRA weights too, as PEFT loads them. A run on a table or a predictor has no network, and writes no model.

The directory is written whole beside its place, flushed to the disk and renamed into it: whoever looks sees the old
export or the new one, and the files of their own that they keep there in both. (Linux renames no directory over a full
one, so the old one steps aside first; a power cut in between leaves neither in place, and exporting again brings both
back: the export comes from the journal, the other files from where the old one stepped.)
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from riwoa import __version__
from riwoa.cognition.protocol import ModelSpec
from riwoa.config.renamed import new_name
from riwoa.errors import InputError, RiwoaError
from riwoa.files.ownership import deny_writing_to_others, json_object, output_directory, unwritable
from riwoa.files.staging import finish_left, replacing
from riwoa.hardware.interval import interval_of, measured_in, plus_minus
from riwoa.hardware.probe import library_versions
from riwoa.hardware.runtime import FLOAT32
from riwoa.hardware.timed import Finalists, TimedNetwork, read_finalists
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.oracle.kind import ExportForm, FoundNetwork, OracleKind
from riwoa.oracle.kinds import kind_named
from riwoa.paths import StatePaths
from riwoa.plugins import Named
from riwoa_storage.durable import flush
from riwoa_storage.errors import StorageError
from riwoa_storage.events import AdapterUnusable, NetworkJudged, RunResumed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, Json, RunRecord

Place = tuple[int, int]  # (generation, slot)

SCHEMA = 1
WHOLE = ExportForm()
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
_OF_TEST = ("accuracy", "accuracy_error", "pictures", "views")
_LIBRARIES = ("torch", "ofa", "numpy", "safetensors", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Winner:
    """What a run found, as journaled: its leader (within the target as soon as one is), and all it depends on.

    Of another network that is asked for, ``leader`` holds the same.
    """

    run: RunRecord
    leader: Json
    config: Json
    fitness_version: str
    evaluations: int = 0  # of the whole run, in full
    adapter: AdapterRecord | None = None  # in force at the end, whole
    restarted: Json = field(default_factory=dict)  # keys that a start changed in the run, as it saw them last
    judged: NetworkJudged | None = None  # on pictures that chose nothing
    finalists: Finalists | None = None  # what the clock said

    @property
    def architecture(self) -> Json:
        """The leader's canonical architecture."""
        found: Json = self.leader["architecture"]
        return found

    @property
    def timed(self) -> TimedNetwork | None:
        """The leader by the clock; None where nobody asked it, or it was unsteady."""
        return None if self.finalists is None else self.finalists.of(str(self.leader["architecture_key"]))


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; ``onnx`` is None, or why there is no model.onnx."""

    directory: Path
    architecture: Json
    provenance: Json
    onnx_left_out: str | None


def read_winner(journal: Path, run_id: int | None = None, place: Place | None = None) -> Winner:
    """The winner of a run (the latest), or the individual at another place.

    That is the leader of its last committed generation, or the network that took its place by the clock.

    Raises:
        InputError: no run was begun, no evaluation succeeded in it, or none at this place.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        run = reader.run(run_id) if run_id is not None else reader.latest_run()
        if run is None:
            raise InputError(f"{journal} holds no run yet; start riwoad (or make run) first")
        last = reader.last_generation(run.run_id)
        if last is None or last.leader is None:
            raise InputError(f"run {run.run_id} has no leader yet: no evaluation succeeded; let it run on")
        finalists = read_finalists(reader, run.run_id)
        leader = last.leader if finalists is None or finalists.leader is None else finalists.leader
        found = leader if place is None else _individual(reader, run.run_id, place, leader)
        revisions = reader.config_revisions(run.run_id)
        adapters = reader.adapters(run.run_id)
        judged = [event for event in reader.events(run.run_id, NetworkJudged) if event.error is None]
        restarts = [event.restarted for event in reader.events(run.run_id, RunResumed)]
        refused = {event.sha256 for event in reader.events(run.run_id, AdapterUnusable) if event.refused}
        searched = [s.generation for s in reader.generation_summaries(run.run_id) if s.phase == "search"]
    restarted = {key: value for changed in restarts for key, value in changed.items()}
    config = revisions[-1].config if revisions else {}
    learned = run.provenance.get("model_spec") is not None  # a script in a model's place learns nothing real
    usable = [adapter for adapter in adapters if adapter.sha256 not in refused]
    adapter = _in_force(usable, max(searched, default=0)) if learned else None
    evaluations = int(last.counters.get("evaluations", 0))
    on_test = next((event for event in judged if event.architecture_key == found["architecture_key"]), None)
    version = last.individuals[0].fitness_version
    return Winner(run, found, config, version, evaluations, adapter, restarted, on_test, finalists)


def _individual(reader: JournalReader, run_id: int, place: Place, leader: Json) -> Json:
    """An individual in the form of a leader.

    Raises:
        InputError: there is none, or it was not evaluated in full.
    """
    found = reader.individual(run_id, *place)
    if found is None or found.status != "ok":
        why = "there is none" if found is None else f"its evaluation was {found.status}"
        raise InputError(
            f"run {run_id}, {place[0]}/{place[1]}: {why}; riwoactl pareto lists networks with their places"
        )
    target_ms = leader.get("target_ms")
    return {
        "generation": place[0],
        "slot": place[1],
        "fitness": found.fitness,
        "feasible": target_ms is None or found.metrics["latency_ms"] <= target_ms,
        "target_ms": target_ms,
        "metrics": dict(found.metrics),
        "architecture": dict(found.architecture),
        "architecture_key": found.architecture_key,
    }


def _in_force(adapters: Sequence[AdapterRecord], generation: int) -> AdapterRecord | None:
    """The newest accepted adapter whose bytes are there and whole, as a resumed search would take it.

    ``generation``: the last of the search; an adapter that was due later wrote nothing.
    """
    for row in reversed(adapters):
        whole = row.weights is not None and hashlib.sha256(row.weights).hexdigest() == row.sha256
        if whole and row.status != "rejected" and row.generation <= generation:
            return row
    return None


def export_run(
    journal: Path,
    out: Path,
    run_id: int | None = None,
    *,
    form: ExportForm = WHOLE,
    place: Place | None = None,
    inherited: bool = False,
) -> Exported:
    """Write the winner of a run (the latest) into ``out``, replacing an older export there.

    Args:
        journal: of the run.
        out: a directory, which is made.
        run_id: another run than the latest.
        form: how the network is asked for.
        place: of another individual than the winner.
        inherited: with the weights that the network was found with, also where it was fine-tuned.

    Raises:
        InputError: nothing to export, or the checkpoint is missing.
        UsageError: ``out`` holds something else.
        StateDirectoryError, FullDiskError: ``out`` cannot be written.
        OracleError: onnxruntime and torch disagree on the model.
        StorageError: the journal cannot be read.
    """
    winner = read_winner(journal, run_id, place)
    oracle, found = found_network(winner, journal)
    finetuned = StatePaths(journal.absolute().parent).finetuned
    if not inherited and oracle.value.finetuning_told(found, finetuned) is not None:
        found = replace(found, finetuned=finetuned)
    with _writing(out):
        finish_left(Path(os.path.realpath(out)), made_export)
    out = output_directory(out, lambda directory: made_export(directory) is not None)
    with oracle.blamed("export the winner"):
        files = oracle.value.export(found, form)
    description = {"schema": SCHEMA, **_found(winner), **files.description}
    with _replacing(out) as temporary:
        with oracle.blamed("write the winner's files"):
            files.write(temporary)
        provenance = _write_descriptions(winner, description, temporary)
    return Exported(out, description, provenance, files.onnx_left_out)


def found_network(winner: Winner, journal: Path) -> tuple[Named[OracleKind], FoundNetwork]:
    """The winner as its kind of oracle takes it, and that kind; its files where they lie now.

    Raises:
        ConfigError: the kind was another package's, and is gone.
    """
    begun_with = dict(winner.run.provenance.get("oracle", {}))
    oracle = kind_named(str(begun_with.get("kind")))
    with oracle.blamed("find its files"):
        spec = oracle.value.moved(begun_with, _changed_settings(winner), journal.absolute().parent)
    return oracle, _found_network(winner, spec, StatePaths(journal.absolute().parent).latency_table)


def _changed_settings(winner: Winner) -> Json:
    """Settings of the run's kind of oracle that a later start changed, by their names of today."""
    kind = winner.run.provenance.get("oracle", {}).get("kind")
    now = {new_name(key, kind): value for key, value in winner.restarted.items()}
    own = f"oracle.{kind}."
    return {key.removeprefix(own): value for key, value in now.items() if key.startswith(own)}


def _found_network(winner: Winner, spec: Json, latency_table: Path) -> FoundNetwork:
    """``latency_table``: where the run's lies, if it is still there."""
    notes = {
        "architecture_key": str(winner.leader["architecture_key"]),
        "resolution": str(winner.architecture.get("resolution")),
        "run_digest": winner.run.digest,
        "oracle_version": str(winner.run.provenance.get("oracle_version")),
        "riwoa": __version__,
    }
    metrics = winner.leader["metrics"]
    if metrics.get("latency_ms"):
        used = latency_table, winner.run.provenance.get("latency_table_sha256")
        notes["latency_ms"] = f"{metrics['latency_ms']:.3f}"
        notes["latency_of"] = f"by its device's latency table{measured_in(*used)}"
        if (interval := interval_of(*used)) is not None:
            notes["latency_interval"] = plus_minus(interval).strip()
    if winner.timed is not None and winner.finalists is not None:
        timed = winner.timed
        notes["latency_measured_ms"] = f"{timed.ms:.3f}"
        notes["latency_measured_between"] = f"{timed.low_ms:.3f} and {timed.high_ms:.3f}"
        notes["latency_measured_in"] = winner.finalists.runtime
        notes["latency_measured_sha256"] = timed.sha256
    if winner.evaluations:
        notes["tries"] = str(winner.evaluations)
    precision = str(winner.config.get("latency", {}).get("precision", FLOAT32))
    return FoundNetwork(spec, winner.architecture, metrics, notes, precision=precision)


def _write_descriptions(winner: Winner, description: Json, directory: Path) -> Json:
    """architecture.json, adapter/ where the language model learned, provenance.json; the last one's content."""
    _write_json(directory / "architecture.json", description)
    if winner.adapter is not None:
        _write_adapter(winner.adapter, winner.run, directory / "adapter")
    provenance = _provenance(winner, directory)
    _write_json(directory / "provenance.json", provenance)
    return provenance


def _found(winner: Winner) -> dict[str, Any]:
    """What architecture.json says of any winner."""
    return {
        "architecture": dict(winner.architecture),
        "architecture_key": winner.leader["architecture_key"],
        "fitness": winner.leader["fitness"],
        "fitness_version": winner.fitness_version,
        "feasible": winner.leader["feasible"],
        "tries": winner.evaluations,  # of the run: its winner's validation accuracy is the best of these
        "timed": None
        if winner.timed is None or winner.finalists is None
        else {**winner.timed.to_json(), "runtime": winner.finalists.runtime},
        "test": None if winner.judged is None else {name: getattr(winner.judged, name) for name in _OF_TEST},
    }


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
    """``python -m riwoa.export JOURNAL DIRECTORY [GENERATION/SLOT]``: the daemon's child, which does not outlive it."""
    die_with_parent()
    watch_stdin()
    deny_writing_to_others()
    try:
        generation, _, slot = arguments[2].partition("/") if len(arguments) > 2 else ("", "", "")
        place = (int(generation), int(slot)) if slot else None
        export_run(Path(arguments[0]), Path(arguments[1]), place=place)
    except (RiwoaError, StorageError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
