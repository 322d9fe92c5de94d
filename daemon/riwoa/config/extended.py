"""The configuration with the tables of other packages: ``[oracle.NAME]``, ``[search.NAME]``, ``[cognition.NAME]``.

A package's oracle names a pydantic model as its ``settings``, its strategy a dataclass as its ``parameters``, as
riwoa's own do; either becomes the table of that name, with the same strictness.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar, cast

from pydantic import BaseModel, Field, ValidationError, create_model

from riwoa import plugins
from riwoa.config.fields import KindSettings, Section
from riwoa.config.schema import Choosing, Cognition, Config, Oracle, Search
from riwoa.config.strategies import strategy_table
from riwoa.errors import ConfigError
from riwoa.plugins import Plugin
from riwoa.search.base import PopulationStrategy, SearchParameters
from riwoa.text import printable

GROUPS = {"oracle": plugins.ORACLES, "search": plugins.STRATEGIES, "cognition": plugins.PROVIDERS}
_SECTIONS: dict[str, type[Choosing]] = {"oracle": Oracle, "search": Search, "cognition": Cognition}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # RIWOA_ORACLE__NAME__KEY must be readable


def chooser(section: str) -> str:
    """The dotted key that names what does a section's work."""
    return f"{section}.{_SECTIONS[section].chooses}"


def plugin_of(section: str, name: str) -> Plugin:
    """What another package offers under a name that is none of riwoa's own.

    Raises:
        ConfigError: none does, or it cannot be used.
    """
    base = _SECTIONS[section]
    plugin = plugins.find(GROUPS[section], name) if _NAME.fullmatch(name) else None
    if plugin is None:
        known = ", ".join((*base.choices, *plugins.names(GROUPS[section])))
        shown = printable(name, 100)
        raise ConfigError(
            f"{section}.{base.chooses} = {shown!r}, should be one of {known}; no installed package offers another "
            f"under {GROUPS[section]}"
        )
    return plugin


@functools.cache
def config_type(**chosen: str) -> type[Config]:
    """The model of a configuration, by section the name of what does its work.

    Raises:
        ConfigError: a name that nobody offers, or a package that offers something else than it should.
    """
    sections = {
        section: _extended(section, name) for section, name in chosen.items() if name not in _SECTIONS[section].choices
    }
    if not sections:
        return Config
    fields: dict[str, Any] = {section: (model, Field(default_factory=model)) for section, model in sections.items()}
    return create_model("Config", __base__=Config, **fields)


def _extended(section: str, name: str) -> type[Choosing]:
    base, plugin = _SECTIONS[section], plugin_of(section, name)
    if name in base.model_fields:
        raise ConfigError(f"the package {plugin.package} offers {name!r} under {GROUPS[section]}, which is a key")
    with plugin.blamed("describe its settings"):
        table = _table(section, plugin)
    fields: dict[str, Any] = {"choices": (ClassVar[tuple[str, ...]], (*base.choices, name))}
    if table is not None:
        fields[name] = (table, Field(default_factory=table))
    return cast("type[Choosing]", create_model(base.__name__, __base__=base, **fields))


def _table(section: str, plugin: Plugin) -> type[BaseModel] | None:
    """The model of a plug-in's own table; None where it needs none.

    Raises:
        ConfigError: it is no model, or has no defaults.
    """
    if section == "search":
        table = _of_strategy(plugin)
    else:
        table = getattr(plugin.value, "settings", KindSettings if section == "oracle" else None)
    wanted = KindSettings if section == "oracle" else Section
    if table is None and section != "oracle":
        return None
    if not (isinstance(table, type) and issubclass(table, wanted)):
        raise ConfigError(
            f"the package {plugin.package}: the settings of {plugin.name} must be a class that derives from "
            f"riwoa.config.fields.{wanted.__name__}"
        )
    try:
        table()
    except ValidationError as error:
        missing = ".".join(map(str, error.errors()[0]["loc"]))
        problem = f"{plugin.name}.{missing} needs a default that is valid"
        raise ConfigError(f"the package {plugin.package}: {problem}") from None
    return table


def _of_strategy(plugin: Plugin) -> type[Section] | None:
    """The table of a strategy of another package; None where it has no settings of its own."""
    strategy = plugin.value
    if not (isinstance(strategy, type) and issubclass(strategy, PopulationStrategy)):
        return None  # refused where it is made
    if not (isinstance(strategy.parameters, type) and issubclass(strategy.parameters, SearchParameters)):
        raise ConfigError(
            f"the package {plugin.package}: the parameters of {plugin.name} must be a dataclass that derives from "
            "riwoa.search.base.SearchParameters"
        )
    table = strategy_table(strategy)
    return table if table.model_fields else None
