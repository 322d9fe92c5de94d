import json
from pathlib import Path

import pytest

from riwoa.ctl import main
from riwoa.supernet.recipe import read_recipe
from tests.folders import make_photos
from tests.support.cifar_files import small_archive
from tests.support.picture_files import picture_folder


def test_train_writes_a_checkpoint_that_check_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    assert main(["supernet", "train", "digits", "--steps", "1", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"checkpoint": str(out), "steps": 1, "seed": 0}
    assert main(["supernet", "check", "--checkpoint", str(out), "--random", "1", "--views", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["accuracy"]) == {"largest", "median_random", "smallest"}
    assert all(set(row) == {"validation", "test", "clean"} for row in data["accuracy"].values())
    assert data["lead"] == data["accuracy"]["largest"]["validation"] - data["random"][0]["validation"]


def test_a_supernet_of_ones_own_pictures_is_trained_checked_and_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_archive(tmp_path)
    monkeypatch.setenv("RIWOA_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    small = ["--width", "0.1", "--resolutions", "8,12", "--batch", "300", "--random", "0"]
    assert main(["supernet", "train", "cifar100", "--epochs", "1", *small, "--device", "cpu", "--json"]) == 0
    # 1,800 training images make 6 steps of 300.
    expected = {"checkpoint": "cifar100_supernet.safetensors", "steps": 6, "seed": 0}
    assert json.loads(capsys.readouterr().out) == expected
    judged = ["--checkpoint", "cifar100_supernet.safetensors", "--data", str(tmp_path / "cifar-100-python.tar.gz")]
    assert main(["supernet", "check", *judged, "--random", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert all(set(row) == {"validation", "test"} for row in data["accuracy"].values())
    assert main(["supernet", "check", *judged, "--random", "1"]) == 0
    assert "largest" in capsys.readouterr().out
    assert main(["supernet", "rank", *judged, "--subnets", "3", "--epochs", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["n"], len(data["subnets"]), data["epochs"]) == (3, 3, 1)
    assert {row["r"][0] for row in data["subnets"]} <= {8, 12}
    assert Path(data["results"]).is_file()
    assert main(["supernet", "rank", *judged, "--subnets", "3", "--epochs", "1"]) == 0  # all of it is known
    assert "MACs" in capsys.readouterr().out
    assert main(["supernet", "check", "--checkpoint", "cifar100_supernet.safetensors"]) == 0  # 100 classes hold digits
    capsys.readouterr()
    assert main(["supernet", "check", "--data", "cifar100"]) == 66  # ten do not hold CIFAR-100
    assert "n_classes" in capsys.readouterr().err


def test_a_folder_of_pictures_judges_a_supernet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = str(picture_folder(tmp_path / "data", classes=10, train_each=4, judging_each=4))
    assert main(["supernet", "check", "--data", root, "--random", "1", "--device", "cpu", "--json"]) == 0
    accuracies = json.loads(capsys.readouterr().out)["accuracy"]
    assert all(set(row) == {"validation", "test"} for row in accuracies.values())
    hits = [20 * row["validation"] for row in accuracies.values()]  # of twenty pictures: the other half is held out
    assert hits == pytest.approx([round(count) for count in hits])


def test_a_folder_of_pictures_trains_a_supernet_of_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_photos(Path("photos"), 3, 9, source="digits")
    few = ["--steps", "1", "--batch", "4", "--width", "0.1", "--resolutions", "16", "--device", "cpu"]
    assert main(["supernet", "train", "photos", *few]) == 0
    assert read_recipe(Path("photos_supernet.safetensors")).n_classes == 3
    capsys.readouterr()
    judged = ["--checkpoint", "photos_supernet.safetensors", "--data", "photos", "--random", "1", "--device", "cpu"]
    assert main(["supernet", "check", *judged, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["accuracy"]["largest"]) == {"validation", "test"}
    for file in Path("photos").glob("*/*.jpg"):
        file.rename(Path("photos") / file.name)
    assert main(["supernet", "train", "photos/apple", *few]) == 66
    assert "no class folder with pictures" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", ["8,x", "0", "8192", ""])
def test_resolutions_that_are_none_are_refused_in_words(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supernet", "train", "digits", "--resolutions", sizes]) == 64
    assert "--resolutions: needs pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "cifar"], 64),
        (["train", "digits", "--steps", "0"], 64),
        (["train", "digits", "--seed", "-1"], 64),
        (["train", "digits", "--minutes", "nan"], 64),
        (["train", "digits", "--minutes", "1", "--steps", "3"], 64),
        (["train", "digits", "--minutes", "1"], 64),  # its first steps are cheaper: their speed says nothing
        (["train", "digits", "--width", "-1"], 64),
        (["train", "digits", "--resolutions", "8,x"], 64),
        (["train", "cifar100"], 66),
        (["check", "--random", "0"], 64),
        (["rank", "--epochs", "0"], 64),
        (["rank", "--data", "nothing here"], 64),
        (["check", "--checkpoint", "nowhere.safetensors"], 66),
    ],
)
def test_mistakes_are_named_before_any_work(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RIWOA_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["supernet", *arguments]) == code
