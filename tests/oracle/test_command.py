"""A user's program or function as an oracle: what it answers, and everything that it may do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.errors import ConfigError, InputError
from riwoa.oracle.command import CommandKind
from riwoa.oracle.command_oracle import CommandOracle
from riwoa.oracle.kind import Refusals
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import CandidateError, EvaluationResult

SPACE = """
[[genes]]
name = "width"
choices = [8, 16, 32]

[[genes]]
name = "act"
kind = "nominal"
choices = ["relu", "silu"]
"""
ARCHITECTURE = {"width": 16, "act": "silu"}
READ = "read -r line; "


def script(folder: Path, body: str, name: str = "judge.sh") -> Path:
    """A shell program; shells start in a millisecond."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def settings(folder: Path, **given: Any) -> dict[str, Any]:
    (folder / "space.toml").write_text(SPACE)
    tables = {"space": str(folder / "space.toml"), "directory": str(folder), **given}
    overrides = [f"oracle.command.{key}={json.dumps(value)}" for key, value in tables.items()]
    config = load(None, ["oracle.kind=command", *overrides], {}).config
    return CommandKind().spec(config.oracle).to_json()


def oracle(folder: Path, body: str | None = None, **given: Any) -> CommandOracle:
    if body is not None:
        script(folder, body)
        given = {"program": ["./judge.sh"], **given}
    built = CommandKind().build(settings(folder, **given))
    assert isinstance(built, CommandOracle)
    return built


def test_a_program_reads_the_architecture_and_its_last_line_is_the_answer(tmp_path: Path) -> None:
    body = (
        READ
        + """echo "$line" > seen; echo loading; echo '{"accuracy": 0.5, "latency_ms": 3, "note": "x", "f1": 0.4}'"""
    )
    assert oracle(tmp_path, body).evaluate(ARCHITECTURE) == {"accuracy": 0.5, "latency_ms": 3, "f1": 0.4}
    assert json.loads((tmp_path / "seen").read_text()) == ARCHITECTURE


def test_it_is_told_fidelity_and_seed_and_keeps_the_users_environment(tmp_path: Path) -> None:
    body = """echo "$RIWOA_FIDELITY $RIWOA_SEED ${PYTHONSAFEPATH:-unset}" >> seen; echo '{"accuracy": 1}'"""
    found = oracle(tmp_path, body, seed=7, fidelity="20")
    found.evaluate(ARCHITECTURE)
    found.evaluate_at("5", ARCHITECTURE)
    assert (tmp_path / "seen").read_text() == "20 7 unset\n5 7 unset\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 0", "it printed nothing on standard output"),
        ("echo oops >&2", "printed nothing on standard output: oops"),
        ("echo '<html><body>502</body></html>'", "no JSON object: <html>"),
        ("echo '[0.5]'", "no JSON object"),
        ("""echo '{"accuracy": NaN}'""", "accuracy is nan, which is no finite number"),
        ("""echo '{"accuracy": 0.5, "energy": 1e999}'""", "energy is inf"),
        ("""echo '{"accuracy": true}'""", "its answer holds no number: {'accuracy"),
        ("""echo '{"accuracy": 87.3}'""", "accuracy is 87.3.* divide percent by 100"),
        ("""echo '{"accuracy": -0.1}'""", "must be a fraction between 0 and 1$"),
        ("""echo '{"accuracy": 0.5, "latency_ms": -1}'""", "latency_ms is -1"),
        ("""echo '{"accuracy": 0.5, "predicted": 1}'""", "predicted is a name of riwoa's own"),
        ("""echo '{"accuracy": 0.5, "a b": 1}'""", "'a b' is no name of a metric"),
        ("""echo '{"error": "out of memory"}'""", "answered with an error: out of memory"),
        (
            """echo '{"accuracy": 0.5}'; echo 'ValueError: bad width' >&2; exit 3""",
            "exit status 3: ValueError: bad width",
        ),
        ("kill -s KILL $$", "ended by SIGKILL"),
        ("kill -s SEGV $$", "ended by SIGSEGV"),
        ("head -c 100000 /dev/zero | tr '\\0' x", "longer than 65536 bytes"),
    ],
)
def test_what_a_program_does_wrong_fails_its_candidate_in_one_line(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(CandidateError, match=words) as caught:
        oracle(tmp_path, READ + body).evaluate(ARCHITECTURE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_hundred_megabytes_before_the_answer_are_read_and_forgotten(tmp_path: Path) -> None:
    body = """head -c 100000000 /dev/zero; echo; echo '{"accuracy": 0.5}'"""
    assert oracle(tmp_path, body).evaluate(ARCHITECTURE) == {"accuracy": 0.5}


def test_one_that_failed_is_tried_again_as_often_as_configured(tmp_path: Path) -> None:
    body = """echo x >> tries; [ "$(wc -l < tries)" -ge 3 ] || exit 1; echo '{"accuracy": 0.5}'"""
    with pytest.raises(CandidateError, match="exit status 1"):
        oracle(tmp_path, body, retries=1).evaluate(ARCHITECTURE)
    assert oracle(tmp_path, body).evaluate(ARCHITECTURE) == {"accuracy": 0.5}


def test_children_that_a_program_leaves_behind_are_not_waited_for_and_end_with_it(tmp_path: Path) -> None:
    body = """sleep 60 & echo $! > child; echo '{"accuracy": 0.5}'"""
    start_s = time.monotonic()
    assert oracle(tmp_path, body).evaluate(ARCHITECTURE) == {"accuracy": 0.5}
    assert time.monotonic() - start_s < 10
    assert_gone(int((tmp_path / "child").read_text()))


def test_children_that_leave_the_programs_group_end_with_it_too(tmp_path: Path) -> None:
    body = """setsid sh -c 'echo $$ > child; exec sleep 60' & wait_for() { [ -s child ] || { sleep 0.02; wait_for; }; }
wait_for; echo '{"accuracy": 0.5}'"""
    assert oracle(tmp_path, body).evaluate(ARCHITECTURE) == {"accuracy": 0.5}
    assert_gone(int((tmp_path / "child").read_text()))


def assert_gone(pid: int, within_s: float = 10.0) -> None:
    """The process ends; a zombie, which nobody reaps in a container, has ended."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives on")


# -- in the pool ------------------------------------------------------------------------------------------------------


class _Spec:
    threads = 1

    def __init__(self, frame: dict[str, Any]) -> None:
        self._frame = frame

    def to_json(self) -> dict[str, Any]:
        return self._frame


async def evaluated(spec: dict[str, Any], **limits: Any) -> EvaluationResult:
    async with WorkerPool(_Spec(spec), PoolSettings(**limits)) as pool:
        return await (await pool.submit("a", ARCHITECTURE))


async def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script(tmp_path, "sleep 60 & echo $! >> pids; echo $$ >> pids; wait")
    result = await evaluated(settings(tmp_path, program=["./judge.sh"]), evaluation_timeout_s=0.5, poll_s=0.05)
    assert (result.status, result.reason, result.attempts) == ("failed", "timeout", 2)
    for pid in (tmp_path / "pids").read_text().split():
        assert_gone(int(pid))


async def test_a_program_may_end_its_own_children_with_the_usual_signal(tmp_path: Path) -> None:
    script(tmp_path, """sleep 60 & kill -s TERM $!; wait $!; echo '{"accuracy": 0.5}'""")
    result = await evaluated(settings(tmp_path, program=["./judge.sh"]), evaluation_timeout_s=10)
    assert result.metrics == {"accuracy": 0.5}


async def test_a_program_that_takes_too_much_memory_is_killed(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text("import time\nb = bytearray(b'x') * (600 << 20)\ntime.sleep(60)\n")
    result = await evaluated(
        settings(tmp_path, program=[sys.executable, "big.py"]), memory_limit_bytes=400 << 20, poll_s=0.05
    )
    assert (result.status, result.reason) == ("failed", "memory")


async def test_the_program_ends_with_a_worker_that_is_killed_from_outside(tmp_path: Path) -> None:
    script(tmp_path, "setsid sleep 60 & echo $! >> pids; echo $$ >> pids; sleep 60")
    async with WorkerPool(_Spec(settings(tmp_path, program=["./judge.sh"])), PoolSettings()) as pool:
        future = await pool.submit("a", ARCHITECTURE)
        while not (tmp_path / "pids").exists() or (tmp_path / "pids").read_text().count("\n") < 2:
            await asyncio.sleep(0.02)
        worker = pool.stats().workers[0].pid
        assert worker is not None
        os.kill(worker, 9)
        for pid in (tmp_path / "pids").read_text().split():
            assert_gone(int(pid))
        future.cancel()


# -- a function -------------------------------------------------------------------------------------------------------

MODULE = """
def judge(architecture, fidelity, seed):
    if architecture["width"] == 8:
        raise ValueError("too narrow")
    if fidelity == "text":
        return "0.5"
    return {"accuracy": architecture["width"] / 100, "epochs": 0 if fidelity == "full" else fidelity, "seed": seed}
"""


def test_a_function_is_called_and_fails_its_candidate_alone(tmp_path: Path) -> None:
    (tmp_path / "judge_a.py").write_text(MODULE)
    found = oracle(tmp_path, function="judge_a:judge", path=str(tmp_path), seed=3)
    assert found.evaluate(ARCHITECTURE) == {"accuracy": 0.16, "epochs": 0, "seed": 3}
    assert found.evaluate_at("5", ARCHITECTURE)["epochs"] == 5
    with pytest.raises(CandidateError, match="ValueError: too narrow"):
        found.evaluate({"width": 8})
    with pytest.raises(CandidateError, match="judge_a:judge returned str"):
        found.evaluate_at("text", ARCHITECTURE)


async def test_a_function_is_not_imported_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge_b.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"No module named 'judge_b'; name its directory in oracle\.command\.path"):
        await evaluated(settings(tmp_path, function="judge_b:judge"))
    result = await evaluated(settings(tmp_path, function="judge_b:judge", path="."))
    assert result.metrics == {"accuracy": 0.16, "epochs": 0, "seed": 0}


def test_a_module_without_the_function_is_named(tmp_path: Path) -> None:
    (tmp_path / "judge_c.py").write_text("judge = 5\n")
    with pytest.raises(InputError, match="judge_c has no function 'judge'"):
        oracle(tmp_path, function="judge_c:judge", path=str(tmp_path))


# -- its version ------------------------------------------------------------------------------------------------------


def test_another_content_of_a_file_is_another_oracle_and_another_place_is_not(tmp_path: Path) -> None:
    def version(folder: Path, body: str = "echo 1", data: str = "a", **given: Any) -> str:
        folder.mkdir(exist_ok=True)
        (folder / "data.txt").write_text(data)
        return oracle(folder, body, files=[str(folder / "data.txt")], **given).version

    first = version(tmp_path / "one")
    assert version(tmp_path / "two") == first
    others = [
        version(tmp_path / "one", body="echo 2"),
        version(tmp_path / "one", data="b"),
        version(tmp_path / "one", version="2"),
        version(tmp_path / "one", seed=1),
        version(tmp_path / "one", fidelity="20"),
        version(tmp_path / "one", program=["./judge.sh", "--wide"]),
    ]
    assert len({first, *others}) == 7


# -- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"program": ["./no.sh"]}, "there is no file .*/no.sh"),
        ({"program": ["python", "no.py"]}, "there is no file .*/no.py"),
        ({"program": ["no-such-program-here"]}, "no program 'no-such-program-here' on the PATH"),
        ({"program": ["./space.toml"]}, r"space\.toml is not executable; chmod \+x it"),
        ({"program": "python 'judge.py"}, "a command line: no closing quotation"),
        ({"program": ["./judge.sh"], "files": ["gone"]}, "gone is no file"),
        ({"function": "judge"}, "string should match pattern"),
        ({"function": "a:b", "program": ["./judge.sh"]}, "both given; leave one out"),
        ({"path": "."}, "a function is imported from, and none is named"),
        ({"program": ["./judge.sh"], "directory": "/no/such"}, "/no/such is no directory"),
        ({}, "needs oracle.command.program"),
    ],
)
def test_a_start_is_refused_for_what_is_not_there(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    script(tmp_path, "exit 0")
    with pytest.raises(ConfigError, match=words):
        settings(tmp_path, **given)


def test_rungs_are_numbers_ascending_or_names() -> None:
    load(None, ["oracle.kind=command", "oracle.rungs=[1, 5]"], {})
    load(None, ["oracle.kind=command", 'oracle.rungs=["subset", "one_epoch"]'], {})
    for wrong in ("[5, 1]", '["accuracy"]', '["a b"]', "[1, 1]"):
        with pytest.raises(ConfigError, match="a command's are numbers, ascending, or names"):
            load(None, ["oracle.kind=command", f"oracle.rungs={wrong}"], {})


def checked(folder: Path, space: str, name: str = "space.toml") -> list[str]:
    script(folder, "exit 0")
    (folder / name).write_text(space)
    overrides = [
        "oracle.kind=command",
        f"oracle.command.program={folder}/judge.sh",
        f"oracle.command.space={folder / name}",
    ]
    refusals = Refusals()
    CommandKind().check(refusals, load(None, overrides, {}).config, folder / "unused.json")
    return refusals.found


def test_everything_that_is_wrong_with_a_space_is_said_at_once(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        """
colour = 1
[[genes]]
name = "width"
choices = [8, 8]
[[genes]]
name = "width"
choices = "8"
[[genes]]
choices = [1, true]
[[genes]]
name = "act"
kind = "loose"
choices = ["a", "b"]
active_if = { gene = "width", over = 3 }
""",
    )
    assert [line.partition("space.toml: ")[2] for line in found] == [
        "unknown key 'colour' in the space; expected 'name' and 'genes'",
        "gene 'width': choices must be a list",
        "gene '?' lacks the key 'name'",
        "gene '?': a choice must be a string or a number, got True",
        "gene 'act': active_if needs exactly 'gene' and 'at_least', or 'gene' and 'among'",
    ]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("", "the space lacks the key 'genes'"),
        ("[[genes]\n", "not valid TOML"),
        ('[[genes]]\nname = "a"\nchoices = [1]\n', "nothing to search"),
        (
            '[[genes]]\nname = "a"\nkind = "nominal"\nchoices = [' + ",".join(map(str, range(3000))) + "]\n",
            "coordinates",
        ),
        (
            SPACE + '[[genes]]\nname = "g"\nchoices = [1, 2]\nactive_if = { gene = "act", among = ["gelu"] }\n',
            "no choice 'gelu'",
        ),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path: Path, space: str, words: str) -> None:
    (found,) = checked(tmp_path, space)
    assert words in found


def test_a_space_may_be_json_and_its_size_counts_what_exists(tmp_path: Path) -> None:
    space = {
        "genes": [
            {"name": "op", "kind": "nominal", "choices": ["conv", "pool", "none"]},
            {"name": "groups", "choices": [1, 2, 4], "active_if": {"gene": "op", "among": ["conv"]}},
            {"name": "stride", "choices": [1, 2], "active_if": {"gene": "op", "among": ["conv", "pool"]}},
        ]
    }
    assert checked(tmp_path, json.dumps(space), "space.json") == []
    config = load(
        None,
        [
            "oracle.kind=command",
            f"oracle.command.program={tmp_path}/judge.sh",
            f"oracle.command.space={tmp_path}/space.json",
        ],
        {},
    ).config
    problem = asyncio.run(CommandKind().problem(config, tmp_path / "unused.json"))
    assert problem.space.size == 3 * 2 + 2 + 1
    assert problem.catalogue is not None
    assert len(problem.catalogue.indices) == problem.space.size
    assert problem.space.name == "space"
