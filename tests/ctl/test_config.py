import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.config.schema import Config, as_json
from riwoa.ctl import main
from riwoa_storage.events import RunResumed
from riwoa_storage.writer import JournalWriter
from tests.bench.support import a_table


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
    assert origin["search.riwoa.elite_fraction"].endswith("# default")


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


# -- diff ------------------------------------------------------------------------------------------------------------


def diff(state: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    file = state / "new.toml"
    file.write_text(text)
    assert main(["config", "diff", str(file), "--state", str(state), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def journal_with(state: Path, config: Config) -> None:
    async def write() -> None:
        async with await JournalWriter.open(state / "journal.db") as writer:
            await writer.begin_run({"seed": 0}, as_json(config))

    asyncio.run(write())


def test_diff_says_which_keys_apply_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal_with(tmp_path, Config())
    edited = "[run]\ngenerations = 50\nseed = 3\n[oracle]\nworkers = 4\n"
    assert diff(tmp_path, edited, capsys) == {
        "next generation": {"run.generations": [200, 50]},
        "restart": {"oracle.workers": ["auto", 4]},
        "new run": {"run.seed": [0, 3]},
    }
    assert main(["config", "diff", str(tmp_path / "new.toml"), "--state", str(tmp_path)]) == 0
    assert 'restart: oracle.workers "auto" -> 4' in capsys.readouterr().out.splitlines()


def test_diff_of_a_bad_file_says_what_is_wrong_and_without_a_run_that_all_applies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diff(tmp_path, "[run]\nseed = 3\n", capsys) == {"run": None}
    (tmp_path / "new.toml").write_text("[run]\nseed = -1\n")
    assert main(["config", "diff", str(tmp_path / "new.toml"), "--state", str(tmp_path)]) == 78
    assert "run.seed" in capsys.readouterr().err


def test_diff_knows_what_a_restart_has_put_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal_with(tmp_path, Config())

    async def restarted() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as writer:
            await writer.put_event(RunResumed(run_id=1, restarted={"oracle.workers": 4}))

    asyncio.run(restarted())
    assert diff(tmp_path, "[oracle]\nworkers = 4\n", capsys)["restart"] == {}
    assert diff(tmp_path, "", capsys)["restart"] == {"oracle.workers": [4, "auto"]}


# -- check, as a start would -----------------------------------------------------------------------------------------


def wrong(file: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What ``config check`` says of a file, one line each; in JSON it says the same."""
    file.write_text(text)
    state = ["--state", str(file.parent)]
    assert main(["config", "check", str(file), "--json", *state]) == 78
    said = json.loads(capsys.readouterr().out)
    assert main(["config", "check", str(file), *state]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("riwoactl: ") for line in lines] == said["errors"]
    assert (said["valid"], said["exit_code"], said["error"]) == (False, 78, said["errors"][0])
    return [str(line) for line in said["errors"]]


def test_all_wrong_keys_are_reported_not_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[run]\nsede = 1\nseed = 'x'\n[search]\npopulation = 1\n[oracle]\nrungs = [400, 100]\n"
    found = wrong(tmp_path / "riwoa.toml", text, capsys)
    assert len(found) == 4
    for part in ("run.sede", "run.seed = 'x'", "search.population = 1", "oracle.rungs"):
        assert sum(part in line for line in found) == 1


def test_missing_files_are_reported_as_a_start_would_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[oracle.supernet]\ndata = "/no/data"\ncheckpoint = "/no/net.pth"\n'
    text += '[search.riwoa]\npredictor = "/no/predictor"\n'
    found = "\n".join(wrong(tmp_path / "riwoa.toml", text, capsys))
    assert all(part in found for part in ("/no/data", "/no/net.pth", "/no/predictor"))
    table = '[oracle]\nkind = "table"\n[oracle.table]\nfile = "/no/table.csv"\naccuracy = "a"\n'
    assert any("/no/table.csv" in line for line in wrong(tmp_path / "riwoa.toml", table, capsys))
    predictor = '[oracle]\nkind = "predictor"\n[oracle.predictor]\nfile = "/no/p.pth"\nlatency_tables = "/no/tables"\n'
    found = "\n".join(wrong(tmp_path / "riwoa.toml", predictor, capsys))
    assert "/no/p.pth" in found
    assert "/no/tables" in found


def test_what_a_kind_of_oracle_lacks_is_reported_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(wrong(tmp_path / "riwoa.toml", '[oracle]\nkind = "table"\n', capsys)) == 2
    predictor = '[oracle]\nkind = "predictor"\npredictor.resolutions = [24]\n'
    assert len(wrong(tmp_path / "riwoa.toml", predictor, capsys)) == 3


def test_a_head_of_other_classes_than_the_data_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = wrong(tmp_path / "riwoa.toml", "[oracle.supernet]\nn_classes = 7\n", capsys)
    assert any("size mismatch for classifier" in line for line in found)
    assert any("check oracle.supernet.n_classes" in line for line in found)


def test_a_target_out_of_reach_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.csv").write_text("a,b,accuracy,ms\n0,0,0.5,2.0\n0,1,0.6,3.0\n1,0,0.7,4.0\n1,1,0.8,5.0\n")
    text = f"""[oracle]
kind = "table"
[oracle.table]
file = "{tmp_path}/table.csv"
genes = "a,b"
accuracy = "accuracy"
latency = "ms"
[objective]
latency_ms = """
    assert "attains 2.000 to 5.000 ms" in wrong(tmp_path / "riwoa.toml", f"{text}0.5\n", capsys)[0]
    (tmp_path / "riwoa.toml").write_text(f"{text}2.5\n")
    assert main(["config", "check", str(tmp_path / "riwoa.toml")]) == 0


def test_limits_that_nothing_keeps_and_metrics_that_nobody_gives_are_all_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_table().save(tmp_path / "latency_lut.json")
    text = f"""[objective]
maximize = "f1"
constraints = ["watts <= 3", "parameters <= 1000", "accuracy >= 87", "macs <= 3e6", "macs >= 4e6"]
[[objective.devices]]
name = "phone"
table = "{tmp_path}/latency_lut.json"
at_most_ms = 1e-6
[[objective.devices]]
name = "board"
table = "/no/table.json"
at_most_ms = 1.0
"""
    found = "\n".join(wrong(tmp_path / "riwoa.toml", text, capsys))
    for part in (
        "objective.maximize: there is no metric f1; an oracle of kind supernet gives accuracy, images,",
        "objective.constraints: there is no metric watts",
        "parameters <= 1000.0 is out of reach: the space attains 156,882 to 583,530",
        "accuracy >= 87.0 is out of reach: the space attains 0.00 % to 100.00 %",
        "macs >= 4000000.0 and macs <= 3000000.0 exclude each other",
        "latency_ms_phone <= 1e-06 is out of reach",
        "/no/table.json: the file does not exist",
    ):
        assert part in found
    assert len(found.splitlines()) == 7


def test_a_target_is_checked_by_the_devices_table_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_table().save(tmp_path / "latency_lut.json")
    before = sorted(tmp_path.iterdir())
    found = wrong(tmp_path / "riwoa.toml", "[objective]\nlatency_ms = 1e-6\n", capsys)
    assert len(found) == 1
    assert "out of reach" in found[0]
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "riwoa.toml"])


def test_what_a_start_would_refuse_is_reported_beside_wrong_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_table().save(tmp_path / "latency_lut.json")
    text = "[run]\ngeneratons = 3\nseed = -1\n[objective]\nlatency_ms = 1e-6\n"
    found = wrong(tmp_path / "riwoa.toml", f'{text}[oracle.supernet]\ndata = "/no/data"\n', capsys)
    assert len(found) == 4
    for part in ("run.generatons", "run.seed = -1", "/no/data", "out of reach: the space attains"):
        assert sum(part in line for line in found) == 1


def test_of_a_supernet_whose_own_keys_are_wrong_no_more_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[oracle.supernet]\nn_classes = 0\ndata = "/no/data"\n'
    assert len(wrong(tmp_path / "riwoa.toml", text, capsys)) == 1
