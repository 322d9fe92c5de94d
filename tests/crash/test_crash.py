"""SIGKILL at every named step between two durable states, and at random moments: nothing lost, nothing done twice.

Each life of the daemon is a real process on the embedded supernet. It is killed, started again, killed again, until the
run is over; then the journal must be whole, hold every evaluation that any life had stored, and end in the digest of
the run that nobody killed. A short share runs in ``make test``, all of it in ``make test-crash``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from riwoa.cognition.protocol import ModelSpec
from riwoa.ipc.child import child_environment
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from tests.service.test_service import LEARNS, SMALL, command, trainings
from tests.service.test_service import table as table
from tests.service.test_service import whole as whole

KILLS = int(os.environ.get("TEST_KILLS", "100"))
LIVES = 400  # more than any run needs: a life that makes no progress would never end
LIFE_S = 120.0


def learning(model: ModelSpec, seed: int) -> tuple[str, ...]:
    """A search whose (tiny, random) model really writes, and really trains adapters, greedily."""
    return (
        *LEARNS,
        f"run.seed={seed}",
        "run.generations=8",
        "cognition.provider=model",
        "cognition.role=slot",
        f"cognition.model={model.directory}",
        "cognition.temperature=0.0",
        "cognition.template=compact",
        "cognition.thinking_tokens=4",
        "cognition.probes=2",
    )


@dataclass
class Hunt:
    """Lives of a daemon on one state directory."""

    state: Path
    settings: Sequence[str]
    kills: int = 0
    stored: set[str] = field(default_factory=set)  # evaluations that some life had stored
    reached: tuple[int, ...] = ()  # evaluations, replies, adapters, generations

    def live(self, failpoint: str = "", *, child: str = "", after_s: float | None = None) -> int:
        """One life; its exit status. Killed at a failpoint, or after some seconds, if it lasts so long."""
        self._nothing_is_lost()
        before = len(self.stored)
        environment = {**child_environment(1), "RIWOA_FAILPOINT": failpoint, "RIWOA_CHILD_FAILPOINT": child}
        process = subprocess.Popen(
            command(self.state, settings=self.settings),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, stderr = process.communicate(timeout=after_s or LIFE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            assert after_s is not None, f"a life hung for {LIFE_S:g} s"
            stderr = ""
        assert process.returncode in (0, -signal.SIGKILL), stderr
        self.kills += process.returncode != 0
        self._nothing_is_lost()
        if process.returncode == 0:  # its status tells what it evaluated: each was stored, and none was there before
            status = json.loads((self.state / "status.json").read_text())
            done = sum(worker["done"] for worker in status["workers"])
            assert done == len(self.stored) - before
        return process.returncode

    def _nothing_is_lost(self) -> None:
        if not (self.state / "journal.db").exists():
            return
        assert verify(self.state / "journal.db").ok
        with JournalReader(self.state / "journal.db") as reader:
            run = reader.latest_run()
            if run is None:
                return
            version = run.provenance["oracle_version"]
            found = {evaluation.architecture_key for evaluation in reader.evaluations(version)}
            replies, adapters = reader.replies(run.run_id), reader.adapters(run.run_id, weights=False)
            self.reached = len(found), len(replies), len(adapters), run.generations
        assert self.stored <= found
        self.stored = found

    def finish(self, whole: Path) -> None:
        """A last life in peace; then everything is as in the run that nobody killed."""
        assert self.live() == 0
        found = compare(whole / "journal.db", self.state / "journal.db")
        assert found.same, found.message
        assert trainings(whole) == trainings(self.state)


def fresh(place: Path, table: Path) -> Path:
    place.mkdir()
    shutil.copy(table, place / "latency_lut.json")
    return place


def uninterrupted(tmp_path: Path, table: Path, settings: Sequence[str]) -> Path:
    hunt = Hunt(fresh(tmp_path / "whole", table), settings)
    assert hunt.live() == 0
    return hunt.state


def uninterrupted_learning(tmp_path: Path, table: Path, model: ModelSpec) -> tuple[Path, tuple[str, ...]]:
    """A run that trained, and its settings: what a random model writes wins by luck, which the seed decides."""
    for seed in range(12):
        settings = learning(model, seed)
        (tmp_path / f"seed{seed}").mkdir()
        whole = uninterrupted(tmp_path / f"seed{seed}", table, settings)
        if trainings(whole):
            return whole, settings
    raise AssertionError("no seed led to a training")


def hunted(tmp_path: Path, table: Path, settings: Sequence[str], failpoint: str, whole: Path | None = None) -> Hunt:
    """Killed at the failpoint's nth passing in each life, until a life gets through.

    Which transaction is the nth is the scheduler's choice: a life that got no further is followed by one that may pass
    the failpoint once more.
    """
    whole = whole or uninterrupted(tmp_path, table, settings)
    hunt = Hunt(fresh(tmp_path / "hunted", table), settings)
    name, _, nth = failpoint.partition(":")
    more = 0
    for _ in range(LIVES):
        before = hunt.reached
        if hunt.live(f"{name}:{int(nth) + more}") == 0:
            break
        more = more + 1 if hunt.reached == before else 0
    hunt.finish(whole)
    assert hunt.kills > 0, f"no life ever passed {failpoint}"
    return hunt


@pytest.mark.timeout(400)
def test_killed_before_and_after_commits_it_ends_in_the_same_digest(tmp_path: Path, table: Path, whole: Path) -> None:
    hunted(tmp_path, table, SMALL, "journal.after_commit:11", whole)


@pytest.mark.crash
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("nth", [5, 6, 8])
def test_killed_around_every_transaction(tmp_path: Path, table: Path, side: str, nth: int) -> None:
    """A life's first three transactions say that it resumed and how far it is proved: then each gets further."""
    print(f"\n{hunted(tmp_path, table, LEARNS, f'journal.{side}_commit:{nth}').kills} kills")


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("failpoint", ["child.asked:9", "conductor.evaluated:6", "journal.after_commit:9"])
def test_killed_while_candidates_are_under_way(tmp_path: Path, table: Path, failpoint: str) -> None:
    """Each life asks as the clock has it; nothing is lost or evaluated twice. ``tests/run`` replays such histories."""
    settings = (*SMALL, "search.riwoa.joint=true", "search.riwoa.first=6", "search.asynchronous=true")
    hunt = Hunt(fresh(tmp_path / "hunted", table), settings)
    for _ in range(LIVES):
        if hunt.live(failpoint) == 0:
            break
    assert hunt.kills > 0, f"no life ever passed {failpoint}"


@pytest.mark.crash
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "failpoint",
    [
        *("child.asked:3", "child.asked:8", "conductor.evaluated:2", "proposals.adapter_in_use:2"),
        *("durable.before_rename:1", "durable.after_rename:1", "journal.before_commit:6", "journal.after_commit:6"),
    ],
)
def test_killed_while_a_real_model_writes_and_learns(
    tmp_path: Path, table: Path, tiny_llama: ModelSpec, failpoint: str
) -> None:
    whole, settings = uninterrupted_learning(tmp_path, table, tiny_llama)
    print(f"\n{hunted(tmp_path, table, settings, failpoint, whole).kills} kills")


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("model", [False, True], ids=["scripted", "tiny-llama"])
def test_killed_at_random_moments(tmp_path: Path, table: Path, tiny_llama: ModelSpec, model: bool) -> None:
    if model:
        whole, settings = uninterrupted_learning(tmp_path, table, tiny_llama)
    else:
        whole, settings = uninterrupted(tmp_path, table, LEARNS), LEARNS
    seed = random.SystemRandom().randrange(2**32)
    rng, kills, runs = random.Random(seed), 0, 0
    print(f"\nseed {seed}")
    while kills < KILLS // 2:
        hunt = Hunt(fresh(tmp_path / f"hunted{runs}", table), settings)
        runs += 1
        while kills + hunt.kills < KILLS // 2 and hunt.live(after_s=rng.uniform(1.0, 7.0)) != 0:
            pass
        kills += hunt.kills
        hunt.finish(whole)
    print(f"{kills} kills in {runs} runs")


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("failpoint", ["export.before_rename", "export.between_renames", "export.after_rename"])
def test_an_export_that_is_killed_is_made_again(tmp_path: Path, table: Path, failpoint: str) -> None:
    settings = (*SMALL, "run.export=true")
    hunt = Hunt(fresh(tmp_path / "state", table), settings)
    if failpoint == "export.between_renames":  # an older export makes way
        assert hunt.live() == 0
        old = json.loads((hunt.state / "export" / "provenance.json").read_text())
        (hunt.state / "export" / "provenance.json").write_text(json.dumps({**old, "digest": "of another run"}))
        (hunt.state / "export" / "notes.txt").write_text("mine")
    assert hunt.live(child=failpoint) == 0
    assert hunt.live() == 0
    names = {path.name for path in (hunt.state / "export").iterdir()}
    assert {"architecture.json", "model.safetensors", "provenance.json"} <= names
    assert json.loads((hunt.state / "export" / "provenance.json").read_text())["digest"] != "of another run"
    if failpoint == "export.between_renames":
        assert (hunt.state / "export" / "notes.txt").read_text() == "mine"
