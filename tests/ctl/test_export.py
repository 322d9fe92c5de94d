import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from riwoa.cognition.lora import Lora
from riwoa.cognition.protocol import ModelSpec
from riwoa.ctl import main
from riwoa.datasets.digits import load_digits_task
from riwoa.errors import InputError
from riwoa.export import export_run, read_winner
from riwoa.oracle.answers import pack_answers
from riwoa.oracle.kind import ExportForm
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.onnx_files import Session
from riwoa.oracle.supernet_export import load_exported, right_answers, top_1
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import build_network
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import write_safetensors
from riwoa_storage.events import AdapterUnusable, NetworkJudged
from riwoa_storage.records import AdapterRecord, AdapterStatus, Phase
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import reseal

from .support import generation, individual, write_journal

_VIEWS = 1
WITHOUT_ONNX = {*("README.md", "architecture.json", "labels.txt", "model.py", "model.safetensors", "preprocess.json")}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a run whose leader was measured by the real oracle, in float32."""
    state = tmp_path_factory.mktemp("state")
    weights = {k: v.contiguous() for k, v in build_network(Backbone(0.25, 10)).state_dict().items()}
    write_safetensors(weights, state / "net.safetensors", {})
    spec = SupernetSpec(
        checkpoint=str(state / "net.safetensors"), recalibration_images=100, validation_views=_VIEWS
    ).to_json()
    space = mobilenet_space((24, 32, 40))
    genes = np.random.default_rng(0).integers(0, 3, len(space))
    architecture = space.architecture(genes)
    measured = build_oracle(spec).evaluate(architecture)["accuracy"]
    leader = individual(0, (space.key(genes), measured, 1.0), architecture)
    write_journal(state / "journal.db", [(leader,)], oracle=spec, oracle_version="v", latency_table_sha256="t")
    return state


@pytest.fixture(scope="module")
def exported(state: Path) -> Path:
    assert main(["export", "--state", str(state), "--json"]) == 0
    return state / "export"


def described(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "architecture.json").read_text())
    return found


def test_the_model_loaded_from_its_files_gives_the_journaled_accuracy_to_one_image(
    exported: Path, state: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("architecture.json", "model.safetensors"):
        (elsewhere / name).write_bytes((exported / name).read_bytes())
    net, resolution = load_exported(elsewhere)
    measured = top_1(right_answers(net, *load_digits_task().views("validation", resolution, _VIEWS)))
    journaled = read_winner(state / "journal.db").leader["metrics"]["accuracy"]
    assert abs(measured["accuracy"] - journaled) * measured["images"] <= 1
    assert described(exported)["exported"]["validation"] == measured
    assert described(exported)["journaled"]["metrics"]["accuracy"] == journaled


def test_the_test_split_is_measured_too(exported: Path) -> None:
    found = described(exported)["exported"]["test"]
    assert found["images"] == 400 * _VIEWS
    assert found["accuracy"] == found["correct"] / found["images"]


def test_the_onnx_model_agrees_with_torch_at_any_batch_size(exported: Path) -> None:
    net, resolution = load_exported(exported)
    images = load_digits_task().views("validation", resolution, 1)[0]
    session = Session((exported / "model.onnx").read_bytes())
    for n in (1, 5):
        with torch.inference_mode():
            expected = net(torch.from_numpy(images[:n])).numpy()
        assert np.abs(session.run(images[:n]) - expected).max() <= 1e-4


def test_provenance_names_what_the_result_depends_on(exported: Path, state: Path) -> None:
    provenance = json.loads((exported / "provenance.json").read_text())
    run = read_winner(state / "journal.db").run
    assert (provenance["digest"], provenance["seed"], provenance["latency_table_sha256"]) == (run.digest, 0, "t")
    assert {"torch", "ofa", "numpy", "onnx", "riwoa"} <= set(provenance["exported_with"])
    hashes = {f: hashlib.sha256((exported / f).read_bytes()).hexdigest() for f in provenance["files_sha256"]}
    assert provenance["files_sha256"] == hashes
    assert set(hashes) == {*WITHOUT_ONNX, "model.onnx"}


def journal_adapters(path: Path, weights: Sequence[tuple[bytes, AdapterStatus, bytes | None]]) -> None:
    """Adapters of run 1 in order: (weights as named by their hash, status, bytes as stored)."""

    async def write() -> None:
        async with await JournalWriter.open(path) as journal:
            for named, status, stored in weights:
                row = AdapterRecord(
                    adapter_id=0, run_id=1, generation=0, parent_id=None, sha256=hashlib.sha256(named).hexdigest(),
                    weights=named, status=status, training={},
                )  # fmt: skip
                await journal.put_adapter(row)
                if stored != named:
                    with sqlite3.connect(path) as db:
                        db.execute("UPDATE adapters SET weights = ? WHERE sha256 = ?", (stored, row.sha256))

    asyncio.run(write())


def test_an_adapter_that_was_due_after_the_search_wrote_nothing_and_is_not_exported(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    rows = [(individual(slot, (f"k{slot}", 0.5, 1.0), {"a": slot}),) for slot in range(2)]

    async def write() -> None:
        async with await JournalWriter.open(journal) as writer:
            run_id = await writer.begin_run({"seed": 0, "model_spec": {"name": "any"}}, {})
            phases: tuple[Phase, ...] = ("search", "polish")
            for number, phase in enumerate(phases):
                await writer.commit_generation(replace(generation(run_id, number, rows[number]), phase=phase))
                await writer.put_adapter(
                    AdapterRecord(
                        adapter_id=0,
                        run_id=run_id,
                        generation=number,
                        parent_id=None,
                        weights=phase.encode(),
                        sha256=hashlib.sha256(phase.encode()).hexdigest(),
                        status="current",
                        training={},
                    )
                )

    asyncio.run(write())
    adapter = read_winner(journal).adapter
    assert adapter is not None
    assert adapter.weights == b"search"
    event = AdapterUnusable(run_id=1, sha256=adapter.sha256, reason="refused by the model", refused=True)

    async def refuse() -> None:
        async with await JournalWriter.open(journal) as writer:
            await writer.put_event(event)

    asyncio.run(refuse())
    assert read_winner(journal).adapter is None  # as a resumed search would leave it out


def learned_weights(model: ModelSpec, scale: float, file: Path) -> bytes:
    """A LoRA adapter that changes what the model says."""
    base = AutoModelForCausalLM.from_pretrained(model.directory, dtype=torch.float32)
    lora = Lora(base, model)
    lora.set({name: torch.full_like(tensor, scale) for name, tensor in lora.state().items()})
    lora.save(file)
    return file.read_bytes()


def test_the_adapter_in_force_is_exported_as_peft_loads_it(
    state: Path, tmp_path: Path, tiny_llama: ModelSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal.db"
    run = read_winner(state / "journal.db").run
    leader = read_winner(state / "journal.db").leader
    individuals = (individual(0, (leader["architecture_key"], 0.5, 1.0), leader["architecture"]),)
    write_journal(
        journal, [individuals], oracle=run.provenance["oracle"], model=tiny_llama.name, model_spec=tiny_llama.to_json()
    )
    older, newest, rejected = (learned_weights(tiny_llama, s, tmp_path / f"{s}.safetensors") for s in (0.3, 0.2, 0.1))
    # The newest one is damaged in the journal: a search would go back to the one before, and so does its export.
    journal_adapters(
        journal, [(older, "current", older), (newest, "current", newest[:-1]), (rejected, "rejected", rejected)]
    )
    assert main(["export", "--state", str(tmp_path), "--no-onnx", "--json"]) == 0
    assert "adapter/adapter_model.safetensors" in json.loads(capsys.readouterr().out)["files"]
    adapter = tmp_path / "export" / "adapter"
    assert (adapter / "adapter_model.safetensors").read_bytes() == older
    assert tiny_llama.name in (adapter / "README.md").read_text()
    tokens = torch.arange(3, 40)[None]
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_llama.directory, dtype=torch.float32)
    with torch.inference_mode():
        plain = base(tokens).logits
        loaded = PeftModel.from_pretrained(base, str(adapter))(tokens).logits
    own = Lora(AutoModelForCausalLM.from_pretrained(tiny_llama.directory, dtype=torch.float32), tiny_llama)
    own.use(tmp_path / "0.3.safetensors")
    with torch.inference_mode():
        used = own.model(tokens).logits
    assert torch.allclose(loaded, used, atol=1e-5)
    assert not torch.allclose(loaded, plain, atol=1e-3)


def test_an_export_replaces_the_one_before_whole(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "provenance.json").write_text(json.dumps({"digest": "d", "files_sha256": {"left over": "h"}}))
    (out / "left over").write_text("")
    done = export_run(state / "journal.db", out, form=ExportForm(onnx=False))
    assert {f.name for f in out.iterdir()} == {*WITHOUT_ONNX, "provenance.json"}
    assert done.onnx_left_out == "not asked for"
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_holds_something_else_is_left_alone(state: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["export", "--state", str(state), "--out", str(tmp_path)]) == 64
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failure_leaves_the_old_export_in_place(exported: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (exported / "provenance.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("riwoa.export._write_json", full)
    assert main(["export", "--state", str(state), "--no-onnx"]) == 74
    assert (exported / "provenance.json").read_bytes() == before
    assert not [path.name for path in exported.parent.iterdir() if path.name.startswith(".export")]


@pytest.mark.parametrize("damaged", ["architecture.json", "model.safetensors"])
def test_a_truncated_file_is_refused_by_name_of_the_directory(exported: Path, tmp_path: Path, damaged: str) -> None:
    for name in ("architecture.json", "model.safetensors"):
        data = (exported / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2] if name == damaged else data)
    with pytest.raises(InputError, match="holds no intact export"):
        load_exported(tmp_path)


@pytest.mark.parametrize(
    ("generations", "oracle", "hint"),
    [
        ([], {"kind": "supernet"}, "has no leader yet"),
        ([(individual(0, ("a", float("nan"), 1.0)),)], {"kind": "supernet"}, "has no leader yet"),
        ([(individual(0, ("a", 0.5, 1.0)),)], {"kind": "module"}, "has no weights"),
    ],
)
def test_nothing_to_export_is_said_in_one_line(
    generations: list[Any], oracle: dict[str, str], hint: str, tmp_path: Path
) -> None:
    write_journal(tmp_path / "journal.db", generations, oracle=oracle)
    with pytest.raises(InputError, match=hint):
        export_run(tmp_path / "journal.db", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_exits_66(tmp_path: Path) -> None:
    spec = SupernetSpec(checkpoint=str(tmp_path / "gone.safetensors")).to_json()
    space = mobilenet_space((24, 32, 40))
    genes = np.zeros(len(space), dtype=np.int64)
    leader = individual(0, (space.key(genes), 0.5, 1.0), space.architecture(genes))
    write_journal(tmp_path / "journal.db", [(leader,)], oracle=spec)
    assert main(["export", "--state", str(tmp_path)]) == 66


def test_a_run_on_own_images_is_exported_with_them_and_without_a_test_split_that_is_not_there(
    state: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3), np.uint8)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "own.npz", train_images=images, validation_images=images[:40], validation_labels=labels)
    spec = SupernetSpec(
        checkpoint=str(state / "net.safetensors"),
        data=str(tmp_path / "own.npz"),
        resolutions=(24,),
        recalibration_images=50,
    ).to_json()
    space = mobilenet_space((24,))
    genes = np.zeros(len(space), dtype=np.int64)
    measured = build_oracle(spec).evaluate(space.architecture(genes))["accuracy"]
    leader = individual(0, (space.key(genes), measured, 1.0), space.architecture(genes))
    write_journal(tmp_path / "journal.db", [(leader,)], oracle=spec)
    found = export_run(tmp_path / "journal.db", tmp_path / "out", form=ExportForm(onnx=False)).architecture
    assert list(found["exported"]) == ["validation"]
    assert found["exported"]["validation"]["images"] == 40
    assert abs(found["exported"]["validation"]["accuracy"] - measured) * 40 <= 1
    assert found["input"]["mean"] == [0.485, 0.456, 0.406]

    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    assert main(["export", "--state", str(tmp_path), "--out", str(tmp_path / "out")]) == 66
    with sqlite3.connect(tmp_path / "journal.db") as db:  # as a start with the new place journals it
        payload = json.dumps({"restarted": {"oracle.supernet.data": str(tmp_path / "moved.npz")}})
        columns = "run_id, kind, payload, created_unix_s"
        db.execute(f"INSERT INTO events ({columns}, checksum) VALUES (1, 'resumed', ?, 0.0, 0)", (payload,))
    reseal(tmp_path / "journal.db")
    again = export_run(tmp_path / "journal.db", tmp_path / "out", form=ExportForm(onnx=False)).architecture
    assert again["exported"] == found["exported"]


def test_the_fastest_network_that_cannot_be_told_from_the_winner_is_exported_if_preferred(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [individual(i, at, {"a": i}) for i, at in enumerate((("best", 0.9, 1.5), ("quick", 0.8, 1.0)))]
    write_journal(tmp_path / "journal.db", [tuple(rows)], oracle={"kind": "table", "settings": {}})
    asked = ["export", "--state", str(tmp_path), "--prefer", "fastest-equal"]
    assert main(asked) == 66
    assert "has judged no network on test pictures" in capsys.readouterr().err
    assert main([*asked, "--arch", "1"]) == 64
    capsys.readouterr()

    async def judge() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            for key, right in (("best", 40), ("quick", 38)):
                answers = pack_answers(np.arange(50) < right)
                event = NetworkJudged(run_id=1, architecture_key=key, accuracy=right / 50, pictures=50, correct=answers)
                await journal.put_event(replace(event, accuracy_error=0.06))

    asyncio.run(judge())
    assert main(asked) == 0
    assert "76.00 % ± 6.00 on 50 pictures that chose nothing" in capsys.readouterr().out
    found = described(tmp_path / "export-0-1")
    assert (found["architecture"], found["test"]["accuracy"]) == ({"a": 1}, 0.76)
    assert main(["export", "--state", str(tmp_path), "--within", "1.2ms", "--out", str(tmp_path / "within")]) == 0
    assert described(tmp_path / "within") == found
    assert main([*asked, "--within", "1.2ms"]) == 64
