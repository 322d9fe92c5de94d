"""The model's process, spoken to by its frames: it survives every operation, and halves its batch when memory ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.protocol import Example, GenerationRequest, GenerationSettings, TrainingJob, WriterSpec
from riwoa.ipc.child import ORPHANED_EXIT_CODE, child_environment

SUPPORT = Path(__file__).resolve().parent.parent / "support"


class Process:
    """The worker, one frame at a time."""

    def __init__(self, *, allowed: bool = True) -> None:
        extra = {"PYTHONPATH": f"{child_environment(1)['PYTHONPATH']}:{SUPPORT}", "RIWOA_TEST_WRITERS": "1"}
        if not allowed:
            extra["RIWOA_TEST_WRITERS"] = "0"
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "riwoa.cognition.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(1, extra),
        )

    def say(self, frame: Mapping[str, Any] | str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write((frame if isinstance(frame, str) else json.dumps(frame)).encode() + b"\n")
        self.popen.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.popen.stdout is not None
        return dict(json.loads(self.popen.stdout.readline()))

    def ask(self, frame: Mapping[str, Any] | str) -> dict[str, Any]:
        self.say(frame)
        return self.hear()

    def start(self, **arguments: Any) -> dict[str, Any]:
        return self.ask({"spec": WriterSpec(factory="writers:scripted", arguments=arguments).to_json()})

    def generate(self, *prompts: str, batch: int = 8) -> dict[str, Any]:
        requests = [
            GenerationRequest(id=str(i), seed=i, system="", prompt=p, choices={"a": (1,)}).to_json()
            for i, p in enumerate(prompts)
        ]
        settings = GenerationSettings(batch=batch).to_json()
        return self.ask({"op": "generate", "requests": requests, "settings": settings})


@pytest.fixture
def process() -> Iterator[Process]:
    worker = Process()
    yield worker
    close(worker)


def close(worker: Process) -> None:
    worker.popen.kill()
    worker.popen.wait()
    for stream in (worker.popen.stdin, worker.popen.stdout):
        assert stream is not None
        stream.close()


def training(weights_path: Path, *prompts: str) -> dict[str, Any]:
    job = TrainingJob(
        examples=tuple(Example(id=str(i), system="", prompt=p, text="") for i, p in enumerate(prompts)),
        held_out=(),
        probes=(),
        settings=GenerationSettings(),
        seed=1,
        weights_path=str(weights_path),
    )
    return {"op": "train", "job": job.to_json()}


def test_it_gets_ready_and_answers_in_order(process: Process) -> None:
    assert process.start()["ready"]["load_s"] >= 0
    answer = process.generate("one", "two")["ok"]
    assert [r["id"] for r in answer["replies"]] == ["0", "1"]
    assert [r["text"].split("|")[0] for r in answer["replies"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("raise some reason", {"class": "ValueError", "message": "some reason second line"}),
        ("interrupt", {"class": "RecursionError", "message": "too deep"}),
        ("raise " + "x" * 5000, {"class": "ValueError", "message": "x" * 500}),
    ],
)
def test_it_survives_whatever_an_operation_raises(process: Process, prompt: str, error: dict[str, str]) -> None:
    process.start()
    assert process.generate(prompt) == {"error": error}
    assert "ok" in process.generate("still there")


@pytest.mark.parametrize(
    "frame", ['{"op": "fly"}', "{}", "[]", "not json", '{"op": "generate"}', '{"op": "train", "job": {}}']
)
def test_a_frame_that_it_does_not_know_is_an_error_and_no_more(process: Process, frame: str) -> None:
    process.start()
    assert "error" in process.ask(frame)
    assert "ok" in process.generate("still there")


def test_out_of_memory_halves_the_batch_until_it_fits(process: Process) -> None:
    process.start(room=3)
    answer = process.generate(*("abcdefgh" * 2), batch=64)["ok"]
    assert answer["batch"] == 2  # 16, 8, 4, 2
    assert len(answer["replies"]) == 16
    assert {r["text"].split("|")[2] for r in answer["replies"]} == {"2"}


def test_out_of_memory_with_one_request_at_a_time_is_an_error(process: Process) -> None:
    process.start()
    assert process.generate("starve", "b", "c")["error"]["class"] == "MemoryError"
    assert "ok" in process.generate("still there")


def test_a_training_tells_its_progress_and_its_record(process: Process, tmp_path: Path) -> None:
    process.start()
    process.say(training(tmp_path / "w", "a", "b"))
    assert [process.hear() for _ in range(2)] == [{"progress": {"step": i, "steps": 2, "loss": 1.0}} for i in (1, 2)]
    trained = process.hear()["ok"]["trained"]
    assert trained["losses"] == [1.0]
    assert (tmp_path / "w").read_text() == "trained on bare"


def test_a_training_whose_loss_is_no_number_ends_there(process: Process, tmp_path: Path) -> None:
    process.start()
    process.say(training(tmp_path / "w", "a", "diverge", "sleep 60"))
    assert "progress" in process.hear()
    error = process.hear()["error"]
    assert error["class"] == "FloatingPointError"
    assert error["message"].startswith("the training diverged")
    assert "ok" in process.generate("still there")


def test_a_refused_adapter_is_an_error_by_its_class(process: Process, tmp_path: Path) -> None:
    process.start()
    (tmp_path / "a").write_text("corrupt")
    (tmp_path / "b").write_text("good")
    assert process.ask({"op": "adapter", "path": str(tmp_path / "a")})["error"]["class"] == "AdapterError"
    assert process.ask({"op": "adapter", "path": str(tmp_path / "b")}) == {"ok": {}}
    assert "|good|" in process.generate("x")["ok"]["replies"][0]["text"]


def test_a_model_that_cannot_be_loaded_is_fatal_and_says_why(process: Process) -> None:
    answer = process.ask({"spec": WriterSpec(factory="writers:unloadable").to_json()})
    assert answer == {
        "fatal": {"class": "ModelError", "message": "/models/none: no weights; riwoactl model pull smollm2"}
    }
    assert process.popen.wait(10) == 66


def test_test_writers_are_refused_outside_tests() -> None:
    worker = Process(allowed=False)
    try:
        assert worker.start()["fatal"]["class"] == "ModelError"
    finally:
        close(worker)


def test_it_ends_when_its_parent_closes_the_pipe_even_while_it_works(process: Process) -> None:
    process.start()
    assert process.popen.stdin is not None
    process.say({"op": "adapter", "path": None})
    process.hear()
    request = GenerationRequest(id="1", seed=1, system="", prompt="sleep 60", choices={"a": (1,)}).to_json()
    process.say({"op": "generate", "requests": [request], "settings": GenerationSettings().to_json()})
    process.popen.stdin.close()
    assert process.popen.wait(10) == ORPHANED_EXIT_CODE


def test_the_parents_side_needs_no_torch() -> None:
    code = (
        "import sys, riwoa.cognition.engine, riwoa.cognition.proposal_queue, riwoa.cognition.worker;"
        "sys.exit(bool({'torch', 'transformers', 'llguidance'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=child_environment(1)).returncode == 0
