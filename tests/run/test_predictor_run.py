"""A run on OFA's predictor and latency tables: a real daemon, killed and resumed, exported, and refused bad input."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from riwoa_storage.replay import compare, verify
from tests.service.test_service import ctl, daemon, one_line, run, wait_for
from tests.support.ofa_files import write_predictor, write_tables
from tests.support.official import official_data

RESOLUTIONS = (160, 176)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ofa")
    write_predictor(folder / "acc_predictor.pth")
    write_tables(folder / "tables", RESOLUTIONS)
    return folder


def settings(files: Path, *others: str) -> Sequence[str]:
    return (
        "oracle.kind=predictor",
        f"oracle.predictor.file={files / 'acc_predictor.pth'}",
        f"oracle.predictor.latency_tables={files / 'tables'}",
        f"oracle.predictor.resolutions={list(RESOLUTIONS)}",
        "run.generations=12",
        "run.polish_evaluations=20",
        "search.riwoa.first=12",
        "search.p_semantic=0.5",
        "oracle.workers=1",
        "cognition.provider=scripted",
        "cognition.role=slot",
        "cognition.script=mixed",
        *others,
    )


@pytest.mark.timeout(240)
def test_killed_and_continued_it_ends_in_the_uninterrupted_digest_and_exports_the_subnet_without_weights(
    files: Path, tmp_path: Path
) -> None:
    whole, state = tmp_path / "whole", tmp_path / "state"
    chosen = settings(files)
    done = run(whole, "--foreground", settings=chosen)
    assert done.returncode == 0, done.stderr
    assert "Winner (within the target" in done.stdout
    seed = random.SystemRandom().randrange(2**32)
    rng, kills = random.Random(seed), 0
    for _ in range(2):
        with daemon(state, settings=chosen) as process:
            wait_for(state, lambda s: s.get("run") is not None or s["state"] == "finished")
            time.sleep(rng.uniform(0, 0.4))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert run(state, settings=chosen).returncode == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, f"seed {seed}, {kills} kills: {found.message}"
    assert verify(state / "journal.db").ok
    found = json.loads((whole / "export" / "architecture.json").read_text())
    assert (len(found["ofa"]["ks"]), len(found["ofa"]["d"])) == (20, 5)
    assert found["ofa"]["r"] == [found["resolution"]]
    assert found["resolution"] in RESOLUTIONS
    assert sorted(f.name for f in (whole / "export").iterdir()) == [
        "architecture.json",
        "provenance.json",
        "report.html",
    ]
    provenance = json.loads((whole / "export" / "provenance.json").read_text())
    assert provenance["run"]["oracle"]["kind"] == "predictor"
    assert ctl(whole, "export", "--out", str(tmp_path / "again")).returncode == 0


def test_on_the_official_files_a_search_comes_near_what_ofas_own_finds(tmp_path: Path) -> None:
    predictor = official_data("once-for-all/acc_predictor.pth")
    tables = official_data("once-for-all/latency_table@note10")
    chosen = (
        "oracle.kind=predictor",
        f"oracle.predictor.file={predictor}",
        f"oracle.predictor.latency_tables={tables}",
        "objective.latency_ms=25",
        "oracle.workers=1",
        "run.generations=75",
        "run.polish_evaluations=60",
        "run.export=false",
        "cognition.provider=none",
    )
    done = run(tmp_path / "state", settings=chosen)
    assert done.returncode == 0, done.stderr
    leader = json.loads(ctl(tmp_path / "state", "pareto", "--json").stdout)["leader"]
    assert leader["feasible"]
    assert leader["metrics"]["accuracy"] > 0.80  # OFA's evolution finds 0.819, in 50,100 evaluations


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        ("oracle.predictor.resolutions=[160, 192]", 72, "192_lookup_table.yaml: cannot be read"),
        ("oracle.predictor.resolutions=[160, 164]", 78, "OFA's predictor knows (112, 128, "),
        ("oracle.predictor.file=nowhere.pth", 66, "nowhere.pth: not OFA's accuracy predictor"),
        ("oracle.predictor.latency_tables=nowhere", 72, "cannot be read"),
        ("objective.latency_ms=0.5", 68, "out of reach"),
    ],
)
def test_wrong_files_and_resolutions_are_refused_in_one_line(
    files: Path, tmp_path: Path, change: str, code: int, hint: str
) -> None:
    refused = run(tmp_path / "state", settings=settings(files, change))
    assert refused.returncode == code, refused.stderr
    assert hint in one_line(refused.stderr)


def test_a_run_is_not_continued_on_other_tables_or_another_predictor(files: Path, tmp_path: Path) -> None:
    copy, state = tmp_path / "copy", tmp_path / "state"
    shutil.copytree(files, copy)
    long = settings(copy, "run.generations=100000")
    with daemon(state, settings=long) as process:
        wait_for(state, lambda s: s.get("run") is not None and s["run"]["generation"] >= 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    write_predictor(copy / "acc_predictor.pth", seed=1)
    assert "another oracle" in one_line(run(state, settings=long).stderr)
    table = copy / "tables" / "160_lookup_table.yaml"
    table.write_text(table.read_text() + "more: {mean: 1.0}\n")
    assert "another latency table" in one_line(run(state, settings=long).stderr)
