"""``make gpu-evidence``: slices, what lies between them, and a rehearsal of all of it on the processor."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riwoa.bench.gpu import Evidence, Places, run_slice
from riwoa.bench.gpu_page import BEGIN, END, rendered, states
from riwoa.bench.gpu_plan import TRTEXEC, Command, Measurement, measurements
from riwoa.ctl import main
from riwoa.ctl.help import read_page
from riwoa.errors import FullDiskError, InputError
from riwoa.ipc.child import child_command, child_environment

# A command as riwoa's own are: it keeps its state, killed and run again it continues, and it ends with its parent.
COUNTER = """
import pathlib, sys, time
from riwoa.ipc.child import die_with_parent
die_with_parent()
state, last = pathlib.Path(sys.argv[1], "state"), int(sys.argv[2])
state.parent.mkdir(parents=True, exist_ok=True)
if last < 0:
    sys.exit(9)
while (done := int(state.read_text()) if state.exists() else 0) < last:
    with open(sys.argv[3], "a") as log:
        log.write(f"{done + 1}\\n")
    state.with_name("new").write_text(str(done + 1))
    state.with_name("new").replace(state)
    time.sleep(0.02)
"""


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measurement]:
    """Makes a measurement that counts to a number in its folder; what it counts is in ``log``."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/counter.py").write_text(COUNTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr("riwoa.bench.gpu._LEAST_S", 0.1)

    def make(name: str, last: int, **more: Any) -> Measurement:
        arguments = (str(tmp_path / "work" / name), str(last), str(tmp_path / "log"))
        return Measurement(name, (Command("count", "counter", arguments),), **more)

    return make


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "results", tmp_path / "work")


def go_on(places: Places, plan: list[Measurement], most_s: float = 60.0, again: tuple[str, ...] = ()) -> Evidence:
    return run_slice(places, plan, "a card", most_s, print, again)


def to_another_machine(places: Places) -> None:
    """What is not in the results is lost."""
    subprocess.run(["rm", "-rf", places.work], check=True)


def files(places: Places) -> list[str]:
    return sorted(path.name for path in places.results.iterdir())


# -- slices ------------------------------------------------------------------------------------------------------------


def test_a_slice_ends_in_time_and_another_machine_goes_on_where_it_was(
    counting: Callable[..., Measurement], places: Places, tmp_path: Path
) -> None:
    plan = [counting("long", 150, moves=True, stays=True), counting("short", 2)]
    slices = 0
    while not (evidence := go_on(places, plan, 1.5)).record("long").done:
        slices += 1
        assert files(places) == ["evidence.json", f"long-{slices}.0"]
        assert states(plan, evidence)[0][1] == "under way, next"
        to_another_machine(places)
    assert slices >= 1
    counted = [int(line) for line in (tmp_path / "log").read_text().split()]
    # Ended between its line and its state, it counts that one again; none is left out.
    assert list(dict.fromkeys(counted))[:150] == list(range(1, 151))
    assert len(counted) <= 152 + slices
    assert evidence.record("long").slices == slices + 1
    evidence = go_on(places, plan)
    assert [evidence.record(m.name).done for m in plan] == [True, True]
    assert files(places) == ["evidence.json", f"long-{slices + 1}.0"]  # others need its folder, not the short one's
    before = (places.results / "evidence.json").stat().st_mtime_ns
    assert [row[1] for row in states(plan, go_on(places, plan))] == ["done", "done"]
    assert (places.results / "evidence.json").stat().st_mtime_ns >= before


def test_what_cannot_move_begins_anew_elsewhere(counting: Callable[..., Measurement], places: Places) -> None:
    plan = [counting("bound", 10_000)]
    go_on(places, plan, 1.0)
    here = int((places.work / "bound/state").read_text())
    assert go_on(places, plan, 1.0).record("bound").slices == 2
    assert int((places.work / "bound/state").read_text()) > here
    to_another_machine(places)
    assert go_on(places, plan, 1.0).record("bound").slices == 1
    assert files(places) == ["evidence.json"]


def test_what_failed_says_why_stops_nothing_and_is_tried_again_last(
    counting: Callable[..., Measurement], places: Places
) -> None:
    bad, after, ok = counting("bad", -1), counting("after", 1, needs=("bad",)), counting("ok", 1)
    evidence = go_on(places, [bad, after, ok])
    assert [evidence.record(m.name).done for m in (bad, after, ok)] == [False, False, True]
    told = {name: state for name, state, _ in states([bad, after, ok], evidence)}
    assert told["bad"].startswith("to be tried again: count: exit code 9")
    assert told["after"] == "waits for bad"
    mended = [counting("bad", 1), after, ok]
    go_on(places, mended)
    assert all(state == "done" for _, state, _ in states(mended, go_on(places, mended)))


def test_large_states_are_packed_in_small_files(
    counting: Callable[..., Measurement], places: Places, tmp_path: Path
) -> None:
    plan = [counting("big", 1, moves=True, stays=True)]
    (places.work / "big").mkdir(parents=True)
    (places.work / "evidence.json").write_text("{}")
    go_on(places, plan, 0.0)  # time enough for nothing
    blob = os.urandom(17 * 2**20)
    (places.work / "big").mkdir(exist_ok=True)
    (places.work / "big/training.pt").write_bytes(blob)
    go_on(places, plan)
    parts = [path for path in places.results.iterdir() if path.name.startswith("big-")]
    assert len(parts) == 2
    assert max(path.stat().st_size for path in parts) < 16 * 2**20
    to_another_machine(places)
    go_on(places, plan)
    assert (places.work / "big/training.pt").read_bytes() == blob
    parts[0].write_bytes(b"another")
    to_another_machine(places)
    with pytest.raises(InputError, match=r"not what was packed; bring it .* --again big"):
        go_on(places, plan)
    assert go_on(places, plan, again=("big",)).record("big").done


def test_a_full_results_folder_is_told_and_costs_nothing(
    counting: Callable[..., Measurement], places: Places, tmp_path: Path
) -> None:
    plan = [counting("big", 3, moves=True, stays=True)]
    go_on(places, plan, 0.0)
    (places.work / "big").mkdir(exist_ok=True)
    (places.work / "big/training.pt").write_bytes(os.urandom(2**21))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(FullDiskError, match="free some space, or name another --results"):
            go_on(places, plan)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert go_on(places, plan).record("big").done
    assert (tmp_path / "log").read_text().split() == ["1", "2", "3"]


def test_evidence_of_another_version_or_damaged_is_refused(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    places.results.mkdir()
    verb = ["bench", "gpu", "--status", "--results", str(places.results)]
    for text, words in (
        ('{"schema": 99}', "of another version of riwoa (format 99, not 1)"),
        ("{", "cannot be read"),
        ('{"schema": 1, "rehearsal": true, "key": "a", "slices": 1, "records": {}}', "is of a rehearsal"),
        ('{"schema": 1, "rehearsal": false, "key": "a", "slices": 1, "records": {"a": {"x": 1}}}', "cannot be read"),
    ):
        (places.results / "evidence.json").write_text(text)
        assert main(verb) == 66
        [line] = capsys.readouterr().err.splitlines()
        assert words in line


def test_without_a_gpu_or_with_a_wrong_name_it_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.hardware.accelerator.probe_accelerator", lambda: None)
    results = tmp_path / "results"
    assert main(["bench", "gpu", "--results", str(results)]) == 64
    [line] = capsys.readouterr().err.splitlines()
    assert "needs a CUDA GPU, and torch finds none here" in line
    assert not results.exists()
    assert main(["bench", "gpu", "--results", str(results), "--rehearse", "--again", "all"]) == 64
    assert "there are supernet, table, tensorrt, search, validate, model" in capsys.readouterr().err
    (tmp_path / "mine").touch()
    assert main(["bench", "gpu", "--results", str(results), "--rehearse", "--work", str(tmp_path)]) == 64
    assert "holds files of something else" in capsys.readouterr().err


def test_the_full_plan_is_of_cifar_100_on_the_gpu_and_its_program_that_of_the_handbook() -> None:
    plan = {m.name: m for m in measurements(Path("/w"), "/w/pictures", rehearsal=False)}
    lines = {name: [" ".join(c.arguments) for c in m.commands] for name, m in plan.items()}
    assert "--width 0.5 --stem small --resolutions 24,28,32 --minutes 40" in lines["supernet"][0]
    assert "--runtime torch --compute cuda --repeats 500" in lines["table"][0]
    assert "--state /w/search validate cifar100 --data /w/pictures" in lines["validate"][0]
    assert all("oracle.supernet.device=cuda" in lines[name][-2] for name in ("search", "model"))
    assert TRTEXEC in read_page("latency")


# -- all of it ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_rehearsal_killed_in_mid_slice_goes_on_to_the_end_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, work, page = tmp_path / "results", tmp_path / "work", tmp_path / "results.md"
    page.write_text(f"# Results\n\n{BEGIN}\n{END}\n")
    verb = ["bench", "gpu", "--rehearse", "--results", str(results), "--work", str(work), "--page", str(page)]
    with subprocess.Popen(child_command("riwoa.ctl", *verb), env=child_environment(1)) as killed:
        until((work / "table/.table.json.partial").exists)
        assert main(verb) == 75  # one at a time in a workplace
        killed.send_signal(signal.SIGKILL)
    capsys.readouterr()
    assert json.loads((results / "evidence.json").read_text())["slices"] == 0
    assert main(["--json", *verb]) == 0
    told = json.loads(capsys.readouterr().out)
    done = {name: state for name, state, _ in told["states"]}
    assert {name for name, state in done.items() if state == "done"} == set(done) - {"tensorrt"}, done
    records = json.loads((results / "evidence.json").read_text())["records"]
    again = records["table"]["slices"]  # whether the killed one counts depends on when the kill came
    assert records["supernet"]["slices"] == 1
    assert again in (1, 2)
    assert records["model"]["found"]["check"]["tokens_per_s_batch"] > 0
    assert records["model"]["found"]["status"]["evaluations"]["unique"] > 0
    assert [path.name for path in sorted(results.iterdir())] == [
        "evidence.json", "search-1.0", "supernet-1.0", f"table-{again}.0"
    ]  # fmt: skip
    written = page.read_text()
    assert "no results" in written
    assert "not yet measured: tensorrt" in written
    assert max(map(len, written.splitlines())) <= 90
    code = [line for n, block in enumerate(written.split("```")) if n % 2 for line in block.splitlines()]
    assert max(map(len, code)) <= 76
    before = (results / "evidence.json").read_bytes()
    assert main([*verb, "--status"]) == 0
    assert (results / "evidence.json").read_bytes() == before


def test_until_it_is_measured_the_page_says_so() -> None:
    plan = measurements(Path("/w"), "/w/pictures", rehearsal=False)
    text = rendered(plan, Evidence(rehearsal=False, key=""))
    assert "not yet measured: supernet" in " ".join(text.split())
    page = read_page("results")
    assert page.count(BEGIN) == page.count(END) == 1


def until(true: Callable[[], bool], most_s: float = 120.0) -> None:
    end_s = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)
