"""The parent's end of a child process: answers and progress come through, all else is a loss with its reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from riwoa.ipc.child import child_environment
from riwoa.ipc.process import AnswerLimits, ChildProcess, ProcessLateError, ProcessLostError, ProcessMemoryError

PATIENT = AnswerLimits(10.0, poll_s=0.05)
CHILD = "import os, signal, sys, time\nfor line in sys.stdin:\n    exec(line)\n    sys.stdout.flush()\n"
Spawn = Callable[..., Any]


@pytest.fixture
async def spawn(tmp_path: Path) -> AsyncIterator[Spawn]:
    """Starts children that run each line they are sent."""
    (tmp_path / "echo_child.py").write_text(CHILD)
    children: list[ChildProcess] = []

    async def start(on_line: Callable[[str], None] = lambda _: None, max_frame_bytes: int = 2**16) -> ChildProcess:
        environment = child_environment(1, {"PYTHONPATH": str(tmp_path)})
        children.append(
            await ChildProcess.spawn("echo_child", environment, on_line, name="child", max_frame_bytes=max_frame_bytes)
        )
        return children[-1]

    yield start
    for child in children:
        await child.stop()


async def ask(child: ChildProcess, code: str, limits: AnswerLimits = PATIENT, **options: Any) -> dict[str, Any]:
    return await child.ask(code.encode() + b"\n", limits, late="too late", **options)


async def test_an_answer_comes_back_after_its_progress(spawn: Spawn) -> None:
    child = await spawn()
    steps: list[Any] = []
    code = """[print('{"progress": %d}' % i) for i in range(3)]; print('{"ok": 1}')"""
    assert await ask(child, code, on_progress=steps.append) == {"ok": 1}
    assert steps == [0, 1, 2]


async def test_a_mapped_file_is_not_held_against_a_childs_memory(spawn: Spawn, tmp_path: Path) -> None:
    """Weights are read through a mapping: what is cached of it is no leak. What it allocates is."""
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(2**20) * 64)
    child = await spawn()
    before = child.resident_bytes() or 0
    code = f"import mmap; m = mmap.mmap(os.open({str(file)!r}, os.O_RDONLY), 0, prot=mmap.PROT_READ); "
    assert await ask(child, code + """n = sum(m[::4096]); print('{"ok": 1}')""") == {"ok": 1}
    assert (child.resident_bytes() or 0) - before < 16 * 2**20
    assert await ask(child, """b = bytearray(b'x' * 2**26); print('{"ok": 1}')""") == {"ok": 1}
    assert (child.resident_bytes() or 0) - before > 48 * 2**20


async def test_progress_is_an_answer_to_those_who_expect_none(spawn: Spawn) -> None:
    assert await ask(await spawn(), """print('{"progress": 1}')""") == {"progress": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "worker died: signal 9"),
        ("os._exit(3)", "worker died: exit status 3"),
        ("os.closerange(0, 2); time.sleep(60)", "worker died: it closed its output"),
        ("print('not json')", "worker died: broken frame"),
        ("print('[1, 2]')", "worker died: broken frame"),
        ("print('[' * 60_000)", "worker died: broken frame"),
        ("print('x' * 2**20)", "worker died: broken frame"),
        ("sys.stdout.buffer.write(bytes([255, 254, 10]))", "worker died: broken frame"),
        ("print('{}', end=''); sys.stdout.flush(); os._exit(0)", "worker died: exit status 0"),
    ],
)
async def test_a_peer_that_gives_no_frame_is_lost_with_the_reason(spawn: Spawn, code: str, reason: str) -> None:
    with pytest.raises(ProcessLostError) as lost:
        await ask(await spawn(), code)
    assert str(lost.value) == reason


async def test_progress_buys_no_time(spawn: Spawn) -> None:
    code = """[(print('{"progress": 1}', flush=True), time.sleep(0.05)) for _ in range(200)]"""
    with pytest.raises(ProcessLateError, match="too late"):
        await ask(await spawn(), code, AnswerLimits(1.0), on_progress=lambda _: None)


async def test_a_peer_that_grows_too_large_is_lost(spawn: Spawn) -> None:
    child = await spawn()
    with pytest.raises(ProcessMemoryError, match="memory"):
        await ask(child, "kept = bytearray(b'x') * 300 * 2**20; time.sleep(60)", AnswerLimits(20.0, 200 * 2**20, 0.05))
    assert child.exceeds_memory(200 * 2**20)
    assert not child.exceeds_memory(None)


async def test_stopping_ends_the_peer_and_what_it_started(spawn: Spawn) -> None:
    child = await spawn()
    code = """import subprocess; p = subprocess.Popen(["sleep", "60"]); print('{"pid": %d}' % p.pid)"""
    grandchild = (await ask(child, code))["pid"]
    await child.stop()
    await child.stop()
    assert not child.alive
    for _ in range(200):
        if not Path(f"/proc/{grandchild}").exists() or " Z " in Path(f"/proc/{grandchild}/stat").read_text():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the grandchild lives")


async def test_the_log_is_read_to_its_end_and_cut_to_lines_of_bounded_length(spawn: Spawn) -> None:
    lines: list[str] = []
    child = await spawn(lines.append)
    await ask(child, """sys.stderr.write('x' * 10**6 + '\\nlast words'); sys.stderr.flush(); print('{"ok": 1}')""")
    await child.stop()
    assert lines[-1] == "last words"
    assert max(map(len, lines)) <= 500


async def test_the_log_holds_nothing_that_a_terminal_would_obey(spawn: Spawn) -> None:
    lines: list[str] = []
    child = await spawn(lines.append)
    await ask(
        child, r"""sys.stderr.write('\x1b[2Jgone\x07\ta\rb\u202e\x9b\n'); sys.stderr.flush(); print('{"ok": 1}')"""
    )
    await child.stop()
    assert lines == [r"\x1b[2Jgone\x07 a b\u202e\x9b"]


async def test_when_gone_tells_of_a_death_that_nobody_asked_about(spawn: Spawn) -> None:
    child, gone = await spawn(), asyncio.Event()

    async def tell() -> None:
        gone.set()

    child.when_gone(tell)
    os.kill(child.pid, 9)
    await asyncio.wait_for(gone.wait(), 10)
    assert not child.alive
