"""The language model in a process of its own: ``python -m riwoa.cognition.worker``, frames as in ``protocol``.

It answers one frame at a time and survives whatever an operation raises; a load that fails ends it. When memory runs
out, the operation is tried again with half the batch, down to one request at a time. It ends with its parent.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from riwoa.cognition.memory import as_memory_allows
from riwoa.cognition.protocol import GenerationRequest, GenerationSettings, ModelSpec, TrainingJob, Writer
from riwoa.errors import ModelError, RiwoaError
from riwoa.ipc.child import error_to_json
from riwoa.ipc.frames import ParentPipe

_MAX_ERROR_CHARACTERS = 500


def main() -> int:
    """Load the model that the first frame names, then answer until the input ends."""
    start_s = time.monotonic()
    parent = ParentPipe()
    try:
        writer = _load(parent.frame()["spec"])
    except RiwoaError as error:
        parent.send({"fatal": error_to_json(error)})
        return error.exit_code
    writer.on_progress = lambda step: _report(parent, step)
    parent.send({"ready": {"load_s": time.monotonic() - start_s}})
    while True:
        _serve(parent, writer)


def _load(spec: Mapping[str, Any]) -> Writer:
    """The writer of a specification.

    Raises:
        ModelError: it cannot be loaded here.
    """
    if "factory" in spec:
        return _test_writer(spec)
    from riwoa.cognition.writer import ModelWriter

    return ModelWriter.load(ModelSpec.from_json(spec))


def _test_writer(spec: Mapping[str, Any]) -> Writer:
    if os.environ.get("RIWOA_TEST_WRITERS") != "1":
        raise ModelError("writers by name are for tests alone; name a model")
    module, _, function = str(spec["factory"]).partition(":")
    writer: Writer = getattr(importlib.import_module(module), function)(**spec["arguments"])
    return writer


def _serve(parent: ParentPipe, writer: Writer) -> None:
    """Do what the next frame says, and answer."""
    try:
        parent.send({"ok": _do(writer, parent.frame())})
    except Exception as error:  # the boundary of the process: the operation fails, the model lives
        traceback.print_exc(file=sys.stderr)
        text = " ".join(str(error).split()) or "no message"
        parent.send({"error": {"class": type(error).__name__, "message": text[:_MAX_ERROR_CHARACTERS]}})


def _do(writer: Writer, frame: Mapping[str, Any]) -> dict[str, Any]:
    match frame["op"]:
        case "adapter":
            writer.use_adapter(frame["path"])
            return {}
        case "generate":
            requests = tuple(GenerationRequest.from_json(r) for r in frame["requests"])
            settings = GenerationSettings(**frame["settings"])
            replies, batch = as_memory_allows(
                lambda most: writer.generate(requests, replace(settings, batch=most)),
                max(1, min(settings.batch, sum(request.texts for request in requests))),
            )
            return {"replies": [r.to_json() for r in replies], "batch": batch}
        case "train":
            job = TrainingJob.from_json(frame["job"])
            # A training divides its own steps and probes: repeating all of it would waste what it had done.
            return {"trained": writer.train(job).to_json()}
    raise ValueError(f"no operation {frame['op']!r}")


def _report(parent: ParentPipe, step: Mapping[str, Any]) -> None:
    """A step of a training.

    Raises:
        FloatingPointError: its loss is no number; the training need not go on.
    """
    try:
        parent.send({"progress": step})
    except ValueError:
        raise FloatingPointError(f"the training diverged: {dict(step)}") from None


if __name__ == "__main__":
    sys.exit(main())
