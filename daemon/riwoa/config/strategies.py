"""The table of a strategy's own settings, ``[search.NAME]``, made from the strategy: riwoa's own and other packages'.

The dataclass that a strategy names as its ``parameters`` is the only place where a setting is described; the search
knows no pydantic. Where the strategy can use a predictor, the table also says which file it begins with.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from pydantic import Field, create_model

from riwoa.config.fields import Section, restart
from riwoa.search.base import PopulationStrategy, SearchParameters


def strategy_table(strategy: type[PopulationStrategy]) -> type[Section]:
    """The model of a strategy's table: its parameters beyond those of every strategy, and the file of a predictor."""
    hints = typing.get_type_hints(strategy.parameters)
    common = {field.name for field in dataclasses.fields(SearchParameters)}
    keys = {
        field.name: (hints[field.name], _key(field))
        for field in dataclasses.fields(strategy.parameters)
        if field.name not in common
    }
    if strategy.uses_predictor:
        keys["predictor"] = (
            str | None,
            restart(
                None,
                "file of `riwoactl predictor train`, to screen from the start; else from 20 evaluations on",
                min_length=1,
            ),
        )
    made: Any = keys
    return create_model(strategy.parameters.__name__, __base__=Section, **made)


def _key(field: dataclasses.Field[Any]) -> Any:
    """The key of one parameter: its default, description and bounds."""
    told = field.metadata
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return Field(default, description=told.get("description", ""), ge=told.get("least"), le=told.get("most"))
