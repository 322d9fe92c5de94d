"""The daemon as a user has it: a real process, the embedded supernet, kills and bad input."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import pty
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from riwoa.ctl import main
from riwoa.ctl.help import read_page
from riwoa.hardware.build import build_table_in_child
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.runtime import Runtime
from riwoa.ipc.child import child_environment
from riwoa.run.front import read_front
from riwoa.supernet.geometry import Backbone
from riwoa_storage.events import AdapterUnusable, LatencyDrift, NetworkJudged
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from tests.conftest import save_tiny_llama, train_tokenizer
from tests.storage.samples import reseal
from tests.support.once import once

SMALL = (
    "run.generations=3",
    "run.polish_evaluations=6",
    "run.export=false",
    "run.finalists=0",
    "oracle.workers=1",
    "search.population=6",
    "search.offspring=6",
    "search.riwoa.first=6",
    "search.p_semantic=0.5",
    "cognition.provider=scripted",
    "cognition.role=slot",
    "cognition.script=mixed",
    "cognition.lag=1",
    "oracle.supernet.validation_views=1",
    "oracle.supernet.recalibration_images=100",
)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency table of this machine, measured in a hurry."""

    def measure(place: Path) -> None:
        path = place / "latency_lut.json"
        asyncio.run(build_table_in_child(path, Backbone(0.25, 10), (24, 32, 40), Runtime(), repeats=10, sessions=0))

    return once(tmp_path_factory, "measured", measure) / "latency_lut.json"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """The state of a run of ``SMALL`` that nobody disturbed; others write only into copies of it."""

    def search(place: Path) -> None:
        shutil.copy(table, place / "latency_lut.json")
        done = run(place)
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "undisturbed", search)


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a search that no test sees the end of, in a table: where the supernet is not the point."""

    def write(place: Path) -> None:
        ops = np.array(list(itertools.product(range(6), repeat=6)), dtype=np.uint8)
        np.savez(place / "cells.npz", ops=ops, acc=50.0 + ops.sum(axis=1) + np.cos(np.arange(len(ops))))

    file = once(tmp_path_factory, "cells", write) / "cells.npz"
    searched = [s for s in SMALL if not s.startswith(("run.generations", "oracle.supernet"))]
    of_table = ("oracle.kind=table", f"oracle.table.file={file}", "oracle.table.accuracy=acc")
    return (*searched, *of_table, "run.generations=100000")


@pytest.fixture
def state(tmp_path: Path, table: Path) -> Path:
    place = tmp_path / "state"
    place.mkdir()
    shutil.copy(table, place / "latency_lut.json")
    return place


def command(state: Path, *arguments: str, settings: Sequence[str] = SMALL) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "riwoa.service", "--state", str(state), *sets, *arguments]


def run(state: Path, *arguments: str, settings: Sequence[str] = SMALL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(state, *arguments, settings=settings),
        env=child_environment(1),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def ctl(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "riwoa.ctl", *arguments, "--state", str(state)],
        env=child_environment(1),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def daemon(state: Path, *arguments: str, settings: Sequence[str] = SMALL) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(state, *arguments, settings=settings),
        env=child_environment(1),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def on_a_terminal(state: Path, settings: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A daemon that a person starts by hand, and what it has said on the terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command(state, settings=settings), env=child_environment(1), stdout=its,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(its)
    try:
        yield process, lambda: os.read(ours, 65536).decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def status(state: Path) -> dict[str, Any]:
    """What the verb says, without a process for it: who waits asks often, and the daemon needs the core."""
    with io.TextIOWrapper(io.BytesIO(), "utf-8") as said, redirect_stdout(said):
        main(["status", "--json", "--state", str(state)])
        said.seek(0)
        return dict(json.loads(said.read()))


def wait_for(state: Path, condition: Any, timeout_s: float = 60) -> dict[str, Any]:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        seen = status(state)
        if condition(seen):
            return seen
        time.sleep(0.1)
    raise AssertionError(f"waited in vain; last status {seen}")


def evaluating(seen: dict[str, Any]) -> bool:
    return any(w["state"] == "busy" for w in seen.get("workers") or [])


def searching(seen: dict[str, Any]) -> bool:
    """Some of the search is done: what a worker does with a row of a table is over before anybody sees it."""
    return bool(seen.get("run")) and seen["run"]["generation"] >= 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: Sequence[int], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def trainings(state: Path) -> list[Any]:
    """Each adapter that a run trained up to the end of its search, and what it consumed."""
    with JournalReader(state / "journal.db") as reader:
        searched = sum(s.phase == "search" for s in reader.generation_summaries(1))
        return [
            (a.generation, a.sha256, a.status, a.training["consumed"])
            for a in reader.adapters(1)
            if a.generation < searched
        ]


def one_line(text: str) -> str:
    """The only line of an error; never a traceback."""
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("riwoad:")]
    return line


LEARNS = (
    *SMALL,
    "run.generations=8",
    "search.placebo_share=0",
    "search.offspring=8",  # half of them ask
    "search.riwoa.first=8",
    "objective.latency_ms=1000",  # nothing misses it: half of all changes help
    "search.p_semantic=1.0",
    "cognition.script=good",
    "cognition.train_after=1",  # few of the elites' neighbours win
    "cognition.train_lag=2",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("settings", [SMALL, LEARNS], ids=["searching", "learning"])
def test_killed_at_random_moments_and_continued_it_ends_in_the_uninterrupted_digest(
    settings: Sequence[str], state: Path, tmp_path: Path, whole: Path
) -> None:
    if settings is LEARNS:
        shutil.copytree(state, whole := tmp_path / "whole")
        assert run(whole, settings=settings).returncode == 0
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    kills = 0
    for _ in range(3):
        with daemon(state, settings=settings) as process:
            wait_for(state, lambda s: evaluating(s) or s["state"] in ("finished", "polishing"))
            time.sleep(rng.uniform(0, 2))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert run(state, settings=settings).returncode == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, f"seed {seed}, {kills} kills: {found.message}"
    assert trainings(whole) == trainings(state)
    assert bool(trainings(whole)) is (settings is LEARNS)
    assert verify(state / "journal.db").ok


def test_a_running_daemon_holds_its_state_answers_and_stops_in_time(state: Path) -> None:
    with daemon(state, settings=[*SMALL, "run.generations=500"]) as process:
        seen = wait_for(state, lambda s: s.get("run") and s["run"]["generation"] >= 1 and evaluating(s))
        second = run(state)
        assert second.returncode == 75
        assert f"process {process.pid} already serves" in one_line(second.stderr)
        attached = subprocess.Popen(
            command(state, "--foreground"), env=child_environment(1), stdout=subprocess.PIPE, text=True
        )
        assert attached.stdout is not None
        assert f"process {process.pid}" in attached.stdout.readline()
        time.sleep(1)
        attached.send_signal(signal.SIGINT)
        assert attached.wait(timeout=10) == 0
        assert process.poll() is None
        assert ctl(state, "pause").returncode == 0
        wait_for(state, lambda s: s["state"] == "paused")
        assert ctl(state, "resume").returncode == 0
        wait_for(state, lambda s: s["state"] == "running" and evaluating(s))
        workers = [w["pid"] for w in seen["workers"]]
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - started < 10
        assert gone(workers, 2)
    stopped = ctl(state, "status")
    assert stopped.returncode == 3
    assert "stopped" in stopped.stdout
    assert verify(state / "journal.db").ok


def test_workers_die_with_a_killed_daemon_and_the_state_is_free(state: Path) -> None:
    with daemon(state) as process:
        seen = wait_for(state, evaluating)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert gone([w["pid"] for w in seen["workers"]], 3)
    assert ctl(state, "status").returncode == 3
    assert run(state).returncode == 0


def test_a_foreground_daemon_does_not_outlive_what_started_it(state: Path, endless: tuple[str, ...]) -> None:
    line = " ".join(command(state, "--foreground", settings=endless))
    with subprocess.Popen(
        ["/bin/sh", "-c", f"{line}; true"], env=child_environment(1), stdout=subprocess.DEVNULL
    ) as make:
        seen = wait_for(state, searching)
        make.send_signal(signal.SIGKILL)
        assert gone([seen["pid"], *(w["pid"] for w in seen["workers"])], 12)
    assert ctl(state, "status").returncode == 3


def test_a_killed_worker_is_replaced_and_its_candidate_not_lost(state: Path) -> None:
    with daemon(state, settings=[*SMALL, "run.generations=500"]) as process:
        seen = wait_for(state, evaluating)
        victim = next(w["pid"] for w in seen["workers"] if w["state"] == "busy")
        os.kill(victim, signal.SIGKILL)
        after = wait_for(state, lambda s: s["run"]["generation"] > seen["run"]["generation"] + 1)
        assert sum(w["restarts"] for w in after["workers"]) == 1
        assert after["evaluations"]["failed"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_a_finished_run_is_reported_and_another_started_on_request(whole: Path, tmp_path: Path) -> None:
    state = shutil.copytree(whole, tmp_path / "state")
    started = time.monotonic()
    again = run(state, "--foreground")
    assert again.returncode == 0
    assert time.monotonic() - started < 15  # no worker was started for it
    assert "Winner" in again.stdout
    assert "on 400 pictures that chose nothing" in again.stdout
    assert status(state)["test"]["pictures"] == 400
    with JournalReader(state / "journal.db") as reader:
        judged = reader.events(1, NetworkJudged)
        front = read_front(reader, reader.run(1)).networks
    assert len(judged) == len({event.architecture_key for event in judged})  # each once, and not again by this start
    assert {network.point.key for network in front} <= {event.architecture_key for event in judged}
    (shown,) = re.findall(r"```\n(Run 1 finished.*?)```", read_page("quickstart"), re.DOTALL)
    names = re.compile(r"^ {0,2}([a-z]+)  |^(Winner|Pareto front, fastest first) ", re.MULTILINE)
    assert {*names.findall(shown)} - {("measured", "")} <= {*names.findall(again.stdout)}
    assert ctl(state, "status").returncode == 0
    refused = run(state, settings=[*SMALL, "run.seed=5"])
    assert refused.returncode == 0  # finished is finished; only an unfinished run is held to its settings
    assert run(state, "--new-run", settings=[*SMALL, "run.seed=5"]).returncode == 0
    with JournalReader(state / "journal.db") as reader:
        assert [(r.run_id, r.status, r.provenance["seed"]) for r in reader.runs()] == [
            (1, "finished", 0),
            (2, "finished", 5),
        ]


def test_an_unfinished_run_refuses_keys_that_cannot_change_and_names_the_way_out(
    state: Path, endless: tuple[str, ...]
) -> None:
    with on_a_terminal(state, settings=endless) as (process, said):
        seen = wait_for(state, searching)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        told = said()
    assert f"riwoad writes into {state}: journal.db" in told
    assert f"stopped: stopped on request; start again to continue\r\njournal: {state}/journal.db" in told
    assert f"this goes on: {seen['go_on']}" in told
    assert f"--state {state} --set " in seen["go_on"]
    refused = run(state, settings=[*endless, "search.population=7"])
    assert refused.returncode == 78
    assert "search.population (6 -> 7)" in one_line(refused.stderr)
    assert "--new-run" in refused.stderr
    more = [*endless, "oracle.workers=3"]  # decides no result, so it may change at a restart
    with daemon(state, settings=more) as process:
        assert len(wait_for(state, lambda s: s.get("run") and s.get("workers"))["workers"]) == 3
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def edit_file_of(state: Path, text: str) -> Path:
    file = state.parent / "riwoa.toml"
    file.write_text(text)
    return file


def test_an_edit_of_the_config_file_applies_and_a_bad_one_shows_in_status(
    state: Path, endless: tuple[str, ...]
) -> None:
    file = edit_file_of(state, "[run]\ngenerations = 50000\n")
    settings = [s for s in endless if not s.startswith("run.generations")]
    with daemon(state, "--config", str(file), settings=settings) as process:
        wait_for(state, searching)
        file.write_text("[run]\ngenerations = 50001\n")
        wait_for(state, lambda s: s["run"]["generations"] == 50001)
        file.write_text("[run]\ngenerations = 'many'\n")
        bad = wait_for(state, lambda s: s["config"]["error"])
        assert "run.generations" in bad["config"]["error"]
        assert bad["run"]["generations"] == 50001
        file.write_text("[run]\ngenerations = 50002\n")
        process.send_signal(signal.SIGHUP)
        wait_for(state, lambda s: s["run"]["generations"] == 50002 and not s["config"]["error"])


# -- the language model ------------------------------------------------------------------------------------------------


def test_without_a_model_the_search_is_geometric_and_status_says_what_to_do(state: Path) -> None:
    assert run(state, settings=[*SMALL, "run.generations=1", "cognition.provider=model"]).returncode == 0
    shown = status(state)["cognition"]
    assert shown["state"] == "geometric only"
    assert "riwoactl model pull smollm2" in shown["reason"]
    with JournalReader(state / "journal.db") as reader:
        (only,) = reader.runs()
    assert only.provenance["model"] is None


def test_a_run_keeps_to_its_model_and_outlives_it(state: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    save_tiny_llama(model, train_tokenizer)
    settings = [*SMALL, "run.generations=6", "search.p_semantic=1.0", "cognition.provider=model", "cognition.role=slot",
                "cognition.thinking_tokens=4", f"cognition.model={model}"]  # fmt: skip
    with daemon(state, settings=settings) as process:
        seen = wait_for(state, lambda s: s.get("proposals") and s["proposals"]["answered"], 90)
        assert seen["cognition"]["model"].startswith("mine@")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    with JournalReader(state / "journal.db") as reader:
        replies = reader.replies(1).values()
        assert reader.runs()[0].provenance["model"] == seen["cognition"]["model"]
    # Written by the model; what the stop cut short is no failure of the model.
    assert replies
    assert all(r.status == "ok" and r.text.startswith("<think>") for r in replies)
    save_tiny_llama(model, train_tokenizer, seed=1)
    line = refusal(state, 78, settings=settings)
    assert seen["cognition"]["model"] in line
    assert "--new-run" in line
    shutil.rmtree(model)
    assert run(state, settings=settings).returncode == 0
    assert status(state)["cognition"]["state"] == "model gone"
    with JournalReader(state / "journal.db") as reader:
        assert any(r.status == "failed" and "is gone" in str(r.reason) for r in reader.replies(1).values())


# -- bad input ---------------------------------------------------------------------------------------------------------


def refusal(state: Path, code: int, *arguments: str, settings: Sequence[str] = SMALL) -> str:
    answer = run(state, *arguments, settings=settings)
    assert answer.returncode == code, answer.stderr
    return one_line(answer.stderr)


def test_an_infeasible_target_is_found_before_the_search_and_the_range_printed(state: Path, table: Path) -> None:
    low_ms, high_ms = LatencyTable.load(table).range_ms()
    line = refusal(state, 68, settings=[*SMALL, f"objective.latency_ms={low_ms / 2}"])
    assert f"{low_ms:.3f} to {high_ms:.3f} ms" in line
    with JournalReader(state / "journal.db") as reader:
        assert not reader.runs()


def test_an_unknown_key_is_refused_with_the_nearest_valid_one(state: Path) -> None:
    assert "did you mean 'search.population'" in refusal(state, 78, settings=["search.popluation=3"])


def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--state" in refusal(tmp_path / "file" / "state", 73)


def test_a_truncated_checkpoint_is_refused(state: Path, tmp_path: Path) -> None:
    whole = Path(__file__).resolve().parents[2] / "daemon/riwoa/data/digits_supernet.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:100_000])
    assert str(cut) in refusal(state, 66, settings=[*SMALL, f"oracle.supernet.checkpoint={cut}"])


def test_a_table_of_another_device_is_refused(state: Path) -> None:
    path = state / "latency_lut.json"
    data = json.loads(path.read_text())
    data.pop("sha256")
    data["device"]["cpu"] = "another processor"
    path.write_text(json.dumps(data))
    assert "lut build" in refusal(state, 72)


def test_a_table_that_lacks_an_operator_is_refused(state: Path) -> None:
    path = state / "latency_lut.json"
    data = json.loads(path.read_text())
    data.pop("sha256")
    data["entries"].pop(sorted(data["entries"])[0])
    path.write_text(json.dumps(data))
    assert "lacks 1 operator" in refusal(state, 72)


def test_a_journal_of_a_newer_version_is_left_alone(state: Path) -> None:
    shutil.copy(Path(__file__).resolve().parents[1] / "golden" / "journal_v1.db", state / "journal.db")
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("PRAGMA user_version = 999")
    before = (state / "journal.db").read_bytes()
    assert "newer" in refusal(state, 76)
    assert (state / "journal.db").read_bytes() == before


@pytest.mark.timeout(300)
def test_a_damaged_adapter_is_left_out_and_the_daemon_goes_on_with_the_one_before(state: Path) -> None:
    settings = [*LEARNS, "run.generations=500"]

    def accepted() -> list[str]:
        with JournalReader(state / "journal.db") as reader:
            return [a.sha256 for a in reader.adapters(1, weights=False) if a.status != "rejected"]

    with daemon(state, settings=settings) as process:
        wait_for(state, lambda s: s.get("run") and len(accepted()) >= 2, timeout_s=120)
        process.send_signal(signal.SIGKILL)
        process.wait()
    *_, last = accepted()
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("UPDATE adapters SET weights = x'00' WHERE sha256 = ?", (last,))
    with daemon(state, settings=settings) as process:
        wait_for(state, lambda s: last in ((s.get("proposals") or {}).get("learning") or {}).get("unusable", []))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    with JournalReader(state / "journal.db") as reader:
        (event,) = reader.events(1, AdapterUnusable)
    assert event.sha256 == last
    assert "weights of adapter" in ctl(state, "verify").stderr  # the full check still tells


def test_a_broken_chain_stops_the_daemon_before_it_adds_to_it(state: Path, endless: tuple[str, ...]) -> None:
    with daemon(state, settings=endless) as process:
        wait_for(state, lambda s: s.get("run") and s["run"]["generation"] >= 2)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("UPDATE individuals SET fitness = fitness + 0.01 WHERE generation = 1 AND slot = 0")
    assert "generation 1" in refusal(state, 65, settings=endless)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, that the test may fill and enlarge."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


UNWATCHED = ("governor.disk_pause_bytes=0", "governor.disk_resume_bytes=0")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@needs_root
def test_in_the_foreground_a_full_disk_ends_the_search_in_one_line_and_room_lets_it_go_on(
    tmp_path: Path, endless: tuple[str, ...]
) -> None:
    with small_disk(tmp_path / "small", "600k") as small:
        settings = [*endless, *UNWATCHED]
        done = run(small, "--foreground", settings=settings)
        assert done.returncode == 74, done.stderr
        assert "nothing is lost" in done.stderr
        before = verify(small / "journal.db").runs[0].generations
        resize(small, "40m")
        with daemon(small, settings=settings) as process:
            wait_for(small, lambda s: s.get("run") and s["run"]["generation"] > before + 1)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@needs_root
def test_a_daemon_whose_disk_fills_up_stays_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, endless: tuple[str, ...]
) -> None:
    with small_disk(tmp_path / "small", "600k") as small:
        with daemon(small, settings=[*endless, *UNWATCHED, "governor.retry_s=0.5"]) as process:
            full = wait_for(small, lambda s: s["state"] == "unhealthy")
            assert "no space left" in full["message"]
            assert ctl(small, "status").returncode == 4
            before = full["run"]["generation"]
            resize(small, "40m")
            wait_for(small, lambda s: s["state"] == "running" and s["run"]["generation"] > before + 1)
            assert process.poll() is None
        verify(small / "journal.db")


@needs_root
def test_a_disk_that_is_nearly_full_pauses_the_search_before_it_is(tmp_path: Path, endless: tuple[str, ...]) -> None:
    levels = ("governor.disk_pause_bytes=20000000", "governor.disk_resume_bytes=30000000", "governor.every_s=0.2")
    with small_disk(tmp_path / "small", "64m") as small:
        with daemon(small, settings=[*endless, *levels]):
            wait_for(small, searching)
            ballast = small / "somebody-elses.iso"
            ballast.write_bytes(bytes(48_000_000))
            held = wait_for(small, lambda s: s["state"] == "paused")
            assert "MiB free on the disk; goes on above 28.61" in held["message"]
            assert list(held["governor"]["holds"]) == ["disk"]
            refused = ctl(small, "resume")
            assert "still paused" in refused.stdout
            generation = settled_generation(small)
            ballast.unlink()
            wait_for(small, lambda s: s["state"] == "running" and s["run"]["generation"] > generation)


def settled_generation(state: Path) -> int:
    """Where a paused search stands once its generation under way is committed or waits."""
    seen = -1
    while (now := status(state)["run"]["generation"]) != seen:
        seen = now
        time.sleep(1.5)
    return int(seen)


def test_in_quiet_hours_the_workers_are_gone_and_the_same_run_goes_on_afterwards(
    state: Path, tmp_path: Path, endless: tuple[str, ...]
) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[governor]\nevery_s = 0.2\n")
    with daemon(state, "--config", str(file), settings=endless) as process:
        wait_for(state, searching)
        file.write_text('[governor]\nevery_s = 0.2\nquiet_hours = ["00:00-12:00", "12:00-00:00"]\n')
        held = wait_for(state, lambda s: s["state"] == "paused" and not children(process.pid))
        assert "quiet hours" in held["message"]
        file.write_text("[governor]\nevery_s = 0.2\n")
        wait_for(state, lambda s: s["state"] == "running" and s["run"]["generation"] > held["run"]["generation"])
    assert len(verify(state / "journal.db").runs) == 1


def children(pid: int) -> list[int]:
    """Worker processes of a daemon."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_now_and_then_the_latency_table_is_checked_and_the_search_goes_on(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[latency]\ndrift_every_s = 1.0\n")
    with daemon(state, "--config", str(file), settings=[*SMALL, "run.generations=500"]):
        seen = wait_for(state, lambda s: s.get("latency") is not None, timeout_s=120)
        assert seen["latency"]["verdict"] in ("steady", "unclear", "drifted")
        assert len(seen["latency"]["sentinels"]) >= 3
        file.write_text("[latency]\ndrift_every_s = 1e6\n")
        wait_for(state, lambda s: s["state"] == "running" and s["run"]["generation"] > seen["run"]["generation"])
    with JournalReader(state / "journal.db") as reader:
        (told, *_) = reader.events(1, LatencyDrift)
    assert told.verdict == seen["latency"]["verdict"]


def test_an_oracle_that_fails_altogether_is_tried_again_while_the_daemon_stays_up(
    state: Path, endless: tuple[str, ...]
) -> None:
    """Every worker is killed as soon as it is seen, until the oracle is given up; then it is left alone."""
    with daemon(state, settings=[*endless, "governor.retry_s=0.5"]) as process:
        wait_for(state, searching)
        end = time.monotonic() + 60
        while status_file(state)["state"] != "unhealthy":
            assert time.monotonic() < end
            for child in children(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.05)
        generation = status_file(state)["run"]["generation"]
        wait_for(state, lambda s: s["state"] == "running" and s["run"]["generation"] > generation + 1)
        assert process.poll() is None
    verify(state / "journal.db")


def status_file(state: Path) -> dict[str, Any]:
    return dict(json.loads((state / "status.json").read_text()))


def clock(minutes: float) -> str:
    return f"{datetime.now() + timedelta(minutes=minutes):%H:%M}"


def test_by_day_a_nightly_search_does_nothing(state: Path) -> None:
    done = run(state, "--nightly", f"{clock(60)}-{clock(120)}")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert not (state / "journal.db").exists()


def test_a_nightly_search_ends_by_the_morning_and_the_next_night_begins_another(
    state: Path, endless: tuple[str, ...]
) -> None:
    settings = [*endless, "run.generations=3", "run.deadline_margin_s=0.0"]
    night = f"{clock(-60)}-{clock(60)}"
    assert run(state, "--nightly", night, settings=settings).returncode == 0
    (first,) = verify(state / "journal.db").runs
    with JournalReader(state / "journal.db") as reader:
        config = reader.config_revisions(first.run_id)[0].config
    assert config["run"]["deadline"].endswith(clock(60)) or config["run"]["deadline"].endswith(clock(59))
    assert run(state, "--nightly", night, settings=settings).returncode == 0  # the same night: it is done
    assert len(verify(state / "journal.db").runs) == 1
    with sqlite3.connect(state / "journal.db") as db:  # as if that had been the night before
        db.execute("UPDATE generations SET committed_unix_s = committed_unix_s - 86400")
    reseal(state / "journal.db")
    assert run(state, "--nightly", night, settings=settings).returncode == 0
    second = verify(state / "journal.db").runs[1]
    assert second.status == "finished"
    assert second.generations == first.generations
    assert second.digest != first.digest  # another seed, or every night would find the same
    with sqlite3.connect(state / "journal.db") as db:  # by a clock that was a year ahead
        db.execute("UPDATE generations SET committed_unix_s = committed_unix_s + 31536000")
    reseal(state / "journal.db")
    assert run(state, "--nightly", night, settings=settings).returncode == 0
    assert len(verify(state / "journal.db").runs) == 3


def test_a_night_cut_short_before_its_deadline_is_ended_by_day(state: Path, endless: tuple[str, ...]) -> None:
    """The power was gone at the deadline: what the run found is finished without an oracle, whatever the hour."""
    with daemon(state, settings=endless) as process:
        wait_for(state, lambda s: s.get("run") and s["run"]["generation"] >= 2)
        process.kill()
    past = (datetime.now() - timedelta(minutes=5)).isoformat(timespec="seconds")
    with sqlite3.connect(state / "journal.db") as db:
        (text,) = db.execute("SELECT config FROM config_revisions").fetchone()
        config = json.loads(text)
        config["run"]["deadline"] = past
        db.execute("UPDATE config_revisions SET config = ?", (json.dumps(config),))
    reseal(state / "journal.db")
    (before,) = verify(state / "journal.db").runs
    done = run(state, "--nightly", f"{clock(60)}-{clock(120)}", settings=endless)
    assert done.returncode == 0, done.stderr
    (after,) = verify(state / "journal.db").runs
    assert (after.status, after.digest) == ("finished", before.digest)


def test_a_nightly_that_is_no_span_is_refused(state: Path) -> None:
    done = run(state, "--nightly", "late")
    assert done.returncode == 64
    assert "22:00-07:00" in done.stderr
