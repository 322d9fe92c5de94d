import json
from pathlib import Path

import pytest

from riwoa.ctl import main
from riwoa.hardware.drift import Drift, Sentinel
from riwoa.hardware.target import auto_target_ms
from tests.bench.support import a_table


def test_show_tells_device_range_and_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = a_table()
    table.save(tmp_path / "latency_lut.json")
    assert main(["lut", "show", "--state", str(tmp_path), "--json", "--operators"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["range_ms"] == list(table.range_ms())
    assert data["auto_target_ms"] == auto_target_ms(table)
    assert data["operators"] == len(data["operators_ms"]) == len(table.entries)
    assert data["mismatches"] == []
    assert main(["lut", "show", "--table", str(tmp_path / "latency_lut.json")]) == 0
    assert "this one" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["show", "check"])
def test_a_missing_table_exits_72_and_says_how_to_build_one(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lut", verb, "--state", str(tmp_path)]) == 72
    assert "riwoactl lut build" in capsys.readouterr().err


def test_a_place_that_cannot_be_made_exits_73(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["lut", "build", "--table", str(tmp_path / "file" / "lut.json")]) == 73


def test_build_measures_this_device_into_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "latency.repeats=2", "--networks", "10", "--set", "oracle.supernet.resolutions=[24]"]
    assert main(["lut", "build", "--state", str(tmp_path), "--json", "--sessions", "0", *few]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["resolutions"] == [24]
    assert data["settings"]["repeats"] == 2
    assert (tmp_path / "latency_lut.json").is_file()


def test_too_few_repeats_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lut", "build", "--state", str(tmp_path), "--set", "latency.repeats=1"]) == 64
    assert "ask for at least 2" in capsys.readouterr().err


def test_a_space_is_chosen_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.json"
    flags = ["--width", "0.5", "--classes", "7", "--stem", "small", "--resolutions", "20,16", "--repeats", "2"]
    assert main(["lut", "build", "--table", str(path), "--sessions", "0", "--batch-size", "2", "--json", *flags]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["backbone"] == {"width_mult": 0.5, "n_classes": 7, "stem": "small"}
    assert data["resolutions"] == [16, 20]
    assert (data["settings"]["batch_size"], data["settings"]["runtime"]) == (2, "onnxruntime")
    assert "sensors_before" in data["notes"]
    assert main(["lut", "show", "--table", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "batches of 2" in shown
    assert "at 90%" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resolutions", "a,b"], "pixels such as 24,32,40"),
        (["--width", "0"], "width"),
        (["--batch-size", "0"], "batch size"),
        (["--threads", "0"], "at least one thread"),
        (["--compute", "tpu"], "invalid choice"),
        (["--regime", "graph"], "--runtime torch"),
        (["--regime", "graph", "--runtime", "torch"], "regime"),
    ],
)
def test_a_space_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["lut", "build", "--table", str(tmp_path / "lut.json"), *flags]) in (64, 72)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_drift_and_check_print_what_they_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lut.json"
    few = ["--resolutions", "24", "--repeats", "4", "--sessions", "0"]
    assert main(["lut", "build", "--table", str(path), *few]) == 0
    capsys.readouterr()
    assert main(["lut", "drift", "--table", str(path), "--rounds", "12", "--tolerance", "9"]) == 0
    said = capsys.readouterr().out
    assert "network" in said.splitlines()[2]
    assert "tolerance 900%, 12 rounds, 1 pass" in said
    assert main(["lut", "check", "--table", str(path), "--networks", "5", "--rounds", "4"]) == 0
    said = capsys.readouterr().out
    assert "against 5 networks that none of its 24 is, 4 rounds each" in said
    for predictor in ("latency table", "plain sum of operators", "MACs", "parameters", "ceiling: half against half"):
        assert f"\n{predictor}  " in said
    assert "meant for 90%" in said
    assert main(["lut", "check", "--table", str(path), "--networks", "2"]) == 64
    assert main(["lut", "drift", "--table", str(path), "--rounds", "3"]) == 64


def test_a_table_that_no_longer_holds_exits_72(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Sentinel("network 4.000 ms", "network", 1.5, 1.4, 1.6, "drifted")
    found = Drift("drifted", 1.5, 1.45, (gone,), ("every latency",), 0.15, 60, 2, None, "0" * 64)

    async def check(*_: object, **__: object) -> Drift:
        return found

    monkeypatch.setattr("riwoa.hardware.drift.check_drift_in_child", check)
    assert main(["lut", "drift", "--table", str(tmp_path / "lut.json")]) == 72
    said = capsys.readouterr().out
    assert "affects every latency" in said
    assert "2 passes" in said
