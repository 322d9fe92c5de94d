import json
from pathlib import Path

import pytest

from riwoa.ctl import main
from tests.support.tiny_pictures import CLASSES, TINY_TRAINING, tiny_file

CONFIG = """\
[oracle.supernet]
data = "tiny.npz"
checkpoint = "trained"

[train]
start = "scratch"
width = 0.1
resolutions = [12]
epochs = 1
threads = 1
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIWOA_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("RIWOA_CONFIG", raising=False)
    tiny_file(tmp_path / "tiny.npz")
    (tmp_path / "riwoa.toml").write_text(CONFIG)
    return tmp_path


def test_train_reads_the_configuration_that_lies_here_and_tells_what_its_subnets_reach(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["supernet"] == str(place / "state" / "supernet.safetensors")
    assert (data["n_classes"], data["resolutions"], data["steps"]) == (CLASSES, [12], 2)
    assert {"loss_largest", "accuracy", "lead", "lead_standard_errors"} <= data.keys()
    written = (place / "state" / "supernet.safetensors").read_bytes()
    assert main(["train"]) == 0
    assert "was there already" in capsys.readouterr().out
    assert main(["train", "--set", "oracle.supernet.n_classes=4"]) == 66  # the file knows better
    assert "n_classes = 3, and 4 is configured" in capsys.readouterr().err
    tiny_file(place / "tiny.npz", judging_each=11)
    assert main(["train"]) == 66
    assert "was trained on other pictures" in capsys.readouterr().err
    tiny_file(place / "tiny.npz")
    assert main(["train", "--again"]) == 0
    assert (place / "state" / "supernet.safetensors").read_bytes() == written  # same seed, same bytes
    assert (place / "state" / "supernet.previous.safetensors").read_bytes() == written


def test_without_pictures_to_train_on_it_says_what_to_write(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "riwoa.toml").write_text("")
    assert main(["train"]) == 64
    assert "riwoactl init FOLDER" in capsys.readouterr().err


def test_a_check_of_the_configuration_knows_what_a_training_would_refuse(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "riwoa.toml"]) == 0
    (place / "riwoa.toml").write_text(CONFIG.replace('"scratch"', '"ofa_mbv3_d234_e346_k357_w1.0"'))
    assert main(["config", "check", "riwoa.toml"]) == 78
    (place / "riwoa.toml").write_text(CONFIG.replace("tiny.npz", "gone.npz"))
    assert main(["config", "check", "riwoa.toml"]) == 78
    assert "gone.npz" in capsys.readouterr().err


def test_what_the_pictures_know_need_not_be_typed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [argument for setting in TINY_TRAINING for argument in ("--set", setting)]
    assert main(["config", "show", "--set", "oracle.supernet.data=tiny.npz", *settings, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    supernet = shown["config"]["oracle"]["supernet"]
    assert (supernet["n_classes"], supernet["width_mult"], supernet["resolutions"]) == (CLASSES, 0.1, [12])
    assert shown["origin"]["oracle.supernet.n_classes"] == "checkpoint or data"
    assert shown["origin"]["oracle.supernet.dtype"] == "default"
