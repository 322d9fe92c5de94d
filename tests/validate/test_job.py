from __future__ import annotations

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.ctl import Options, main
from riwoa.ctl.validate import _parser, settings
from riwoa.errors import InputError
from riwoa.ipc.child import child_environment
from riwoa.supernet.geometry import Backbone, macs
from riwoa.supernet.plan import Pictures
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.validate.corrupted import UNITS
from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES
from riwoa.validate.job import read_architecture, same_cost
from riwoa.validate.judging import Counts
from riwoa.validate.retrain import Spec, alone
from tests.support.cifar_files import small_archive
from tests.support.official import official_data

SPACE = mobilenet_space((8,))
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a short protocol on a small archive: one tiny network, five test images."""
    place = tmp_path_factory.mktemp("given")
    indices = np.array([int(gene.name.endswith(".expand")) for gene in SPACE.genes])
    (place / "architecture.json").write_text(json.dumps({"architecture": SPACE.architecture(indices)}))
    archive = small_archive(place, 10, 1)
    command = f"validate cifar100 --data {archive} --architecture {place}/architecture.json --resolutions 8"
    command += " --width 0.1 --stem imagenet --epochs 2 --batch-images 64 --images 5 --device cpu --jobs 2 --json"
    return command.split()


@pytest.fixture(scope="module")
def finished(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Retrained on its own while the folder's lock is held, then judged."""
    out = tmp_path_factory.mktemp("validate") / "out"
    with alone(out):
        assert main([*given, "--no-controls", "--out", str(out), "--only", "retrain:winner"]) == 0
    assert (out / "networks" / "winner" / "result.json").exists()
    assert main([*given, "--no-controls", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(given: list[str], capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*given, *arguments])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def counts(out: Path) -> dict[tuple[str, int], int]:
    rows = [json.loads(line) for line in (out / "corruptions.jsonl").read_text().splitlines()]
    return {(row["corruption"], row["severity"]): row["correct"] for row in rows}


def test_the_report_follows_from_the_raw_counts(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    raw = counts(finished)
    assert set(raw) == set(UNITS)
    winner = report["networks"]["winner"]
    by_corruption = {c: statistics.fmean(raw[c, s] / 5 for s in SEVERITIES) for c in CORRUPTIONS}
    assert winner["corruption_accuracy"] == pytest.approx(by_corruption)
    assert winner["mce"] == pytest.approx(1 - statistics.fmean(by_corruption.values()))
    result = json.loads((finished / "networks" / "winner" / "result.json").read_text())
    assert winner["test"] == result["test"]
    assert winner["test"]["images"] == 100
    assert winner["macs"] == macs(ofa_config(winner["architecture"]), Backbone(0.1, 100, "imagenet"))
    assert report["corrupted"]["source"] == "made"
    assert (finished / "report.svg").read_text().startswith("<svg")


def test_the_digits_are_retrained_and_their_views_corrupted(given: list[str], tmp_path: Path, run: Run) -> None:
    name = given[given.index("--architecture") + 1]
    out = tmp_path / "out"
    command = f"validate --data digits --architecture {name} --width 0.1 --epochs 1 --images 3 --device cpu --jobs 2"
    assert main([*command.split(), "--no-controls", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["task"] == "the embedded digits"
    assert report["networks"]["winner"]["test"]["images"] == 3200
    assert report["corrupted"]["images"] == 3


def test_the_smoke_preset_trains_cifar_100_alike_whether_the_command_line_or_the_pictures_name_it(
    given: list[str], tmp_path: Path
) -> None:
    named = {option: given[given.index(option) + 1] for option in ("--data", "--architecture")}
    told = [word for pair in named.items() for word in pair]
    specs = []
    for name, verb in (("named", ["validate", "cifar100"]), ("found", ["validate"])):
        command = [*verb, *told, "--preset", "smoke", "--device", "cpu", "--no-controls", "--out", str(tmp_path / name)]
        assert main([*command, "--only", "choose"]) == 0
        specs.append(Spec.from_json(json.loads((tmp_path / name / "networks" / "winner" / "spec.json").read_text())))
    assert specs[0].retraining == specs[1].retraining
    pictures = Pictures(n_classes=100, images=20_000, side_px=32)
    recipe = specs[1].retraining.recipe(pictures, Backbone(0.25, 100, "imagenet"), 32, "cpu")
    assert (recipe.batch_images, recipe.learning_rate, recipe.label_smoothing) == (64, 0.1, 0.0)
    assert (recipe.crop_px, recipe.ema, recipe.optimiser) == (2, 0.99, "sgd")
    assert (recipe.steps, recipe.warmup_steps) == (4 * 312, 62)


@pytest.mark.parametrize(
    ("arguments", "state"), [("", "state"), ("--architecture FILE", None), ("--supernet riwoa_cifar100_w0.25", None)]
)
def test_only_a_job_that_trains_a_supernet_keeps_options_of_that_training(
    given: list[str], arguments: str, state: str | None
) -> None:
    data = ["--data", given[given.index("--data") + 1], "--out", "out", "--device", "cpu"]
    trains = settings(_parser(True).parse_args(data), Options())
    assert trains.supernet_options[:4] == ("--width", "0.5", "--stem", "small")
    named = arguments.replace("FILE", given[given.index("--architecture") + 1]).split()
    assert settings(_parser(True).parse_args([*data, *named]), Options(state)).supernet_options == ()


def test_a_job_that_a_riwoa_of_fewer_settings_began_goes_on(finished: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    begun = json.loads((out / "job.json").read_text())
    del begun["retraining"]["smoke"]
    begun["supernet_options"] = ["--width", "None", "--stem", "None", "--resolutions", "", "--seed", "0"]
    (out / "job.json").write_text(json.dumps(begun))
    code, data = run("--no-controls", "--out", str(out), "--only", "choose")
    assert (code, data["only"]) == (0, "choose")


def test_a_folder_of_an_earlier_riwoa_is_refused_and_keeps_what_it_came_to(tmp_path: Path, run: Run) -> None:
    (tmp_path / "job.json").write_text('{"data": "d", "recipe": {"momentum": 0.9}, "backbone": {}}')
    (tmp_path / "report.json").write_text("{}")
    code, data = run("--out", str(tmp_path))
    assert code == 66
    assert "begun by an earlier riwoa" in data["error"]
    assert (tmp_path / "report.json").read_text() == "{}"


def test_done_it_only_tells_again(finished: Path, run: Run) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "networks").rglob("*.json")}
    lines = (finished / "corruptions.jsonl").read_bytes()
    code, data = run("--no-controls", "--out", str(finished))
    assert code == 0
    assert data == json.loads((finished / "report.json").read_text())
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (finished / "corruptions.jsonl").read_bytes() == lines


def test_killed_among_the_corruptions_it_goes_on_by_the_line(finished: Path, given: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for name in ("corruptions.jsonl", "report.json", "report.svg"):
        (out / name).unlink()
    command = [sys.executable, "-m", "riwoa.ctl", *given, "--no-controls", "--out", str(out)]
    lines = out / "corruptions.jsonl"
    with subprocess.Popen(command, env=child_environment(1), stdout=subprocess.DEVNULL) as job:
        until = time.monotonic() + 90
        while not lines.exists() or lines.read_bytes().count(b"\n") < 10:
            assert job.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
    kept = lines.read_bytes()
    whole = kept.count(b"\n")
    lines.write_bytes(kept + b'{"corruption": "fog", "sever')  # the line that a kill cut
    assert main([*given, "--no-controls", "--out", str(out)]) == 0
    assert lines.read_bytes().startswith(kept)
    rows = [line for line in lines.read_text().splitlines() if line.endswith("}")]
    assert len(rows) == len(UNITS)
    assert whole < len(UNITS)
    again, first = (json.loads((place / "report.json").read_text()) for place in (out, finished))
    assert again == first


def test_other_settings_in_the_same_folder_are_refused_by_name(finished: Path, run: Run) -> None:
    code, data = run("--no-controls", "--out", str(finished), "--seed", "4")
    assert code == 66
    assert "seed (0 -> 4)" in data["error"]


def test_an_option_that_is_left_out_the_second_time_is_another_setting(
    finished: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = given.index("--architecture")
    code = main([*given[:place], *given[place + 2 :], "--no-controls", "--out", str(finished), "--only", "choose"])
    assert code == 66
    assert "architecture.resolution (8 -> None)" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("option", ["--data", "--supernet", "--state", "--table", "--corrupted", "--frost"])
def test_a_path_that_leads_nowhere_is_named_and_the_folder_still_free(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    place = given.index("--architecture")
    command = given if option != "--state" else [*given[:place], *given[place + 2 :]]
    out = tmp_path / "out"
    named = [option, str(tmp_path / "nowhere.pth"), "--out", str(out), "--only", "choose"]
    assert main([*named[:2], *command, *named[2:]] if option == "--state" else [*command, *named]) == 66
    assert f"{option}: there is no" in json.loads(capsys.readouterr().out)["error"]
    assert main([*given, "--no-controls", "--out", str(out), "--only", "choose"]) == 0


def test_a_folder_of_other_pictures_is_refused_before_the_first_stage(tmp_path: Path, run: Run) -> None:
    for option, missing in (("--corrupted", "labels.npy"), ("--frost", "frost1.png")):
        code, data = run("--out", str(tmp_path / "out"), option, str(tmp_path), "--only", "choose")
        assert code == 66
        assert f"{missing} cannot be read" in data["error"]
    assert not (tmp_path / "out" / "job.json").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    code, data = run("--out", str(tmp_path))
    assert code == 64
    assert "holds files of something else" in data["error"]
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt"}


def test_a_second_job_in_the_folder_is_refused(finished: Path, run: Run) -> None:
    with alone(finished):
        code, data = run("--no-controls", "--out", str(finished))
    assert code == 75
    assert "works in" in data["error"]


def test_the_controls_are_the_largest_and_one_that_costs_the_same(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    code, data = run("--out", str(out), "--only", "choose")
    assert (code, data["only"]) == (0, "choose")
    chosen = json.loads((out / "chosen.json").read_text())
    chosen = chosen["networks"]
    assert set(chosen) == {"winner", "largest", "random"}
    assert chosen["random"]["macs"] == pytest.approx(chosen["winner"]["macs"], rel=0.01)
    assert chosen["random"]["architecture"] != chosen["winner"]["architecture"]
    assert chosen["largest"]["macs"] > 2 * chosen["winner"]["macs"]
    for name, row in chosen.items():
        spec = json.loads((out / "networks" / name / "spec.json").read_text())
        assert spec["architecture"] == row["architecture"]
    # A retraining alone needs its own network's lock, and no other.
    with alone(out / "networks" / "winner"):
        code, data = run("--out", str(out), "--only", "retrain:winner")
    assert code == 75
    assert "networks/winner already" in data["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--ema", "1"], "--ema must be less than 1"),
        (["--learning-rate", "nan"], "must be positive"),
        (["--only", "retrain:best"], "choose from supernet, search"),
        (["--resolutions", "3"], "--resolutions must be of 8 to 256 pixels"),
        (["--resolutions", "24,x"], "needs pixels such as 24,32,40, not '24,x'"),
        (["--set", "run.seed=1"], "which --architecture skips"),
    ],
)
def test_a_wrong_command_line_is_named_before_any_work(
    tmp_path: Path, run: Run, arguments: list[str], message: str
) -> None:
    code, data = run("--out", str(tmp_path / "out"), *arguments)
    assert code == 64
    assert message in data["error"]
    assert not (tmp_path / "out").exists()


def test_an_architecture_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "architecture.json"
    for content in ("", "[]", "{}", '{"architecture": 3}', '{"architecture": {"resolution": 32}}'):
        file.write_text(content)
        with pytest.raises(InputError):
            read_architecture(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_architecture(tmp_path / "nothing.json")


def test_the_random_control_costs_what_the_winner_does() -> None:
    space = mobilenet_space((24, 32))
    backbone = Backbone(0.25, 100, "small")
    winner = space.architecture(np.full(len(space.genes), 1))

    def cost(architecture: Any) -> float:
        return float(macs(ofa_config(architecture), backbone))

    found = same_cost(space, winner, cost, 0)
    assert found == same_cost(space, winner, cost, 0) != winner
    assert found != same_cost(space, winner, cost, 1)
    assert cost(found) == pytest.approx(cost(winner), rel=0.01)
    smallest = space.architecture(np.zeros(len(space.genes), dtype=np.int64))
    edge = same_cost(space, smallest, cost, 0)  # no uniform draw comes near
    assert edge != smallest
    assert cost(edge) == pytest.approx(cost(smallest), rel=0.01)
    with pytest.raises(InputError, match="too near the edge"):
        same_cost(space, winner, lambda a: 0.0 if a == winner else 1.0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_smoke_preset_runs_the_whole_protocol_on_cifar_100(tmp_path: Path) -> None:
    archive = official_data("cifar-100/cifar-100-python.tar.gz")
    command = [sys.executable, "-m", "riwoa.ctl", "validate", "cifar100", "--preset", "smoke", "--device", "cpu"]
    command += ["--data", str(archive), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, env=child_environment(1), stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    networks = report["networks"]
    assert list(networks) == ["winner", "largest", "random", "inherited"]
    assert networks["largest"]["test"]["images"] == 10_000
    assert networks["largest"]["test"]["accuracy"] >= 0.15  # retrained; chance is 1 %
    assert networks["largest"]["mean_corruption_accuracy"] < networks["largest"]["test"]["accuracy"]
    assert networks["random"]["latency_ms"] == pytest.approx(networks["winner"]["latency_ms"], rel=0.01)
    assert report["random_matches"] == "latency_ms"


def test_counts_of_before_there_was_one_kind_of_result_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "corruptions.jsonl"
    path.write_text(
        '{"corruption": "fog", "severity": 2, "weights_sha256": "ab", "correct": 7, "of": {"images": 9}}\n'
        '{"corruption": "fog", "severity": 3, "weights_sha256": "ab", "correct": 8, "of": {"images": 10}}\n'
        '{"corruption": "fog", "severity": 4'
    )
    kept = Counts(path, {"images": 9})
    kept.close()
    assert [kept.get("fog", severity, "ab") for severity in (2, 3, 4)] == [7, None, None]
