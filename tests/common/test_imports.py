from __future__ import annotations

import subprocess
import sys

from riwoa.ipc.child import child_environment

HEAVY = ("torch", "ofa", "transformers", "sklearn", "scipy", "safetensors", "onnx")


def test_the_daemon_loads_no_torch_and_nothing_as_heavy() -> None:
    code = f"import sys, riwoa.service; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(1), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_search_needs_numpy_alone() -> None:
    code = (
        "import sys, riwoa.search.strategies, riwoa.search.polish, riwoa.search.pareto;"
        "print([m for m in ('torch', 'scipy', 'pydantic', 'aiosqlite', 'riwoa_storage') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(1), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
