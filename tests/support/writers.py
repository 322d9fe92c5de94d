"""Writers that misbehave on purpose; the model's process imports this module by name.

What a request's prompt says is done: "die", "sleep 5", "leak", ... Anything else is answered with the prompt itself.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from riwoa.cognition.protocol import (
    GeneratedText,
    GenerationRequest,
    GenerationSettings,
    Measured,
    Trained,
    TrainingJob,
)
from riwoa.errors import AdapterError, ModelError


class ScriptedWriter:
    """Does what it is told, and says in each reply with which adapter, batch and process."""

    def __init__(self, log: str | None = None, room: int | None = None) -> None:
        self.on_progress: Any = None
        self._adapter = "bare"
        self._log = Path(log) if log else None
        self._room = room  # requests that memory allows
        self._kept: list[bytearray] = []
        self._note("started")

    def use_adapter(self, path: str | None) -> None:
        content = "bare" if path is None else Path(path).read_text()
        if content.startswith("corrupt"):
            raise AdapterError(f"{content}: not LoRA weights")
        self._act(content)
        self._adapter = content
        self._note(f"adapter {content}")

    def generate(self, requests: tuple[GenerationRequest, ...], settings: GenerationSettings) -> list[GeneratedText]:
        self._note(f"generate {len(requests)}")
        if self._room is not None and settings.batch > self._room:
            raise MemoryError(f"no room for {settings.batch}")
        replies, self._batch = [], settings.batch
        for r in requests:
            said = self._act(r.prompt)
            text = f"{r.prompt}|{self._adapter}|{settings.batch}|{os.getpid()}" if said is None else said
            replies.append(GeneratedText(id=r.id, text=text, tokens=3, thinking_tokens=1))
        return replies[1:] if requests[0].prompt == "forget one" else replies

    def train(self, job: TrainingJob) -> Trained:
        self._note("train")
        self._job = job
        for i, example in enumerate(job.examples):
            self._act(example.prompt)
            loss = float("nan") if example.prompt == "diverge" else 1.0
            self.on_progress({"step": i + 1, "steps": len(job.examples), "loss": loss})
        weights = f"trained on {self._adapter}".encode()
        Path(job.weights_path).write_bytes(weights)
        measured = Measured(
            held_out_loss=None, held_out_losses=(), valid_without_grammar=0, distinct_with_grammar=0, probes=0
        )
        return Trained(
            sha256=hashlib.sha256(weights).hexdigest(),
            losses=(1.0,),
            tokens=1,
            duration_s=0.1,
            before=measured,
            after=measured,
        )

    def _note(self, line: str) -> None:
        if self._log is not None:
            with self._log.open("a") as stream:
                stream.write(line + "\n")

    def _act(self, order: str) -> str | None:
        verb, _, argument = order.partition(" ")
        act: Any = getattr(self, f"_{verb}", None)
        return act(argument) if act is not None else None

    def _sleep(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def _die(self, _: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _overwhelm(self, room: str) -> None:
        if self._batch > int(room):
            os.kill(os.getpid(), signal.SIGKILL)

    def _unprintable(self, _: str) -> None:
        raise FileNotFoundError("/models/\udce9t\udce9")  # as os.fsdecode gives a name that is not UTF-8

    def _dieonce(self, marker: str) -> None:
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _crowd(self, room: str) -> None:
        self._note(f"{self._job.piece} at once{', checkpointing' if self._job.checkpointing else ''}")
        if self._job.piece > int(room):
            os.kill(os.getpid(), signal.SIGKILL)

    def _sour(self, _: str) -> None:
        self._spoilt = True
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def _fresh(self, _: str) -> None:
        if getattr(self, "_spoilt", False):
            self._sour("")

    def _failuntil(self, marker: str) -> None:
        if not Path(marker).exists():
            raise RuntimeError("not yet")

    def _leave(self, _: str) -> None:
        print("libgomp.so is broken", file=sys.stderr, flush=True)
        os._exit(3)

    def _mute(self, _: str) -> None:
        os.closerange(3, 64)
        time.sleep(60)

    def _leak(self, _: str) -> None:
        while True:
            self._kept.append(bytearray(os.urandom(1) * 16 * 2**20))
            time.sleep(0.02)

    def _keep(self, _: str) -> None:
        self._kept.append(bytearray(os.urandom(1) * 300 * 2**20))

    def _raise(self, message: str) -> None:
        raise ValueError(f"{message}\nsecond line")

    def _interrupt(self, _: str) -> None:
        raise RecursionError("too deep")

    def _starve(self, _: str) -> None:
        raise MemoryError

    def _chatter(self, _: str) -> None:
        print('{"ok": {"replies": [], "batch": 1}}')
        os.write(1, b"\x00\xff garbage without an end of line" * 100)
        sys.stderr.write("x" * 2_000_000 + "\n")
        sys.stderr.flush()

    def _forge(self, frame: str) -> None:
        """Write straight to the parent's pipe, past everything that guards it."""
        _frames().write(frame.encode() + b"\n")
        _frames().flush()
        time.sleep(60)

    def _flood(self, size: str) -> None:
        _frames().write(b"{" * int(size) + b"\n")
        _frames().flush()
        time.sleep(60)

    def _braces(self, size: str) -> str:
        return "{" * int(size)

    def _surrogate(self, _: str) -> str:
        return "half a pair: \ud800"


def _frames() -> Any:
    """The stream that ``take_stdout`` made: the only pipe for writing above standard error."""
    for number in range(3, 64):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            flags = Path(f"/proc/self/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
        except OSError:
            continue
        if target.startswith(("pipe:", "socket:")) and int(flags, 8) & os.O_ACCMODE == os.O_WRONLY:
            return os.fdopen(os.dup(number), "wb")
    raise AssertionError("no pipe to the parent")


def scripted(**arguments: Any) -> ScriptedWriter:
    return ScriptedWriter(**arguments)


def unloadable() -> ScriptedWriter:
    raise ModelError("/models/none: no weights; riwoactl model pull smollm2")


def crashing(log: str) -> ScriptedWriter:
    ScriptedWriter(log)
    raise RuntimeError("libgomp.so is broken")


def never_ready() -> ScriptedWriter:
    time.sleep(60)
    return ScriptedWriter()


def crashing_until(marker: str) -> ScriptedWriter:
    if not Path(marker).exists():
        os._exit(9)
    return ScriptedWriter()
