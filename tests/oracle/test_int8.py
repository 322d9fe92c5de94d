"""A run whose latencies are of 8 bits: the file that is timed and judged is the file that is exported."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from riwoa.oracle.kind import ExportForm, FoundNetwork
from riwoa.oracle.supernet import SupernetKind
from riwoa.service.front_view import int8_words
from tests.service.test_finalists import SPEC, architecture


def facts(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def test_what_is_timed_is_exported_and_shown_beside_float32(tmp_path: Path) -> None:
    _, small = architecture(3, 3, 2)  # and two views of each picture, which the pairs know
    notes = {"latency_ms": "1.900", "latency_of": "by its table (int8)", "riwoa": "0", "run_digest": "d"}
    found = FoundNetwork(replace(SPEC, validation_views=2).to_json(), small, {}, notes, precision="int8")
    timed = SupernetKind().deployed(found)
    clock = {"ms": "1.8", "between": "1.7 and 1.9", "in": "onnxruntime", "sha256": timed.sha256}
    measured = replace(found, notes=notes | {f"latency_measured_{name}": said for name, said in clock.items()})
    files = SupernetKind().export(measured, ExportForm())
    files.write(tmp_path)
    model = onnx.load(tmp_path / "model.int8.onnx")
    del model.metadata_props[:]
    assert hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest() == timed.sha256
    validation = files.description["int8"]["validation"]
    assert validation["accuracy"] == timed.accuracy
    less = validation["against_float32"]
    assert less["value"] == pytest.approx(timed.accuracy - files.description["exported"]["validation"]["accuracy"])
    assert facts(tmp_path / "model.int8.onnx")["latency_ms"] == "1.900"
    assert "latency_ms" not in facts(tmp_path / "model.onnx")
    readme = (tmp_path / "README.md").read_text()
    assert "model.int8.onnx: latency 1.900 ms" in readme
    assert "this very graph with its weights" in readme
    assert re.findall(r'InferenceSession\("(.*?)"', readme) == ["model.int8.onnx"]
    assert "--model DIRECTORY/model.int8.onnx" in readme
    assert "in float32, paired" in int8_words(files.description["int8"])
