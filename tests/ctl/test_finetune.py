import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from riwoa.ctl import main
from riwoa.datasets.image_file import ImageFileTask
from riwoa.oracle.kind import FoundNetwork
from riwoa.oracle.supernet_export import load_exported, right_answers, top_1, winning_net
from riwoa.oracle.supernet_oracle import build_supernet_oracle
from riwoa.supernet.finetuning import BestEpoch
from riwoa.supernet.recipe import Recipe
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import new_supernet, unfinished, write_safetensors
from tests.support.tiny_pictures import CLASSES, SIDE_PX, tiny_file

from .support import environment, individual, write_journal

EPOCHS = 20
FINETUNE = ("--epochs", str(EPOCHS), "--learning-rate", "0.02", "--threads", "1", "--json")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose winner is of an untrained supernet: much is to be learned of colours in seconds."""
    state = tmp_path_factory.mktemp("begun")
    weights = new_supernet(Recipe(width_mult=0.1, n_classes=CLASSES)).state_dict()
    write_safetensors({name: tensor.clone() for name, tensor in weights.items()}, state / "net.safetensors", {})
    spec = SupernetSpec(
        checkpoint=str(state / "net.safetensors"),
        data=str(tiny_file(state / "tiny.npz", train_each=60, judging_each=30)),
        width_mult=0.1,
        n_classes=CLASSES,
        resolutions=(SIDE_PX,),
        recalibration_images=60,
        validation_views=1,
    )
    space = mobilenet_space((SIDE_PX,))
    genes = np.zeros(len(space), dtype=np.int64)
    architecture = space.architecture(genes)
    measured = build_supernet_oracle(spec).evaluate(architecture)["accuracy"]
    winner = individual(0, (space.key(genes), measured, 1.0), architecture)
    write_journal(
        state / "journal.db", [(winner,)], oracle=spec.to_json(), oracle_version="v", latency_table_sha256="t"
    )
    return state


@pytest.fixture(scope="module")
def tuned(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = copy_of(begun, tmp_path_factory.mktemp("tuned") / "state")
    assert main(["finetune", "--state", str(state), *FINETUNE]) == 0
    return state


def copy_of(begun: Path, state: Path) -> Path:
    shutil.copytree(begun, state)
    return state


def described(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "export" / "architecture.json").read_text())
    return found


def test_the_exported_files_hold_the_weights_that_gained_on_pictures_that_chose_nothing(tuned: Path) -> None:
    description = described(tuned)
    told = description["finetuned"]
    assert told["epochs"] == EPOCHS
    assert len(told["validation_by_epoch"]) == EPOCHS + 1
    assert told["validation"]["after"]["accuracy"] == max(told["validation_by_epoch"])
    assert (told["test"]["pictures"], told["test"]["before"]["images"]) == (90, 90)
    assert told["test"]["gain"]["value"] > 0.2
    assert told["test"]["gain"]["p"] < 0.001
    assert description["exported"]["test"]["correct"] == told["test"]["after"]["correct"]
    net, resolution = load_exported(tuned / "export")
    views = ImageFileTask.open(tuned / "tiny.npz").views("test", resolution)
    assert top_1(right_answers(net, *views)) == told["test"]["after"]
    assert description["journaled"]["metrics"]["accuracy"] == told["validation"]["before"]["accuracy"]


def test_an_export_on_request_has_the_weights_that_were_found(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--state", str(tuned), "--out", str(tmp_path / "out"), "--no-onnx", "--json"]
    told = described(tuned)["finetuned"]
    assert main([*arguments, "--inherited"]) == 0
    plain = json.loads(capsys.readouterr().out)["architecture"]
    assert "finetuned" not in plain
    assert plain["exported"]["test"] == told["test"]["before"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["architecture"]["exported"]["test"] == told["test"]["after"]


def test_it_is_done_once_and_again_only_on_request(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tuned / "finetuned.safetensors"
    written = weights.read_bytes()
    assert main(["finetune", "--state", str(tuned), "--no-export"]) == 0
    said = capsys.readouterr().out
    assert "it was done before; --again begins anew" in said
    assert "points on 90 pictures (p = " in said
    assert main(["finetune", "--state", str(tuned), "--no-export", "--again", *FINETUNE]) == 0
    assert weights.read_bytes() == written  # same seed, same bytes


def test_a_killed_one_ends_in_the_same_bytes(begun: Path, tuned: Path, tmp_path: Path) -> None:
    state = copy_of(begun, tmp_path / "killed")
    command = [sys.executable, "-m", "riwoa.ctl", "finetune", "--state", str(state), "--no-export", *FINETUNE]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 60
    while not unfinished(state / "finetuned.safetensors").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (state / "finetuned.safetensors").exists()
    done = 0 < torch.load(unfinished(state / "finetuned.safetensors"), weights_only=True)["step"] < 5 * EPOCHS
    assert done, "it was to be killed half way"
    assert main(["finetune", "--state", str(state), "--no-export", *FINETUNE]) == 0
    assert (state / "finetuned.safetensors").read_bytes() == (tuned / "finetuned.safetensors").read_bytes()


def test_another_winner_is_exported_with_its_own_weights(
    begun: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = copy_of(begun, tmp_path / "other")
    weights = (tuned / "finetuned.safetensors").read_bytes()
    (state / "finetuned.safetensors").write_bytes(weights.replace(b'"oracle_version":"v"', b'"oracle_version":"w"'))
    assert main(["export", "--state", str(state), "--no-onnx", "--json"]) == 0
    assert "finetuned" not in json.loads(capsys.readouterr().out)["architecture"]


def test_a_training_that_does_harm_changes_nothing(tuned: Path) -> None:
    found = described(tuned)
    spec = SupernetSpec.from_json(json.loads((tuned / "export" / "provenance.json").read_text())["run"]["oracle"])
    network = FoundNetwork(spec.to_json(), found["architecture"], found["journaled"]["metrics"], {})
    task = ImageFileTask.open(tuned / "tiny.npz")
    net = winning_net(spec, ofa_config(network.architecture), task)
    best = BestEpoch(task.views("validation", SIDE_PX), task.recalibration(SIDE_PX, 60), 2)
    begin = {name: tensor.detach().clone() for name, tensor in net.named_parameters()}
    rigged = {**begin, "classifier.linear.bias": torch.tensor([0.0, 0.0, 100.0])}
    worse = {**begin, "classifier.linear.bias": torch.full((CLASSES,), torch.nan)}  # argmax of nothing: class 0
    for weights in (begin, rigged, worse):
        best.look(net, weights)
    assert best.accuracies[1:] == [1 / CLASSES, 1 / CLASSES]
    assert best.epoch == 0 if best.accuracies[0] >= 1 / CLASSES else 1
    kept = best.kept(worse)
    assert torch.equal(kept["classifier.linear.bias"], (begin, rigged)[best.epoch]["classifier.linear.bias"])


def test_what_cannot_be_fine_tuned_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--state", str(tmp_path / "nowhere")]) != 0
    write_journal(
        tmp_path / "journal.db", [(individual(0, ("k", 0.5, 1.0)),)], oracle={"kind": "table"}, oracle_version="v"
    )
    capsys.readouterr()
    assert main(["finetune", "--state", str(tmp_path)]) == 66
    assert "a table holds no networks" in capsys.readouterr().err
    assert main(["finetune", "--state", str(tmp_path), "--epochs", "0"]) == 64
