"""The daemon on a table, as a user has it: a real process, killed, continued, exported; with proposals and without."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from riwoa.config.loading import load
from riwoa.errors import ConfigError, InfeasibleTargetError
from riwoa.ipc.child import child_environment
from riwoa.run.problem import load_problem
from riwoa_storage.events import RunResumed, SpaceExhausted
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from tests.conftest import save_tiny_llama, train_tokenizer
from tests.service.test_service import command, ctl, one_line, run, status
from tests.storage.samples import reseal
from tests.support.official import official_data

OPS = np.array(list(itertools.product(range(5), repeat=4)), dtype=np.uint8)  # 625 architectures
ACCURACY = 50.0 + 2 * OPS.sum(axis=1) + np.cos(np.arange(625.0))
LATENCY_MS = 1.0 + OPS.astype(float) @ np.array([1.0, 0.5, 0.25, 2.0])


def table_settings(path: Path, *more: str) -> tuple[str, ...]:
    return (
        "oracle.kind=table",
        f"oracle.table.file={path}",
        "oracle.table.accuracy=acc",
        "oracle.workers=1",
        "run.generations=5",
        "run.polish_evaluations=12",
        "run.export=false",
        "search.population=6",
        "search.offspring=6",
        "cognition.provider=none",
        "cognition.lag=1",
        *more,
    )


LATENCY = ("oracle.table.latency=latency.npz:phone_ms", "oracle.table.report=test")
SCRIPTED = ("cognition.provider=scripted", "cognition.role=slot", "cognition.script=mixed", "search.p_semantic=0.6")
RACED = (
    *LATENCY,
    "oracle.table.low_fidelity=early",
    'oracle.rungs=["low_fidelity"]',
    "run.generations=12",
    "search.population=10",
)
FRONT = (*LATENCY, "objective.kind=front", "objective.latency_ms=9.0", "search.strategy=gp", "run.generations=12")


def write_table(place: Path) -> Path:
    np.savez(place / "cells.npz", ops=OPS, acc=ACCURACY, test=ACCURACY - 1, early=0.7 * ACCURACY)
    np.savez(place / "latency.npz", phone_ms=LATENCY_MS)
    return place / "cells.npz"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path)


def test_a_target_out_of_reach_names_the_tables_range_and_no_device(table: Path, tmp_path: Path) -> None:
    limited = ("oracle.table.latency=latency.npz:phone_ms", "objective.latency_ms=0.5")
    config = load(None, [*table_settings(table), *limited], {}).config
    problem = asyncio.run(load_problem(config, tmp_path / "unused.json"))
    with pytest.raises(InfeasibleTargetError, match=r"out of reach: the space attains 1\.000 to 16\.000 ms"):
        problem.check_target(config)


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ((*LATENCY, "search.strategy=woa"), "search.strategy = woa, as it is set, looks for one network"),
        (("search.strategy=gp",), "there are no latencies here"),
    ],
)
def test_a_front_that_nobody_can_search_is_refused_with_what_to_set(
    table: Path, tmp_path: Path, more: Sequence[str], hint: str
) -> None:
    config = load(None, [*table_settings(table), "objective.kind=front", *more], {}).config
    with pytest.raises(ConfigError, match=hint):
        asyncio.run(load_problem(config, tmp_path / "unused.json"))


def life(state: Path, settings: Sequence[str], failpoint: str, *arguments: str) -> int:
    """One life of the daemon, which is killed at a failpoint if it comes there; its exit status."""
    process = subprocess.run(
        command(state, *arguments, settings=settings),
        env={**child_environment(1), "RIWOA_FAILPOINT": failpoint},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode


@pytest.mark.parametrize(
    "more",
    [LATENCY, SCRIPTED, RACED, FRONT],
    ids=["latency, geometric", "no latency, scripted", "low fidelity first", "bayesian, of a front"],
)
def test_killed_and_continued_it_ends_in_the_uninterrupted_digest(
    table: Path, tmp_path: Path, more: Sequence[str]
) -> None:
    settings = table_settings(table, *more)
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert life(whole, settings, "") == 0
    for failpoint in ("journal.before_commit:9", "conductor.evaluated:2", "journal.after_commit:12"):
        assert life(state, settings, failpoint) == -signal.SIGKILL
    assert life(state, settings, "") == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    assert verify(state / "journal.db").ok
    seen = status(state)
    assert (seen["evaluations"]["dropped"] > 0) == (more is RACED)
    assert (seen["run"]["hypervolume"] is not None) == (more is FRONT)


def test_a_predictor_of_an_earlier_run_screens_from_the_start_and_must_stay_the_same(
    table: Path, tmp_path: Path
) -> None:
    longer = table_settings(table, *LATENCY, "search.population=10")
    first, file = tmp_path / "first", tmp_path / "mine.safetensors"
    assert run(first, settings=longer).returncode == 0
    trained = ctl(first, "predictor", "train", "--out", str(file))
    assert trained.returncode == 0, trained.stderr
    settings = (*longer, f"search.riwoa.predictor={file}")
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert run(whole, settings=settings).returncode == 0
    assert life(state, settings, "conductor.evaluated:2") == -signal.SIGKILL
    file.rename(tmp_path / "kept.safetensors")
    assert ctl(first, "predictor", "train", "--first", "25", "--out", str(file)).returncode == 0
    refused = run(state, settings=settings)
    assert refused.returncode == 78
    assert "begun with another file in search.riwoa.predictor" in one_line(refused.stderr)
    elsewhere = (*longer, f"search.riwoa.predictor={tmp_path / 'kept.safetensors'}")
    assert run(state, settings=elsewhere).returncode == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    with JournalReader(whole / "journal.db") as reader:
        first_asked = [i.metrics for generation, i in reader.individuals(1) if generation == 0]
    assert all("predicted" in metrics for metrics in first_asked)


@pytest.mark.parametrize("strategy", ["riwoa", "woa"])
def test_a_table_with_holes_is_raced_too(tmp_path: Path, strategy: str) -> None:
    """Missing rows are infinitely slow, and some of the others lack their low fidelity."""
    there = np.random.default_rng(1).random(len(OPS)) < 0.3
    early = np.where(ACCURACY > 65, np.nan, 0.7 * ACCURACY)
    np.savez(tmp_path / "part.npz", ops=OPS[there], acc=ACCURACY[there], ms=LATENCY_MS[there], early=early[there])
    racing = (f"search.strategy={strategy}", "oracle.table.latency=ms", "oracle.table.low_fidelity=early")
    more = (*racing, 'oracle.rungs=["low_fidelity"]', "run.generations=12", "search.population=10")
    done = run(tmp_path / "state", settings=table_settings(tmp_path / "part.npz", *more))
    assert done.returncode == 0, done.stderr
    with JournalReader(tmp_path / "state" / "journal.db") as reader:
        found = [i for _, i in reader.individuals(1)]
    assert any(i.status == "ok" and "low_fidelity" not in i.metrics for i in found)
    assert {i.error for i in found if i.status == "failed"} <= {"error: not in the table"}


def test_a_language_model_proposes_on_a_table_too(table: Path, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "mine", train_tokenizer)
    more = (
        "cognition.provider=model",
        "cognition.role=slot",
        f"cognition.model={tmp_path / 'mine'}",
        "cognition.thinking_tokens=4",
        "cognition.template=compact",
        "search.p_semantic=1.0",
    )
    assert run(tmp_path / "state", settings=table_settings(table, *more)).returncode == 0
    with JournalReader(tmp_path / "state" / "journal.db") as reader:
        requests, replies = reader.requests(1), reader.replies(1)
        proposed = [i for _, i in reader.individuals(1) if i.operator == "semantic" and i.status == "ok"]
    assert replies
    assert all(reply.status == "ok" for reply in replies.values())
    assert proposed
    assert all("no latency target: raise accuracy" in request.prompt for request in requests)


def test_the_winner_is_exported_without_a_model(table: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    settings = table_settings(table, *LATENCY, "objective.latency_ms=7", "run.export=true")
    done = run(state, "--foreground", settings=settings)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (state / "export").iterdir()} == {
        "architecture.json",
        "provenance.json",
        "report.html",
    }
    description = json.loads((state / "export" / "architecture.json").read_text())
    row = int(np.flatnonzero((OPS == [description["architecture"][f"ops.{i}"] for i in range(4)]).all(axis=1))[0])
    metrics = description["journaled"]["metrics"]
    assert metrics["accuracy"] == pytest.approx(ACCURACY[row] / 100)
    assert metrics["report"] == pytest.approx((ACCURACY[row] - 1) / 100)
    assert metrics["latency_ms"] == LATENCY_MS[row] <= 7
    assert description["feasible"]
    provenance = json.loads((state / "export" / "provenance.json").read_text())
    assert provenance["run"]["oracle"]["kind"] == "table"
    assert f"{ACCURACY[row]:.2f} %" in done.stdout
    assert "within the target of 7.000 ms" in done.stdout
    exported = ctl(state, "export")
    assert "architecture.json, provenance.json" in exported.stdout
    assert "a table holds no networks" in exported.stdout


def test_without_latencies_the_most_accurate_wins_and_no_target_is_spoken_of(table: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run(state, "--foreground", settings=table_settings(table, "objective.latency_ms=3"))
    assert done.returncode == 0, done.stderr
    assert "target" not in done.stdout
    seen = status(state)
    assert seen["leader"]["latency_ms"] == 0.0
    assert seen["run"]["target_ms"] is None
    with JournalReader(state / "journal.db") as reader:
        accuracies = [i.metrics["accuracy"] for _, i in reader.individuals(1)]
    assert seen["leader"]["accuracy"] == max(accuracies)
    assert "no latency target" in ctl(state, "pareto").stdout


def test_architectures_outside_the_table_fail_are_counted_and_do_not_stop_it(tmp_path: Path) -> None:
    there = OPS.sum(axis=1) % 3 != 0
    np.savez(tmp_path / "part.npz", ops=OPS[there], acc=ACCURACY[there])
    state = tmp_path / "state"
    done = run(state, settings=table_settings(tmp_path / "part.npz", "search.strategy=random"))
    assert done.returncode == 0, done.stderr
    with JournalReader(state / "journal.db") as reader:
        failed = [i for _, i in reader.individuals(1) if i.status == "failed"]
    assert failed
    assert {i.error for i in failed} == {"error: not in the table"}
    assert status(state)["evaluations"]["failed"] > 0


def test_a_table_that_changed_since_the_run_began_is_refused(table: Path, tmp_path: Path) -> None:
    state, settings = tmp_path / "state", table_settings(table, *LATENCY)
    assert life(state, settings, "journal.after_commit:12") == -signal.SIGKILL
    np.savez(table, ops=OPS, acc=ACCURACY + 1, test=ACCURACY)
    refused = run(state, settings=settings)
    assert refused.returncode == 78
    assert "another oracle" in one_line(refused.stderr)
    np.savez(table, ops=OPS, acc=ACCURACY, test=ACCURACY - 1)
    np.savez(table.parent / "latency.npz", phone_ms=LATENCY_MS * 2)
    refused = run(state, settings=settings)
    assert refused.returncode == 72
    assert "another latency table" in one_line(refused.stderr)


@pytest.mark.parametrize(
    ("settings", "code", "hint"),
    [
        (["oracle.kind=table"], 78, "oracle.kind = table needs oracle.table.file, the file"),
        (["oracle.kind=table", "oracle.table.file=x.npz"], 78, "needs oracle.table.accuracy, the column to raise"),
        (["oracle.kind=table", "oracle.table.file=nowhere.npz", "oracle.table.accuracy=a"], 66, "there is no table at"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, settings: list[str], code: int, hint: str) -> None:
    refused = run(tmp_path / "state", settings=settings)
    assert refused.returncode == code
    assert hint in one_line(refused.stderr)


def test_a_target_below_the_fastest_row_is_refused_with_the_range(table: Path, tmp_path: Path) -> None:
    refused = run(tmp_path / "state", settings=table_settings(table, *LATENCY, "objective.latency_ms=0.5"))
    assert refused.returncode == 68
    assert f"1.000 to {LATENCY_MS.max():.3f} ms" in one_line(refused.stderr)


def test_nas_bench_201_is_searched_from_one_line_more(tmp_path: Path) -> None:
    file = official_data("nas-bench-201/accuracy.npz")
    settings = (
        *table_settings(file, "run.generations=10", "run.polish_evaluations=0", "search.offspring=20"),
        "oracle.table.accuracy=c100_val200",
        "oracle.table.report=c100_test200",
    )
    assert run(tmp_path / "state", settings=settings).returncode == 0
    seen = status(tmp_path / "state")
    assert seen["evaluations"]["failed"] == 0
    assert 0.70 < seen["leader"]["accuracy"] <= 0.734934


# -- tables that are small, or hold little of their space --------------------------------------------------------------


def exhausted(state: Path) -> list[int]:
    with JournalReader(state / "journal.db") as reader:
        return [event.architectures for event in reader.events(1, SpaceExhausted)]


def evaluated(state: Path) -> list[str]:
    """Keys of what was evaluated in full, once each."""
    with JournalReader(state / "journal.db") as reader:
        return [i.architecture_key for _, i in reader.individuals(1) if i.status == "ok" and not i.cache_hit]


SMALL_OPS = np.array(list(itertools.product(range(3), repeat=3)), dtype=np.uint8)
WITHIN = ("oracle.table.latency=ms", "objective.latency_ms=4.0")


@pytest.mark.parametrize(
    "limits",
    [(), WITHIN, RACED[2:4], ("search.strategy=gp",)],
    ids=["no latency", "within a target", "raced", "bayesian"],
)
def test_a_search_ends_when_everything_within_the_target_is_evaluated_and_says_so(
    limits: Sequence[str], tmp_path: Path
) -> None:
    ms = 1.0 + SMALL_OPS.sum(axis=1)
    accuracy = 50.0 + 2 * SMALL_OPS.sum(axis=1) + np.cos(np.arange(27.0))
    np.savez(tmp_path / "small.npz", ops=SMALL_OPS, acc=accuracy, ms=ms, early=0.7 * accuracy)
    settings = (*table_settings(tmp_path / "small.npz", *limits), "run.generations=400")
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert life(whole, settings, "") == 0
    assert life(state, settings, "journal.after_commit:20") == -signal.SIGKILL
    assert life(state, settings, "") == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    assert found.generations < 100
    within = int((ms <= 4.0).sum()) if limits == WITHIN else 27
    assert exhausted(whole) == [within]
    assert len(set(evaluated(whole))) >= (within if limits != RACED[2:4] else 1)
    where = " within the target" if limits == WITHIN else ""
    assert f"every architecture{where} has been evaluated: the run is finished" in status(whole)["message"]
    with JournalReader(whole / "journal.db") as reader:
        last = reader.last_generation(1)
    assert last is not None
    assert any(not i.cache_hit for i in last.individuals)  # nothing is asked beyond what there was to find


@pytest.mark.parametrize("limits", [(), ("oracle.table.latency=ms", "objective.latency_ms=30.0")])
def test_a_table_that_holds_hardly_any_of_its_combinations_is_searched_among_its_rows(
    limits: Sequence[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    ops = np.unique(rng.integers(0, 50, (300, 10)), axis=0)
    ms = 1.0 + ops.sum(axis=1) / 10
    np.savez(tmp_path / "sparse.npz", ops=ops, acc=50.0 + ops.sum(axis=1) / 20, ms=ms)
    settings = (*table_settings(tmp_path / "sparse.npz", *limits), "run.generations=12")
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert life(whole, settings, "") == 0
    assert life(state, settings, "journal.after_commit:9") == -signal.SIGKILL
    assert life(state, settings, "") == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    with JournalReader(whole / "journal.db") as reader:
        searched = [i for g in reader.generations(1) if g.phase == "search" for i in g.individuals]
    assert all(i.status == "ok" for i in searched)
    assert len({i.architecture_key for i in searched}) == 12 * 6  # the nearest that is left, never one twice


def test_where_no_candidate_of_the_first_generation_exists_the_search_begins_at_rows_that_do(tmp_path: Path) -> None:
    ops = np.array([row for row in itertools.product(range(6), repeat=4) if sum(row) == 3 or row == (5, 5, 5, 5)])
    np.savez(tmp_path / "some.npz", ops=ops, acc=50.0 + ops[:, 0])
    assert 0.01 < len(ops) / 6**4 < 0.02  # not sparse: some children do exist
    settings = (*table_settings(tmp_path / "some.npz"), "run.generations=3")
    assert life(tmp_path / "state", settings, "") == 0
    with JournalReader(tmp_path / "state" / "journal.db") as reader:
        assert any(i.status == "ok" for i in reader.generation(1, 0).individuals)


def test_a_run_that_an_older_version_began_with_flat_keys_continues_as_if_it_had_begun_it(
    table: Path, tmp_path: Path
) -> None:
    """What its journal says of the configuration is put back into the form of before."""
    old_keys = (f"oracle.table={table}", "oracle.table_accuracy=acc")
    strategy = ("search.elitism=false", "search.screened=2", "search.riwoa.joint=false")  # which was all there was
    newer = ("oracle.table.", "search.offspring")
    settings = (*old_keys, *strategy, *(s for s in table_settings(table) if not s.startswith(newer)))
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert life(whole, settings, "") == 0
    assert life(state, settings, "conductor.evaluated:3") == -signal.SIGKILL
    with sqlite3.connect(state / "journal.db") as db:
        ((text,),) = db.execute("SELECT config FROM config_revisions").fetchall()
        config = json.loads(text)
        tables = {name: config["oracle"].pop(name) for name in ("supernet", "table", "predictor")}
        config["oracle"] |= tables["supernet"] | {"table": tables["table"].pop("file")}
        config["oracle"] |= {f"table_{name}": value for name, value in tables["table"].items()}
        config["oracle"] |= {"predictor": None, "latency_tables": None}
        config["search"] |= config["search"].pop("riwoa")
        config["cognition"]["train_lag"] = 6  # the default of then
        for later in ("spiral_b", "joint", "first", "offspring", "gp", "woa"):
            del config["search"][later]
        db.execute("UPDATE config_revisions SET config = ?", (json.dumps(config),))
    db.close()
    reseal(state / "journal.db")
    done = run(state, settings=settings)
    assert done.returncode == 0, done.stderr
    assert compare(whole / "journal.db", state / "journal.db").same
    assert "oracle.table is now oracle.table.file" in done.stderr
    assert "search.screened is now search.riwoa.screened" in done.stderr
    with JournalReader(state / "journal.db") as reader:
        (resumed,) = reader.events(1, RunResumed)
    assert resumed.restarted == {}
