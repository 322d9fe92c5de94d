"""One run for several devices, as a user has it: each gets what a look at the whole table finds; killed, continued."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from riwoa.config.loading import load
from riwoa.ctl import main
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.run.test_limits_run import ACCURACY, BOARD_MS, OPS, OTHER_MS, PHONE_MS
from tests.run.test_table_run import life, table_settings
from tests.service.test_service import ctl, run

PHONE, BOARD, OTHER = ("phone", 4.0), ("board", 5.0), ("other", 10.0)
LATENCIES_MS = {"phone": PHONE_MS, "board": BOARD_MS, "other": OTHER_MS}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    np.savez(tmp_path / "cells.npz", ops=OPS, acc=ACCURACY)
    np.savez(tmp_path / "latency.npz", phone_ms=PHONE_MS, board_ms=BOARD_MS, other_ms=OTHER_MS)
    return tmp_path / "cells.npz"


def of_targets(measured: Path, *targets: tuple[str, float], more: tuple[str, ...] = ()) -> tuple[str, ...]:
    rows = (f'{{name="{n}", table="latency.npz:{n}_ms", latency_ms={most}}}' for n, most in targets)
    return table_settings(measured, f"objective.targets=[{', '.join(rows)}]", "run.generations=14", *more)


def brute_force(name: str, within_ms: float) -> float:
    """The best accuracy of the whole table within a latency."""
    return float(ACCURACY[LATENCIES_MS[name] <= within_ms].max() / 100)


def leaders(state: Path) -> dict[str, dict[str, float]]:
    with JournalReader(state / "journal.db") as reader:
        last = reader.last_generation(1)
    assert last is not None
    return {name: found["metrics"] for name, found in last.counters["targets"].items()}


def test_each_device_gets_the_best_of_the_table_and_a_killed_run_ends_the_same(measured: Path, tmp_path: Path) -> None:
    targets = (PHONE, BOARD, OTHER)
    settings = of_targets(measured, *targets)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(whole, "--foreground", settings=settings)
    assert done.returncode == 0, done.stderr
    for failpoint in ("journal.before_commit:4", "conductor.evaluated:3", "journal.before_commit:9"):
        assert life(killed, settings, failpoint) == -signal.SIGKILL
    assert life(killed, settings, "") == 0
    found = compare(whole / "journal.db", killed / "journal.db")
    assert found.same, found.message
    assert leaders(killed) == leaders(whole)
    with JournalReader(whole / "journal.db") as reader:
        last = reader.last_generation(1)
    assert last is not None
    assert last.phase == "polish"
    assert last.counters["evaluations"] < 0.5 * len(OPS)
    for name, within_ms in targets:
        metrics = leaders(whole)[name]
        assert metrics[f"latency_ms_{name}"] <= within_ms
        assert metrics["accuracy"] == pytest.approx(brute_force(name, within_ms))
    assert len({row["accuracy"] for row in leaders(whole).values()}) == 3  # no network is the best for two


def test_status_front_export_and_check_tell_of_each_device(measured: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    settings = of_targets(measured, PHONE, BOARD, more=("run.generations=6", "run.export=true"))
    done = run(state, "--foreground", settings=settings)
    assert done.returncode == 0, done.stderr
    best = leaders(state)
    assert "The best for each target" in done.stdout
    rows = json.loads(ctl(state, "status", "--json").stdout)["targets"]
    assert [(row["name"], row["within_ms"], row["value"]) for row in rows] == [
        (name, within_ms, best[name]["accuracy"]) for name, within_ms in (PHONE, BOARD)
    ]
    (state / "status.json").unlink()
    assert json.loads(ctl(state, "status", "--json").stdout)["targets"] == rows
    for told in (ctl(state, "status").stdout, ctl(state, "pareto").stdout, done.stdout):
        for name, within_ms in (PHONE, BOARD):
            (line,) = [line for line in told.splitlines() if line.removeprefix("targets").strip().startswith(name)]
            assert f"{100 * best[name]['accuracy']:.2f} %" in line
            assert f"{within_ms:g} ms" in line
            assert f"{best[name][f'latency_ms_{name}']:.3f}" in line
    answered = json.loads(ctl(state, "answer", "--json").stdout)["targets"]  # those of the run, unless others are named
    assert [(row["table"], row["within_ms"], row["best"]["value"]) for row in answered] == [
        (name, within_ms, best[name]["accuracy"]) for name, within_ms in (PHONE, BOARD)
    ]
    report = ctl(state, "report", "--markdown").stdout
    assert "## The network for each device" in report
    for name, _ in (PHONE, BOARD):
        exported = json.loads((state / f"export-{name}" / "architecture.json").read_text())
        assert exported["journaled"]["metrics"] == best[name]
    written = ctl(state, "export", "--target", "board", "--out", str(tmp_path / "out"))
    assert written.returncode == 0, written.stderr
    exported = json.loads((tmp_path / "out" / "architecture.json").read_text())
    assert exported["journaled"]["metrics"] == best["board"]
    refused = ctl(state, "export", "--target", "watch")
    assert refused.stderr == "riwoactl: run 1 has no target watch; it has phone, board\n"
    checked = ctl(state, "check", "{}/{}".format(*rows[1]["origin"]))
    assert checked.returncode == 0
    assert any(line.startswith("board") and line.endswith("  met") for line in checked.stdout.splitlines())


def test_a_limit_that_all_must_keep_holds_for_every_device(measured: Path, tmp_path: Path) -> None:
    other = '{name="other", table="latency.npz:other_ms", at_most_ms=11.0}'
    settings = of_targets(measured, PHONE, BOARD, more=(f"objective.devices=[{other}]",))
    done = run(tmp_path / "state", settings=settings)
    assert done.returncode == 0, done.stderr
    for name, within_ms in (PHONE, BOARD):
        able = (LATENCIES_MS[name] <= within_ms) & (OTHER_MS <= 11.0)
        metrics = leaders(tmp_path / "state")[name]
        assert metrics["latency_ms_other"] <= 11.0
        assert metrics["accuracy"] == pytest.approx(float(ACCURACY[able].max() / 100))


def test_a_file_may_write_targets_in_short(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text('[[target]]\nname = "a"\ntable = "x"\nlatency_ms = 8.0\n[[target]]\nname = "b"\nlatency_ms = 9.0\n')
    loaded = load(file, environment={})
    assert [t.name for t in loaded.config.objective.targets] == ["a", "b"]
    assert loaded.warning is None  # the short form is no old name
    same = load(None, ['objective.targets=[{name="a", table="x", latency_ms=8}, {name="b", latency_ms=9}]'], {})
    assert same.config.objective == loaded.config.objective
    assert "targets" not in load(None, environment={}).config.objective.to_json()


TABLED = """
[oracle]
kind = "table"
[oracle.table]
file = "{file}"
accuracy = "acc"
"""
ONE = '[[target]]\nname = "phone"\ntable = "latency.npz:phone_ms"\nlatency_ms = 4.0\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE + ONE, "[[target]]: two devices are called phone; rename one"),
        (ONE.replace("[[", "[").replace("]]", "]"), "each target is a table of its own: [[target]], in two brackets"),
        (ONE.replace("4.0", "1e-3"), "[[target]] phone: latency_ms = 0.001 is out of reach: the space attains 1.000"),
        (ONE.replace('table = "latency.npz:phone_ms"\n', ""), "name the table of each target"),
        (ONE.replace("phone_ms", "watch_ms"), "watch_ms"),
        (ONE.replace("latency.npz", "wide.npz"), "wide.npz"),
        (ONE.replace("latency_ms", "at_most_ms"), "objective.targets[1].latency_ms is missing"),
        (f'{ONE}[objective]\nkind = "front"\n', "[[target]]: a front is of one device"),
        (f'{ONE}[search]\nstrategy = "woa"\n', "search.strategy = woa, as it is set, looks for one network"),
        (f"{ONE}[objective]\ntargets = []\n", "target is short for objective.targets, and both are given"),
        (f"{ONE}[search]\npopulation = 4\n{''.join(ONE.replace('phone', f'd{n}', 1) for n in range(4))}", "at least"),
    ],
    ids=[
        *("same_name", "one_bracket", "out_of_reach", "no_table", "no_column", "other_space", "no_limit", "front"),
        *("strategy", "both_forms", "more_than_members"),
    ],
)
def test_what_no_run_can_serve_is_refused_in_a_line(
    measured: Path, tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "wide.npz", phone_ms=np.ones(9))
    (tmp_path / "riwoa.toml").write_text(text + TABLED.format(file=measured))
    assert main(["config", "check", str(tmp_path / "riwoa.toml")]) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert any(said in line for line in lines), lines
    assert len(lines) <= 2


def test_lower_rungs_and_an_oracle_that_answers_latencies_are_refused(measured: Path, tmp_path: Path) -> None:
    rungs = ("oracle.table.low_fidelity=acc", 'oracle.rungs=["low_fidelity"]')
    refused = run(tmp_path / "raced", settings=of_targets(measured, PHONE, more=rungs))
    assert "[[target]]: what oracle.rungs would give up may be the best for one of the devices" in refused.stderr
    (tmp_path / "space.toml").write_text('[[genes]]\nname = "depth"\nchoices = [1, 2, 3]\n')
    space = f"oracle.command.space={tmp_path / 'space.toml'}"
    told = ("oracle.kind=command", "oracle.command.function=math:sqrt", space)
    refused = run(tmp_path / "told", settings=(*told, 'objective.targets=[{name="a", latency_ms=8}]'))
    assert "[[target]]: latencies must be known before a network is evaluated" in refused.stderr


def test_asked_asynchronously_each_device_gets_its_network_too(measured: Path, tmp_path: Path) -> None:
    more = ("search.asynchronous=true", "oracle.workers=2")
    done = run(tmp_path / "state", settings=of_targets(measured, PHONE, BOARD, more=more))
    assert done.returncode == 0, done.stderr
    for name, within_ms in (PHONE, BOARD):
        found = leaders(tmp_path / "state")[name]
        assert found[f"latency_ms_{name}"] <= within_ms
        assert found["accuracy"] > brute_force(name, within_ms) - 0.03
