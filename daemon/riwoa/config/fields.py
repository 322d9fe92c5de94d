"""What the tables of a configuration are made of: a base class, kinds of numbers, and when a key may change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_PX = 1024  # no MobileNet is searched for larger inputs
# Bounds beyond all use: what is above them is a slip of the finger, and would end in memory or in an overflow.
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
NotNegative = Annotated[int, Field(ge=0, le=1_000_000_000)]
Processes = Annotated[int, Field(ge=1, le=1024)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
PositiveBytes = Annotated[int, Field(ge=1, le=2**60)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Seconds = Annotated[float, Field(gt=0.0, le=1e8, allow_inf_nan=False)]


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)) or values[-1] > MOST_PX:
        raise ValueError(f"distinct, ascending and at most {MOST_PX}")
    return values


ResolutionsPx = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1), AfterValidator(_ascending)]


def restart(default: Any, description: str, **rules: Any) -> Any:
    """A field that may change when the daemon is started again, without a new run: it decides no result."""
    return Field(default, description=description, json_schema_extra={"restart": True}, **rules)


def live(default: Any, description: str, **rules: Any) -> Any:
    """A field that may change in a run; the change applies at the next generation boundary."""
    return Field(default, description=description, json_schema_extra={"live": True}, **rules)


class Section(BaseModel):
    """A table of the file: unknown keys are refused, values never change in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class KindSettings(Section):
    """A table of one kind of oracle, ``[oracle.NAME]``; every key has a default.

    Attributes:
        answers_latency: whether "latency_ms" is among what an evaluation gives, rather than known beforehand.
    """

    answers_latency: ClassVar[bool] = False

    def check_rungs(self, rungs: Sequence[int | str]) -> None:
        """Refuse lower rungs (``oracle.rungs``) that this kind does not have; here: any.

        Raises:
            ValueError: says what the kind has instead.
        """
        if rungs:
            raise ValueError("oracle.rungs: this kind of oracle has none; leave them out")
