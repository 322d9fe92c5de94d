"""``riwoactl promote``, ``champion`` and ``rollback`` with subnets of the embedded supernet, and digits as files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riwoa.ctl import main
from riwoa.datasets.digits import load_digits_task
from riwoa.service.promotion import Gate, judge
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa.validate.corruptions import corrupt, frost_procedural

from .support import individual, write_journal

SPEC = SupernetSpec(recalibration_images=100, validation_views=1)


def an_export(state: Path, choice: int, resolution: int) -> Path:
    """The export of a run whose winner has that choice of every gene."""
    space = mobilenet_space(SPEC.resolutions)
    genes = np.array([min(choice, len(gene.choices) - 1) for gene in space.genes], np.int64)
    genes[[gene.name for gene in space.genes].index("resolution")] = SPEC.resolutions.index(resolution)
    winner = individual(0, (space.key(genes), 0.8, 1.0), space.architecture(genes))
    state.mkdir()
    oracle = SPEC.to_json()
    write_journal(state / "journal.db", [(winner,)], oracle=oracle, oracle_version="v", latency_table_sha256="t")
    assert main(["export", "--state", str(state)]) == 0
    return state / "export"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The smallest network of the supernet, which reads 77 % of the test digits, and the largest, which reads 87 %."""
    root = tmp_path_factory.mktemp("exports")
    return {"small": an_export(root / "small", 0, 24), "large": an_export(root / "large", 2, 40)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 400 test digits, a folder a class."""
    task = load_digits_task()
    return folder_of(tmp_path_factory.mktemp("fresh"), task.canvas("test", 0).transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits, in fog."""
    task = load_digits_task()
    canvases = task.canvas("test", 0).transpose(0, 2, 3, 1)
    foggy = corrupt(canvases, "fog", 5, 0, frost_procedural())
    return folder_of(tmp_path_factory.mktemp("drifted"), foggy)


def folder_of(root: Path, pictures: Any) -> Path:
    labels = load_digits_task().labels("test").tolist()
    for number, (pixels, label) in enumerate(zip(pictures, labels, strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / str(label) / f"{number}.png")
    return root


def told(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def state(tmp_path: Path, exports: dict[str, Path], digits: Path) -> Path:
    """A state directory whose champion is the small network."""
    first = ("promote", "--state", str(tmp_path / "state"), "--export", str(exports["small"]), "--fresh", str(digits))
    assert main([*first]) == 0
    return tmp_path / "state"


def test_the_better_and_fast_enough_is_promoted_and_rolled_back(
    state: Path, exports: dict[str, Path], digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote = ("promote", "--state", state, "--export", exports["large"], "--fresh", digits, "--within", "50ms")
    done = told(capsys, 0, *promote)
    gate = done["gate"]
    assert done["decision"] == "promoted"
    assert gate["difference"]["p"] < 0.001
    assert gate["challenger"]["value"] - gate["champion"]["value"] == pytest.approx(gate["difference"]["value"])
    assert 0 < gate["latency"]["ms"] < gate["limit_ms"] == 50
    large = (exports["large"] / "model.onnx").read_bytes()
    assert (state / "champion/model.onnx").read_bytes() == large
    assert told(capsys, 0, "rollback", "--state", state, "--why", "complaints")["why"] == "complaints"
    assert (state / "champion/model.onnx").read_bytes() == (exports["small"] / "model.onnx").read_bytes()
    assert main(["champion", "--state", str(state)]) == 0
    said = capsys.readouterr().out
    assert "rolled back" in said
    assert "complaints" in said


def test_an_export_that_is_replaced_while_it_is_judged_is_not_promoted(
    state: Path,
    exports: dict[str, Path],
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = shutil.copytree(exports["large"], tmp_path / "export")

    def judged_then_replaced(*arguments: Any) -> Gate:
        gate = judge(*arguments)
        shutil.rmtree(place)
        shutil.copytree(exports["small"], place)
        return gate

    monkeypatch.setattr("riwoa.ctl.champion.judge", judged_then_replaced)
    promote = ("promote", "--state", state, "--export", place, "--fresh", digits, "--within", "50ms")
    assert "exported anew" in told(capsys, 66, *promote)["error"]
    assert len(told(capsys, 0, "champion", "--state", state)["decisions"]) == 1


def test_the_better_but_slower_is_refused_and_why_is_kept(
    state: Path, exports: dict[str, Path], digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = told(capsys, 1, "promote", "--state", state, "--export", exports["large"], "--fresh", digits)
    assert done["decision"] == "refused"
    assert done["why"].startswith("it takes 0.")
    assert done["gate"]["latency"]["ms"] > done["gate"]["limit_ms"]
    decisions = told(capsys, 0, "champion", "--state", state)["decisions"]
    assert [row["decision"] for row in decisions] == ["promoted", "refused"]


def test_what_may_be_chance_is_refused_and_told_how_many_pictures_would_tell(
    state: Path, exports: dict[str, Path], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = some_of(digits, tmp_path / "few")
    promote = ("promote", "--state", state, "--fresh", few, "--within", "50ms", "--export")
    refused = told(capsys, 1, *promote, exports["large"])
    assert refused["gate"]["difference"]["p"] >= 0.05
    assert "may be chance" in refused["why"]
    same = told(capsys, 1, *promote, exports["small"])
    assert same["gate"]["difference"] == {"value": 0.0, "error": 0.0, "p": 1.0}


def some_of(digits: Path, few: Path) -> Path:
    """Four of each class."""
    for label in range(10):
        (few / str(label)).mkdir(parents=True)
        for file in sorted((digits / str(label)).iterdir())[:4]:
            shutil.copy(file, few / str(label))
    return few


def test_where_the_champion_became_too_slow_a_faster_one_need_not_be_better_but_not_clearly_worse(
    tmp_path: Path, exports: dict[str, Path], digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    told(capsys, 0, "promote", "--state", state, "--export", exports["large"])
    promote = ("promote", "--state", state, "--export", exports["small"], "--fresh")
    few = some_of(digits, tmp_path / "few")
    gate = told(capsys, 1, *promote, few)["gate"]  # the champion's own time is the limit
    assert gate["difference"]["p"] >= 0.05
    fast_ms, slow_ms = gate["latency"]["ms"], gate["limit_ms"]
    assert fast_ms < 0.7 * slow_ms
    within = ("--within", f"{(fast_ms * slow_ms) ** 0.5:.4f}ms")
    worse = told(capsys, 1, *promote, digits, *within)
    assert worse["decision"] == "refused"
    assert worse["gate"]["difference"]["value"] < 0
    done = told(capsys, 0, *promote, few, *within)
    assert done["decision"] == "promoted"
    assert done["why"].startswith("the champion takes 0.")


def test_the_worse_is_refused_however_sure_that_is(
    tmp_path: Path, exports: dict[str, Path], digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    told(capsys, 0, "promote", "--state", state, "--export", exports["large"])
    worse = told(capsys, 1, "promote", "--state", state, "--export", exports["small"], "--fresh", digits)
    assert worse["gate"]["difference"]["value"] < 0
    assert worse["gate"]["difference"]["p"] < 0.05


def test_the_champion_holds_on_pictures_as_they_were_and_has_fallen_on_drifted_ones(
    state: Path, digits: Path, drifted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = told(capsys, 0, "champion", "--state", state, "--fresh", digits)["watch"]
    assert held["verdict"] == "holds"
    assert held["now"] == held["then"]
    fallen = told(capsys, 1, "champion", "--state", state, "--fresh", drifted)["watch"]
    assert fallen["verdict"] == "fallen"
    assert fallen["now"]["value"] < fallen["acts_below"] < held["now"]["value"]
    assert main(["champion", "--state", str(state), "--fresh", str(drifted)]) == 1
    assert "fallen; search again" in capsys.readouterr().out


def test_of_a_handful_of_pictures_nothing_is_said(state: Path, drifted: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    shutil.copytree(drifted / "3", tmp_path / "few/3")
    for file in sorted((tmp_path / "few/3").iterdir())[9:]:
        file.unlink()
    seen = told(capsys, 0, "champion", "--state", state, "--fresh", tmp_path / "few")["watch"]
    assert (seen["verdict"], seen["now"]["pictures"]) == ("too few", 9)


def test_what_is_odd_in_the_folder_is_named_and_does_not_count(
    state: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(digits, odd)
    shutil.copytree(digits / "0", odd / "zebra")
    shutil.copy(next((digits / "0").iterdir()), odd / "nobody.png")
    (odd / "1" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    seen = told(capsys, 0, "champion", "--state", state, "--fresh", odd)["watch"]
    assert seen["new_classes"] == {"zebra": len(list((digits / "0").iterdir()))}
    assert seen["now"]["pictures"] == 400
    assert any("nobody.png" in remark for remark in seen["remarks"])
    assert any("torn.png" in remark for remark in seen["remarks"])


def test_unlabelled_pictures_and_missing_ones_are_told_what_to_do(
    state: Path, exports: dict[str, Path], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loose = tmp_path / "loose"
    shutil.copytree(digits / "0", loose)
    assert "no labelled picture" in told(capsys, 66, "champion", "--state", state, "--fresh", loose)["error"]
    large = ("promote", "--state", state, "--export", exports["large"])
    assert "--fresh FOLDER" in told(capsys, 66, *large)["error"]
    assert "is no folder" in told(capsys, 66, *large, "--fresh", tmp_path / "nowhere")["error"]
    assert "riwoactl promote" in told(capsys, 66, "champion", "--state", tmp_path)["error"]
    assert "is no export" in told(capsys, 66, "promote", "--state", tmp_path / "b", "--export", tmp_path)["error"]
