import json
from pathlib import Path

import numpy as np
import pytest

from riwoa.ctl import main
from tests.support.nas_bench_201_file import official, write

CELLS = [(4, 2, 1, 2, 1, 1), (0, 1, 2, 3, 4, 0), (3, 3, 3, 1, 3, 3)]


def test_import_writes_a_table_that_bench_table_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(official(CELLS), tmp_path / "official.pth"), tmp_path / "compact.npz"
    assert main(["table", "import", "nas-bench-201", str(source), "--out", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["table"], data["cells"], data["file"]) == (str(out), 3, "official.pth")
    assert set(data["columns"]) == set(np.load(out)) - {"ops", "metadata"}
    bench = ["bench", "table", str(out), "--genes", "ops", "--nominal", "--maximize", "c10v_val200", "--seeds", "2"]
    assert main([*bench, "--budget", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["rows"] == 3
    assert [row["strategy"] for row in found["rows"]] == ["riwoa", "woa", "random"]
    assert main([*bench, "--budget", "20"]) == 0
    words = capsys.readouterr().out
    assert "best c10v_val200" in words
    assert "best: riwoa against" in words


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["import", "nas-bench-301", "x.pth"], 64, "nas-bench-201"),
        (["import", "nas-bench-201", "x.pth", "--out", "x.csv"], 64, "must end in .npz"),
        (["import", "nas-bench-201", "nowhere.pth"], 66, "no file at nowhere.pth"),
        (["export"], 64, "unknown 'export'"),
    ],
)
def test_mistakes_are_named(arguments: list[str], code: int, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", *arguments]) == code
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ([], 64, "--nominal --ordered"),
        (["--nominal", "--seeds", "0"], 64, "must be at least 1"),
        (
            ["--nominal", "--strategies", "riwoa,whale"],
            64,
            "none of riwoa, woa, random, evolution, local, gp, riwoa-blind",
        ),
        (["--nominal", "--constraint", "ms<20"], 64, "COLUMN<=NUMBER"),
        (["--nominal", "--low-fidelity", "early"], 64, "belong together"),
        (["--nominal", "--low-fidelity", "early", "--low-fidelity-cost", "2"], 64, "above 0 and at most 1"),
        (["--ordered"], 66, "no table at nowhere.npz"),
    ],
)
def test_a_wrong_question_is_named(
    arguments: list[str], code: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "table", "nowhere.npz", "--genes", "ops", "--maximize", "acc", *arguments]) == code
    assert hint in capsys.readouterr().err
