"""``[oracle.predictor]``: OFA's accuracy predictor and its tables of latencies."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from riwoa.config.fields import KindSettings, ResolutionsPx, restart

_TUTORIAL_RESOLUTIONS_PX = (160, 176, 192, 208, 224)  # what OFA's own searches with its predictor choose from


class PredictorSettings(KindSettings):
    """Where the predictor and its tables lie, and which resolutions are searched."""

    file: str | None = restart(None, "OFA's acc_predictor.pth", min_length=1)
    latency_tables: str | None = restart(
        None, "a folder of OFA's tables, one <resolution>_lookup_table.yaml each", min_length=1
    )
    resolutions: ResolutionsPx = Field(
        _TUTORIAL_RESOLUTIONS_PX, description="input resolutions in pixels, ascending, of the predictor's eight"
    )

    def check_rungs(self, rungs: Sequence[int | str]) -> None:
        """Refuse every rung.

        Raises:
            ValueError: there is one.
        """
        if rungs:
            raise ValueError("oracle.rungs: nothing is cheaper than a predictor; leave them out")
