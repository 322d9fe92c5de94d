"""JSON as no program of ours writes it: deep, huge, of other kinds; the same for whoever reads JSON from outside."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

ODD_BYTES = {
    "nothing": b"",
    "cut": b'{"state": "runn',
    "deep lists": b"[" * 100_000,
    "deep and whole": b"[" * 900 + b"]" * 900,
    "a deep field": b'{"state": "running", "x": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    "an integer of 5,000 digits": b'{"state": "running", "pid": ' + b"9" * 5000 + b"}",
    "17 million bytes": b'{"state": "' + b"x" * (17 << 20) + b'"}',
    "a string that never ends": b'"' + b'\\"' * 100_000 + b"[" * 65,
    "not UTF-8": b'{"state": "\xff\xfe"}',
    "no object": b'["running"]',
    "null": b"null",
    "no state": b'{"no": "state"}',
    "a state of another kind": b'{"state": ["running"]}',
    "UTF-16": '{"state": "running"}'.encode("utf-16"),
}

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "\x1b[2J\n\x00\u202e", [], {}, [None], [[]], {"a": {}}, {"a": []}),
    *(-1, 0, 0.5, 10**30, -(10**30), 1e300, float("nan"), float("inf")),
)


def odd_value() -> st.SearchStrategy[Any]:
    return st.sampled_from(ODD_VALUES).map(copy.deepcopy)


@st.composite
def mutated(draw: st.DrawFn, whole: Mapping[str, Any]) -> dict[str, Any]:
    """An object with some of its values, however deep, replaced or taken out."""
    found: dict[str, Any] = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 4))):
        at: Any = found
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
                if draw(st.booleans()) and isinstance(at, dict):
                    del at[key]
                else:
                    at[key] = draw(odd_value())
                break
            at = at[key]
    return found
