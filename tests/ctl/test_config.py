import json
import tomllib
from pathlib import Path

import pytest

from riwoa.config import Config, load
from riwoa.ctl import main


def test_what_show_prints_is_a_valid_file_with_the_same_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show", "--set", "oracle.workers=3", "--set", "run.seed=9"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "riwoa.toml"
    file.write_text(text)
    config = load(file, environment={}).config
    assert (config.oracle.workers, config.run.seed) == (3, 9)
    assert config.model_dump(exclude={"run", "oracle"}) == Config().model_dump(exclude={"run", "oracle"})
    assert text.count("# ") >= sum(len(table) for table in tomllib.loads(text).values())


def test_origin_tells_where_each_value_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[run]\nseed = 1\ngenerations = 2\n")
    monkeypatch.setenv("RIWOA_RUN__GENERATIONS", "3")
    assert main(["config", "show", "--origin", "--config", str(file), "--set", "search.population=8"]) == 0
    origin = dict(line.split(" = ", 1) for line in capsys.readouterr().out.splitlines())
    assert origin["run.seed"].endswith(f"# file {file}")
    assert origin["run.generations"].endswith("# environment")
    assert origin["search.population"].endswith("# command line")
    assert origin["search.elite_fraction"].endswith("# default")


@pytest.mark.parametrize(
    ("content", "hint"),
    [("[run]\nsede = 1\n", "did you mean 'run.seed'"), ("[run]\nseed = 'x'\n", "run.seed = 'x'"), ("[run", "TOML")],
)
def test_a_bad_file_exits_78_and_names_the_key(
    content: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text(content)
    assert main(["config", "check", str(file)]) == 78
    assert hint in capsys.readouterr().err


def test_a_good_file_is_called_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[run]\nseed = 1\n")
    assert main(["config", "check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "valid": True, "keys": ["run.seed"]}
