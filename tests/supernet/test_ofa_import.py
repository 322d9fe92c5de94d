"""Importing ofa must not leave torchvision behind, and must not spoil transformers."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from riwoa.supernet.ofa_import import _torchvision_placeholder, import_ofa

DAEMON = Path(__file__).parents[2] / "daemon"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(DAEMON)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_transformers_still_import_after_ofa_and_no_torchvision_is_left() -> None:
    code = (
        "import sys\n"
        "from riwoa.supernet.ofa_import import import_ofa\n"
        "import_ofa()\n"
        "assert not [m for m in sys.modules if m.startswith('torchvision')]\n"
        "from transformers import AutoModelForCausalLM, PreTrainedModel\n"
        "from transformers.utils import is_torchvision_available\n"
        "print(PreTrainedModel.__name__)\n"
    )
    assert run_python(code) == "PreTrainedModel"


def test_importing_twice_gives_the_same_classes() -> None:
    assert import_ofa() is import_ofa()
    assert import_ofa().OFAMobileNetV3.name() == "OFAMobileNetV3"


def test_placeholder_serves_any_name_and_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with _torchvision_placeholder():
        from torchvision import transforms  # type: ignore[import-untyped,import-not-found,unused-ignore]

        assert isinstance(transforms.RandomResizedCrop, type)
    assert not [name for name in sys.modules if name.startswith("torchvision")]


def test_placeholder_is_removed_when_the_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(ImportError, match="broken"), _torchvision_placeholder():
        raise ImportError("broken")
    assert "torchvision" not in sys.modules


def test_torchvision_that_is_already_imported_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = types.ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", real)
    with _torchvision_placeholder():
        assert sys.modules["torchvision"] is real
    assert sys.modules["torchvision"] is real
