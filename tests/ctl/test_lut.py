import json
from pathlib import Path

import pytest

from riwoa.ctl import main
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
    few = ["--set", "latency.repeats=10", "--set", "oracle.resolutions=[24]"]
    assert main(["lut", "build", "--state", str(tmp_path), "--json", "--sessions", "0", *few]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["resolutions"] == [24]
    assert data["settings"]["repeats"] == 10
    assert (tmp_path / "latency_lut.json").is_file()


def test_too_few_repeats_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lut", "build", "--state", str(tmp_path), "--set", "latency.repeats=3"]) == 64
    assert "ask for at least 10" in capsys.readouterr().err
