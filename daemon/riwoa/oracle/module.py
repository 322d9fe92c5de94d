"""An oracle made by a named function, for riwoa's own tests alone (RIWOA_TEST_ORACLES=1)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.errors import InputError, OracleError
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.kind import ExportForm, FoundNetwork, NetworkFiles, OracleKind, Problem
from riwoa.oracle.protocol import Oracle

if TYPE_CHECKING:
    from riwoa.config.schema import Config


class ModuleKind(OracleKind):
    """The kind of a ``ModuleSpec``; no configuration names it."""

    name = "module"

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """Refuse: tests make problems of their own.

        Raises:
            OracleError: always.
        """
        raise OracleError("an oracle of a module poses no problem of its own")

    def build(self, spec: Mapping[str, Any]) -> Oracle:
        """What the function returns.

        Raises:
            OracleError: this is no test.
        """
        if os.environ.get("RIWOA_TEST_ORACLES") != "1":
            raise OracleError("there is no oracle of kind 'module'; check [oracle] in the configuration")
        module, _, function = str(spec["factory"]).partition(":")
        oracle: Oracle = getattr(importlib.import_module(module), function)(**spec["arguments"])
        return oracle

    def export(self, found: FoundNetwork, form: ExportForm) -> NetworkFiles:
        """Refuse: a function has no weights.

        Raises:
            InputError: always.
        """
        raise InputError("the run searched with a 'module' oracle, which has no weights")
