"""``[oracle.table]``: measurements that somebody made before, looked up in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from riwoa.config.fields import KindSettings, restart


class TableSettings(KindSettings):
    """The file, and which of its columns mean what."""

    file: str | None = restart(None, "an .npz or .csv file, one row an architecture", min_length=1)
    genes: str = Field("ops", description="its genes: an array of integers (rows, genes), or columns, by commas")
    order: bool = Field(False, description="the choices of its genes are in order, as sizes are")
    accuracy: str | None = Field(None, description="column to raise: fractions, or percent")
    report: str | None = Field(None, description="column journaled beside it, never searched by (test accuracy)")
    latency: str | None = Field(
        None, description="column of milliseconds, or FILE:COLUMN of a file beside the table; without: no latency"
    )
    low_fidelity: str | None = Field(None, description="column of cheap accuracies, journaled likewise")
    low_fidelity_cost: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="what a cheap accuracy costs, relative to a full one"
    )

    def check_rungs(self, rungs: Sequence[int | str]) -> None:
        """The low fidelity, where its column is named.

        Raises:
            ValueError: there are others.
        """
        if rungs and (tuple(rungs) != ("low_fidelity",) or not self.low_fidelity):
            raise ValueError('oracle.rungs of a table is ["low_fidelity"], with oracle.table.low_fidelity its column')
