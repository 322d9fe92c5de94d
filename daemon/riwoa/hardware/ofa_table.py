"""OFA's official latency tables (one YAML file a resolution): the sum of a subnet's operators, as OFA's tutorial sums.

The network of these tables is OFA's MobileNetV3 at width 1.2. Reading is lazy: a file is parsed, once, when its
resolution is first asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riwoa.errors import TableError
from riwoa.oracle.mobilenet import BLOCKS, OfaConfig

STEM = 24
WIDTHS = (32, 48, 96, 136, 192)  # output channels of each stage
STRIDES = (2, 2, 2, 1, 2)
SQUEEZE = (0, 1, 0, 1, 1)
HARD_SWISH = (0, 0, 1, 1, 1)
HEAD, FEATURES, CLASSES = 1152, 1536, 1000


class OfaLatencyTable:
    """Latencies in milliseconds from a folder of ``<resolution>_lookup_table.yaml``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[int, Mapping[str, Any]] = {}

    def latency_ms(self, config: OfaConfig) -> float:
        """The whole network: a plain sum over its operators.

        Raises:
            TableError: no table of this resolution, or no operator of this kind in it.
        """
        return sum(self.layers_ms(config).values())

    def layers_ms(self, config: OfaConfig) -> dict[str, float]:
        """Each part's share, in milliseconds: "stem", "head", and "stage1.block1" and so on."""
        table, r = self._table(config.r), config.r
        size = (r + 1) // 2
        stem = f"expanded_conv-input:{size}x{size}x24-output:{size}x{size}x24-expand:24-kernel:3-stride:1-idskip:1"
        parts = {
            "stem": self._mean(table, f"Conv-input:{r}x{r}x3-output:{size}x{size}x{STEM}")
            + self._mean(table, f"{stem}-se:0-hs:0")
        }
        channels = STEM
        for stage, width in enumerate(WIDTHS):
            for block in range(config.d[stage]):
                stride = STRIDES[stage] if block == 0 else 1
                out = (size - 1) // stride + 1
                i = stage * BLOCKS + block
                key = (
                    f"expanded_conv-input:{size}x{size}x{channels}-output:{out}x{out}x{width}"
                    f"-expand:{round(channels * config.e[i])}-kernel:{config.ks[i]}-stride:{stride}"
                    f"-idskip:{int(block > 0)}-se:{SQUEEZE[stage]}-hs:{HARD_SWISH[stage]}"
                )
                parts[f"stage{stage + 1}.block{block + 1}"] = self._mean(table, key)
                size, channels = out, width
        parts["head"] = sum(
            self._mean(table, key)
            for key in (
                f"Conv_1-input:{size}x{size}x{channels}-output:{size}x{size}x{HEAD}",
                f"AvgPool2D-input:{size}x{size}x{HEAD}-output:1x1x{HEAD}",
                f"Conv_2-input:1x1x{HEAD}-output:1x1x{FEATURES}",
                f"Logits-input:1x1x{FEATURES}-output:{CLASSES}",
            )
        )
        return parts

    def _table(self, resolution: int) -> Mapping[str, Any]:
        if resolution not in self._tables:
            import yaml

            file = self._folder / f"{resolution}_lookup_table.yaml"
            try:
                loaded = yaml.load(
                    file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
                )
            except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
                reason = " ".join(str(error).split())[:200]
                raise TableError(
                    f"{file}: cannot be read ({reason}); a table of OFA's is needed for each resolution"
                ) from None
            if not isinstance(loaded, Mapping):
                raise TableError(f"{file}: not one of OFA's tables: a mapping from operators to their timings")
            self._tables[resolution] = loaded
        return self._tables[resolution]

    @staticmethod
    def _mean(table: Mapping[str, Any], key: str) -> float:
        try:
            mean_ms = float(table[key]["mean"])
        except (KeyError, TypeError, ValueError):
            raise TableError(f"no timing of {key} in OFA's table") from None
        if not (math.isfinite(mean_ms) and mean_ms >= 0):
            raise TableError(f"the timing of {key} in OFA's table is {mean_ms}, no time")
        return mean_ms
