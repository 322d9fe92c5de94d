"""An oracle in a process of its own: ``python -m riwoa.oracle.worker``, one JSON frame a line on its pipes.

In: ``{"spec": ...}`` once, then ``{"id": ..., "architecture": ...}``, with a "rung" for less than a full evaluation,
or with "judging" for one that tells the pictures apart.
Out: ``{"ready": ...}`` or ``{"fatal": ...}``, then ``{"id": ..., "metrics": ...}``, judging with "correct" beside it,
or ``{"id": ..., "error": ...}``.
It ends with its parent, whatever it is doing.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Mapping
from numbers import Real
from typing import Any

from riwoa.errors import RiwoaError
from riwoa.ipc.child import error_to_json
from riwoa.ipc.frames import ParentPipe
from riwoa.oracle.protocol import CandidateError, JudgingOracle, Oracle

_MAX_ERROR_CHARACTERS = 300


def main() -> int:
    """Build the oracle that the first frame names, then answer until the input ends."""
    start_s = time.monotonic()
    parent = ParentPipe()
    spec = parent.frame()["spec"]
    try:
        from riwoa.oracle.kinds import build_oracle

        oracle = build_oracle(spec)
    except RiwoaError as error:
        # The same for every worker and every attempt, so the pool stops rather than starting another.
        parent.send({"fatal": error_to_json(error)})
        return error.exit_code
    load_s = time.monotonic() - start_s
    parent.send({"ready": {"oracle_version": oracle.version, "threads": spec["threads"], "load_s": load_s}})
    while True:
        request = parent.frame()
        parent.send({"id": request["id"], **_answer(oracle, request)})


def _answer(oracle: Oracle, request: Mapping[str, Any]) -> dict[str, Any]:
    architecture, rung = request["architecture"], request.get("rung")
    try:
        if request.get("judging"):
            if not isinstance(oracle, JudgingOracle):
                raise CandidateError("this oracle does not tell its pictures apart")
            judgement = oracle.judge(architecture)
            return {"metrics": _checked(judgement.metrics), "correct": judgement.correct}
        found = oracle.evaluate(architecture) if rung is None else oracle.evaluate_at(rung, architecture)
        return {"metrics": _checked(found)}
    except CandidateError as error:  # no news to anybody but the journal
        return {"error": str(error)[:_MAX_ERROR_CHARACTERS]}
    except Exception as error:  # the boundary of the process: the candidate fails, the worker lives
        traceback.print_exc(file=sys.stderr)
        text = " ".join(str(error).split()) or "no message"
        return {"error": f"{type(error).__name__}: {text}"[:_MAX_ERROR_CHARACTERS]}


def _checked(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Plain finite numbers.

    Raises:
        ValueError: one is not a finite number.
    """
    for name, value in metrics.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"{name} is not a finite number ({value!r})")
    return {name: int(value) if isinstance(value, int) else float(value) for name, value in metrics.items()}


if __name__ == "__main__":
    sys.exit(main())
