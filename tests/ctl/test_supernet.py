import json
from pathlib import Path

import pytest

from riwoa.ctl import main


def test_train_writes_a_checkpoint_that_check_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    assert main(["supernet", "train", "digits", "--steps", "1", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"checkpoint": str(out), "steps": 1, "seed": 0}
    assert main(["supernet", "check", "--checkpoint", str(out), "--random", "1", "--views", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["accuracy"]) == {"largest", "median_random", "smallest"}
    assert all(set(row) == {"validation", "test", "clean"} for row in data["accuracy"].values())
    assert data["lead"] == data["accuracy"]["largest"]["validation"] - data["random"][0]["validation"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "cifar"], 64),
        (["train", "digits", "--steps", "0"], 64),
        (["train", "digits", "--seed", "-1"], 64),
        (["check", "--checkpoint", "nowhere.safetensors"], 66),
    ],
)
def test_mistakes_are_named_before_any_work(arguments: list[str], code: int) -> None:
    assert main(["supernet", *arguments]) == code
