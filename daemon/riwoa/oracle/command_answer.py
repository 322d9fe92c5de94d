"""What a command may answer: one JSON object of numbers. An accuracy among them is a fraction."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from riwoa.config.kinds.command import RESERVED
from riwoa.oracle.protocol import CandidateError
from riwoa.parsing import parse_json
from riwoa.text import printable

MOST_LINE_BYTES = 65_536
_MOST_METRICS = 100
_SHOWN = 80
_NAME = re.compile(r"[A-Za-z_][\w.]{0,63}")


def parse_answer(line: bytes) -> dict[str, float]:
    """The metrics that the last line of a program's output holds.

    Raises:
        CandidateError: it holds none, or says that something failed.
    """
    if len(line) > MOST_LINE_BYTES:
        raise CandidateError(f"the last line of its output is longer than {MOST_LINE_BYTES} bytes")
    try:
        answer = parse_json(line, MOST_LINE_BYTES)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        shown = printable(line.decode(errors="replace"), _SHOWN)
        raise CandidateError(f"the last line of its output is no JSON object: {shown}")
    return metrics_of(answer)


def metrics_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an answer; texts and other values are left out.

    Raises:
        CandidateError: there is none, one is not finite, or a name is riwoa's own.
    """
    if answer.get("error") not in (None, ""):
        raise CandidateError(f"it answered with an error: {printable(answer['error'], 200)}")
    numbers = {
        str(name): float(value) if isinstance(value, float) else value
        for name, value in answer.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if len(numbers) > _MOST_METRICS:
        raise CandidateError(f"it answered {len(numbers)} numbers, at most {_MOST_METRICS} are kept")
    for name, value in numbers.items():
        _check(name, value)
    if not numbers:
        raise CandidateError(f"its answer holds no number: {printable(dict(answer), _SHOWN)}")
    accuracy = numbers.get("accuracy", 0.0)
    if not 0.0 <= accuracy <= 1.0:
        hint = "; divide percent by 100" if 1.0 < accuracy <= 100.0 else ""
        raise CandidateError(f"accuracy is {accuracy:g}, and must be a fraction between 0 and 1{hint}")
    return numbers


def _check(name: str, value: float) -> None:
    """Refuse a number that cannot be kept.

    Raises:
        CandidateError: says why.
    """
    if _NAME.fullmatch(name) is None:
        raise CandidateError(f"{printable(repr(name), _SHOWN)} is no name of a metric: letters, digits, _ and . are")
    if name in RESERVED - {"accuracy", "latency_ms"}:
        raise CandidateError(f"{name} is a name of riwoa's own; call the metric something else")
    if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
        raise CandidateError(f"{name} is {str(value)[:_SHOWN]}, which is no finite number")
    if name == "latency_ms" and value < 0.0:
        raise CandidateError(f"latency_ms is {value:g}; a latency is not below 0")
