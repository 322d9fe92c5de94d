"""``riwoactl answer``: one run's evaluations, any device's latency table."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.ctl import main
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.search.space import IntArray, Space
from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.space import ofa_config
from riwoa_storage.reader import JournalReader
from tests.run.test_table_run import table_settings
from tests.service.test_service import run, table, whole  # noqa: F401  (fixtures)
from tests.support.ofa_files import write_tables

from .made_up_world import BACKBONE, PROVENANCE, SPACE, commit, drawn, milliseconds, slower_table, truth
from .support import write_journal


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = commit(tmp_path_factory.mktemp("state"), drawn(150))
    shutil.copy(shipped_table(), place / "latency_lut.json")
    return place


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of another device, with an interval of 10 %."""
    place = tmp_path_factory.mktemp("other") / "other.json"
    slower_table().save(place)
    return place


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def asked(state: Path, *arguments: str | Path) -> dict[str, Any]:
        assert main(["answer", *map(str, arguments), "--json", "--state", str(state)]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return asked


def indices_of(found: Mapping[str, Any]) -> IntArray:
    return SPACE.indices(found["architecture"])[None, :]


# -- what is answered --------------------------------------------------------------------------------------------------


def test_of_a_real_run_it_names_the_network_that_pareto_names_and_writes_nothing(
    whole: Path,  # noqa: F811
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {file.name: file.read_bytes() for file in whole.iterdir() if file.suffix in (".db", ".json")}
    assert main(["pareto", "--json", "--state", str(whole)]) == 0
    front = json.loads(capsys.readouterr().out)["front"]
    within_ms = 1e-6 + front[len(front) // 2]["latency_ms"]
    assert main(["pareto", "--within", f"{within_ms}ms", "--json", "--state", str(whole)]) == 0
    wanted = json.loads(capsys.readouterr().out)["network"]
    (found,) = ask(whole, "--within", f"{within_ms}ms")["targets"]
    best = found["best"]
    assert (best["architecture"], best["value"]) == (wanted["architecture"], wanted["accuracy"])
    assert best["latency_ms"] == pytest.approx(wanted["latency_ms"])
    assert best["low"] < best["value"] < best["high"]
    assert {name: (whole / name).read_bytes() for name in before} == before


def test_another_devices_table_decides_and_what_is_predicted_is_better_and_as_said(
    state: Path, other: Path, ask: Ask
) -> None:
    by, evaluated = LatencyTable.load(other), drawn(150)
    within_ms = float(np.quantile(milliseconds(by, evaluated), 0.3))
    able = milliseconds(by, evaluated) <= within_ms
    (found,) = ask(state, "--table", other, "--within", f"{within_ms!r}ms")["targets"]
    assert found["evaluated_within"] == able.sum()
    assert found["best"]["value"] == truth(evaluated[able]).max()
    assert found["best"]["latency_ms"] == milliseconds(by, indices_of(found["best"]))[0]
    assert found["latency_interval"] == 0.1
    predicted = found["predicted"]
    assert predicted["latency_ms"] == milliseconds(by, indices_of(predicted))[0] <= within_ms
    assert predicted["low"] <= truth(indices_of(predicted))[0] <= predicted["high"]
    assert truth(indices_of(predicted))[0] > found["best"]["value"] + 0.002
    assert predicted["evaluated_at"] is None
    assert 0 < found["to_be_sure"]["evaluations"] <= found["to_be_sure"]["rivals"] <= found["to_be_sure"]["looked_at"]


def test_it_answers_alike_however_often_it_is_asked(state: Path, other: Path, ask: Ask) -> None:
    assert ask(state, "--table", other, "--within", "0.2ms") == ask(state, "--table", other, "--within", "0.2ms")


def test_every_run_of_the_oracle_counts_and_no_other(ask: Ask, tmp_path: Path) -> None:
    shutil.copy(shipped_table(), tmp_path / "latency_lut.json")
    commit(tmp_path, drawn(30, 1))
    commit(tmp_path, drawn(10, 3), oracle_version="another")
    commit(tmp_path, drawn(30, 2))
    found = ask(tmp_path, "--within", "1ms")
    assert (found["runs"], found["evaluated"]) == ([1, 3], 60)
    both = np.concatenate((drawn(30, 1), drawn(30, 2)))
    assert found["targets"][0]["best"]["value"] == truth(both).max()
    alone = ask(tmp_path, "--within", "1ms", "--run", "1")
    assert (alone["runs"], alone["evaluated"]) == ([1], 30)
    assert alone["targets"][0]["best"]["value"] == truth(drawn(30, 1)).max()


def test_several_tables_show_who_serves_which_device_and_who_serves_all(
    state: Path, other: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    own, evaluated = shipped_table(), drawn(150)
    found_ms = [milliseconds(LatencyTable.load(file), evaluated) for file in (own, other)]
    limits_ms = [float(np.quantile(each, share)) for each, share in zip(found_ms, (0.5, 0.3), strict=True)]
    asked = ("--table", own, "--table", other, *(part for ms in limits_ms for part in ("--within", f"{ms!r}ms")))
    found = ask(state, *asked)
    able = [each <= ms for each, ms in zip(found_ms, limits_ms, strict=True)]
    assert [t["within_ms"] for t in found["targets"]] == limits_ms
    assert [t["best"]["value"] for t in found["targets"]] == [truth(evaluated[a]).max() for a in able]
    assert found["for_all"]["value"] == truth(evaluated[able[0] & able[1]]).max()
    assert main(["answer", *map(str, asked), "--state", str(state)]) == 0
    out = " ".join(capsys.readouterr().out.split())  # a table where it is narrow enough, else a list
    first, second = out.index(own.name), out.index(other.name)
    assert first < second
    assert out.find("{generation}/{slot}".format(**found["targets"][1]["best"]), second) > 0
    assert "one for all: {generation}/{slot}, ".format(**found["for_all"]) in out


def test_further_limits_are_kept_by_the_evaluated_and_by_the_predicted(ask: Ask, tmp_path: Path) -> None:
    shutil.copy(shipped_table(), tmp_path / "latency_lut.json")
    commit(tmp_path, drawn(60), {"constraints": ["parameters <= 300_000", "latency_ms >= 0.01", "correct >= 1"]})
    (found,) = ask(tmp_path, "--within", "0.13ms")["targets"]
    assert found["best"] is None  # nobody counted what is correct
    assert found["predicted"]["unchecked"] == ["correct"]
    assert geometry.parameters(ofa_config(found["predicted"]["architecture"]), BACKBONE) <= 300_000
    commit(tmp_path, drawn(60), {"constraints": ["parameters <= 300_000"]})
    (found,) = ask(tmp_path, "--within", "0.13ms")["targets"]
    assert geometry.parameters(ofa_config(found["best"]["architecture"]), BACKBONE) <= 300_000


def test_where_nothing_evaluated_is_within_it_still_predicts(
    state: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    by = LatencyTable.load(shipped_table())
    between_ms = float(by.range_ms()[0] + milliseconds(by, drawn(150)).min()) / 2
    (found,) = ask(state, "--within", f"{between_ms!r}ms")["targets"]
    assert (found["best"], found["to_be_sure"]) == (None, None)
    assert found["predicted"]["latency_ms"] <= between_ms
    assert main(["answer", "--within", f"{between_ms!r}ms", "--state", str(state)]) == 0
    assert f"none is within; the fastest takes {found['fastest_ms']:.3f} ms" in capsys.readouterr().out


def test_few_evaluations_predict_nothing_and_say_so(
    tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shipped_table(), tmp_path / "latency_lut.json")
    commit(tmp_path, drawn(19))
    (found,) = ask(tmp_path, "--within", "1ms")["targets"]
    assert found["best"]["value"] == truth(drawn(19)).max()
    assert found["predicted"] is None
    assert main(["answer", "--within", "1ms", "--state", str(tmp_path)]) == 0
    assert "19 evaluations are too few, 20 are needed" in capsys.readouterr().out


def test_what_it_says_of_one_device(state: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["answer", "--table", str(other), "--within", "0.2ms", "--state", str(state)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Within 0.2 ms by {other} (onnxruntime " in out
    for part in ("best evaluated: ", "(95 %: ", " on 3,200 images, the best of ", " ms ± 10 %", "best predicted: not "):
        assert part in out
    assert "to be sure: " in out
    assert "`riwoactl export --arch 0/" in out


def test_columns_of_a_table_answer_for_its_search(tmp_path: Path, ask: Ask) -> None:
    ops = np.array(list(itertools.product(range(4), repeat=4)), dtype=np.uint8)
    accuracy = 0.5 + 0.03 * ops.sum(axis=1) + 0.01 * np.cos(np.arange(256.0))
    phone_ms, board_ms = (1.0 + ops @ np.array(costs) for costs in ([1.0, 0.5, 0.25, 2.0], [2.0, 0.25, 1.0, 0.5]))
    np.savez(tmp_path / "cells.npz", ops=ops, acc=accuracy)
    np.savez(tmp_path / "latency.npz", phone_ms=phone_ms, board_ms=board_ms)
    settings = table_settings(tmp_path / "cells.npz", "oracle.table.latency=latency.npz:phone_ms")
    done = run(tmp_path / "state", settings=(*settings, "objective.latency_ms=6", "run.finalists=0"))
    assert done.returncode == 0, done.stderr
    with JournalReader(tmp_path / "state" / "journal.db") as reader:
        space = Space.from_json(reader.runs()[0].provenance["space"])
        evaluated = {tuple(space.indices(i.architecture).tolist()) for _, i in reader.individuals(1)}
    rows = [row for row, choices in enumerate(ops.tolist()) if tuple(choices) in evaluated and board_ms[row] <= 5.0]
    (found,) = ask(tmp_path / "state", "--table", "latency.npz:board_ms", "--within", "5ms")["targets"]
    assert found["best"]["value"] == pytest.approx(accuracy[rows].max())
    predicted = ops.tolist().index(space.indices(found["predicted"]["architecture"]).tolist())
    assert found["predicted"]["latency_ms"] == board_ms[predicted] <= 5.0
    assert accuracy[predicted] >= accuracy[rows].max()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ([], 64, "needs --within TIME"),
        (["--within", "8"], 64, "needs a time with its unit"),
        (["--within", "1ms", "--within", "2ms"], 64, "--within is given 2 times for 1 table: name one for all, or one"),
        (["--within", "1us"], 66, "the fastest takes 0.0"),
        (["--table", "absent.json", "--within", "1ms"], 72, "absent.json: the file does not exist"),
        (["--table", "wide.json", "--within", "1ms"], 66, "operators of this space, first "),
        (["--within", "1ms", "--run", "9"], 66, "has no run 9"),
    ],
    ids=["no time", "no unit", "times", "too fast", "absent", "another space", "no run"],
)
def test_what_cannot_be_answered_gets_one_line(
    arguments: Sequence[str],
    code: int,
    hint: str,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = LatencyTable.load(shipped_table())
    (wide,) = [op for op in geometry.all_operators((24,), Backbone(1.0, 10)) if op.kind == "stem"][:1]
    timing = next(iter(shipped.entries.values()))
    replace(shipped, backbone=Backbone(1.0, 10), entries={wide.key: timing}, correction={}, known=()).save(
        tmp_path / "wide.json"
    )
    assert main(["answer", *arguments, "--state", str(state)]) == code
    err = capsys.readouterr().err
    assert hint in err
    assert len(err.splitlines()) == 1


def test_a_journal_without_evaluations_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [], **PROVENANCE)
    assert main(["answer", "--within", "1ms", "--state", str(tmp_path)]) == 66
    assert "run 1 has evaluated nothing yet" in capsys.readouterr().err


def test_an_oracle_that_knows_no_tables_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(tmp_path, drawn(30), oracle_settings={"kind": "command"})
    assert main(["answer", "--within", "1ms", "--state", str(tmp_path)]) == 64
    assert "a run of kind command has no table of this device; name one: --table" in capsys.readouterr().err
    named = ("--table", str(shipped_table()))
    assert main(["answer", *named, "--within", "1ms", "--state", str(tmp_path)]) == 78
    assert "an oracle of kind command knows no tables of other devices; let it give" in capsys.readouterr().err


def test_ofas_tables_answer_for_its_predictor(tmp_path: Path, ask: Ask) -> None:
    write_tables(tmp_path / "tables", (24, 32, 40))
    resolutions = {"kind": "predictor", "predictor": {"resolutions": [24, 32, 40]}}
    commit(tmp_path, drawn(60), oracle_settings=resolutions)
    by = OfaLatencyTable(tmp_path / "tables")
    found_ms = np.array([by.latency_ms(ofa_config(SPACE.architecture(row))) for row in drawn(60)])
    within_ms = float(np.median(found_ms))
    (found,) = ask(tmp_path, "--table", tmp_path / "tables", "--within", f"{within_ms!r}ms")["targets"]
    assert found["best"]["value"] == truth(drawn(60)[found_ms <= within_ms]).max()
    assert (found["latency_interval"], found["predicted"]["latency_ms"] <= within_ms) == (None, True)
