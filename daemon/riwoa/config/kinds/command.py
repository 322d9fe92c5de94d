"""``[oracle.command]``: a program, or a function, of the user's that judges architectures of a space of the user's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from riwoa.config.fields import KindSettings, restart

_FUNCTION = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
_RUNG = re.compile(r"[A-Za-z]\w{0,63}")
RESERVED = frozenset({"accuracy", "audited", "latency_ms", "predicted", "predicted_sd"})  # metrics with a meaning


def _words(value: object) -> object:
    """A command line as its words; quotes are a shell's, and nothing else of a shell is."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"a command line: {str(error).lower()}") from None


Text = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), BeforeValidator(_words)]


class CommandSettings(KindSettings):
    """What judges, what it is told, and the space that it judges."""

    answers_latency: ClassVar[bool] = True

    program: Words | None = restart(
        None,
        "the program and its arguments, a list or a text; no shell; python = the Python that riwoa runs in",
    )
    function: Annotated[str, Field(pattern=f"^{_FUNCTION}$")] | None = restart(
        None, "instead of a program: module:function, called with an architecture, fidelity= and seed="
    )
    path: str | None = restart(
        None, "directory that the function's module is imported from, if it is not installed", min_length=1
    )
    space: str | None = restart(None, "the file that declares the genes, space.toml", min_length=1)
    directory: str = restart(".", "working directory of the program", min_length=1)
    fidelity: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        "full", description="what a full evaluation is told; one on a rung is told the rung (oracle.rungs)"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed that every evaluation is told")
    retries: Annotated[int, Field(ge=0, le=100)] = restart(
        0, "times that an evaluation which failed by itself is tried again"
    )
    files: Annotated[tuple[Text, ...], Field(strict=False)] = restart(
        (), "files that decide what it answers, beside the program's own: another content is another oracle"
    )
    version: str = Field("", description="a word of yours; another word is another oracle")

    def check_rungs(self, rungs: Sequence[int | str]) -> None:
        """Numbers, ascending, or names.

        Raises:
            ValueError: they are neither, or stand twice.
        """
        numbers = [rung for rung in rungs if isinstance(rung, int)]
        wrong = [r for r in rungs if isinstance(r, str) and (_RUNG.fullmatch(r) is None or r in RESERVED)]
        if wrong or len(set(rungs)) != len(rungs) or numbers != sorted(numbers):
            raise ValueError(
                f"oracle.rungs = {list(rungs)}: a command's are numbers, ascending, or names of letters and digits, "
                "cheapest first"
            )

    @model_validator(mode="after")
    def _one_judge(self) -> CommandSettings:
        if self.program is not None and self.function is not None:
            raise ValueError("oracle.command: program and function are both given; leave one out")
        if self.path is not None and self.function is None:
            raise ValueError("oracle.command.path is where a function is imported from, and none is named")
        return self
