"""Every kind of oracle by its name: riwoa's own, and those of other packages (entry points ``riwoa.oracles``)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from riwoa import plugins
from riwoa.errors import ConfigError, OracleError
from riwoa.oracle.kind import OracleKind
from riwoa.oracle.protocol import Oracle
from riwoa.plugins import Named

# Named, not imported: a worker that looks rows up needs neither torch nor a supernet.
_BUILT_IN: Mapping[str, str] = {
    "supernet": "riwoa.oracle.supernet:SupernetKind",
    "table": "riwoa.oracle.table:TableKind",
    "predictor": "riwoa.oracle.predictor:PredictorKind",
    "command": "riwoa.oracle.command:CommandKind",
    "module": "riwoa.oracle.module:ModuleKind",
}


def kind_named(name: str) -> Named[OracleKind]:
    """The kind of oracle of a name.

    Raises:
        ConfigError: there is none, or another package's cannot be used.
    """
    if name in _BUILT_IN:
        module, _, kind = _BUILT_IN[name].partition(":")
        return Named(getattr(importlib.import_module(module), kind)())
    plugin = plugins.find(plugins.ORACLES, name)
    if plugin is None:
        raise ConfigError(f"no oracle is called {name!r}; is the package that offered it still installed?")
    if not (isinstance(plugin.value, type) and issubclass(plugin.value, OracleKind)):
        raise ConfigError(f"the package {plugin.package}: {name} must be a class that derives from OracleKind")
    with plugin.blamed("make its kind of oracle"):
        return Named(plugin.value(), plugin)


def build_oracle(spec: Mapping[str, Any]) -> Oracle:
    """The oracle of a specification's JSON form. Runs in the worker; torch is imported only for a supernet.

    Raises:
        InputError: the checkpoint, the data, the table or the predictor is missing or damaged.
        OracleError: the specification names no oracle.
    """
    try:
        found = kind_named(str(spec.get("kind")))
    except ConfigError as error:
        raise OracleError(f"there is no oracle of kind {spec.get('kind')!r}; check [oracle]: {error}") from None
    with found.blamed("make its oracle"):
        return found.value.build(spec)


def measures_device(name: str) -> bool:
    """Whether the latencies of a kind of oracle come from this device's own table; False where the kind is gone."""
    try:
        return kind_named(name).value.measures_device
    except ConfigError:
        return False
