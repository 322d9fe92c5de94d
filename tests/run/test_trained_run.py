"""A run on pictures without a supernet: it trains one first; killed then or later, it ends in the same digest."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from riwoa.errors import InputError
from riwoa.oracle.supernet_oracle import build_supernet_oracle
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.published import sha256_of
from riwoa.supernet.recipe import Recipe
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import new_supernet, unfinished, write_safetensors
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.bench.support import a_table
from tests.service.test_service import ctl, daemon, run, status, wait_for
from tests.support.tiny_pictures import CLASSES, SIDE_PX, TINY_TRAINING, tiny_file

SEARCH = (
    "oracle.workers=1",
    "run.finalists=0",
    "run.generations=2",
    "run.polish_evaluations=2",
    "search.population=4",
    "cognition.provider=none",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_file(tmp_path_factory.mktemp("pictures") / "tiny.npz")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "latency_lut.json"
    a_table(Backbone(0.1, CLASSES), (SIDE_PX,)).save(path)
    return path


def state_with(table: Path, place: Path) -> Path:
    place.mkdir()
    shutil.copy(table, place / "latency_lut.json")
    return place


def provenance(state: Path) -> dict[str, Any]:
    with JournalReader(state / "journal.db") as reader:
        found = reader.latest_run()
    assert found is not None
    return dict(found.provenance)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("one_core")
def test_it_trains_first_and_a_kill_meanwhile_changes_no_digest(pictures: Path, table: Path, tmp_path: Path) -> None:
    settings = (f"oracle.supernet.data={pictures}", *TINY_TRAINING, *SEARCH, "train.epochs=12", "run.finetune_epochs=2")
    whole, state = (state_with(table, tmp_path / name) for name in ("whole", "state"))
    done = run(whole, "--foreground", settings=settings)
    assert done.returncode == 0, done.stderr
    told = provenance(whole)
    assert told["oracle"]["checkpoint"] == "trained"
    assert told["oracle"]["checkpoint_sha256"] == sha256_of(whole / "supernet.safetensors")
    assert (told["oracle"]["n_classes"], told["oracle"]["resolutions"]) == (CLASSES, [SIDE_PX])  # nobody typed them

    with daemon(state, settings=settings) as process:
        begun = unfinished(state / "supernet.safetensors")
        seen = wait_for(state, lambda s: s["state"] == "training" and begun.exists())
        assert seen["message"].startswith("training the supernet")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (state / "supernet.safetensors").exists()
    assert run(state, settings=settings).returncode == 0
    found = compare(whole / "journal.db", state / "journal.db")  # the digest knows no place
    assert found.same, found.message
    exported = json.loads((state / "export" / "architecture.json").read_text())
    assert exported["exported"]["validation"]["images"] == 30
    assert exported["finetuned"]["epochs"] == 2  # the winner was trained on, and exported anew
    assert "fine-tuned   " in done.stdout
    assert (state / "finetuned.safetensors").read_bytes() == (whole / "finetuned.safetensors").read_bytes()

    # The state may be moved, and another classes' supernet is not taken for one's own.
    moved = state.rename(tmp_path / "moved")
    assert ctl(moved, "export").returncode == 0
    doubts = status(moved).get("warnings") or []
    assert all("too poor" in doubt for doubt in doubts)


def test_pictures_that_changed_since_the_training_are_refused(pictures: Path, tmp_path: Path) -> None:
    net = new_supernet(Recipe(width_mult=0.1, n_classes=CLASSES))
    weights = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    write_safetensors(weights, tmp_path / "net.safetensors", {})
    spec = SupernetSpec(
        checkpoint=str(tmp_path / "net.safetensors"),
        data=str(pictures),
        width_mult=0.1,
        n_classes=CLASSES,
        resolutions=(SIDE_PX,),
        data_rules=2,
        trained_on="0" * 64,
    )
    with pytest.raises(InputError, match=r"trained on other pictures.*riwoactl train --again"):
        build_supernet_oracle(spec)
