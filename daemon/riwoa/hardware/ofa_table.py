"""OFA's official latency tables (one YAML file a resolution): the sum of a subnet's operators, as OFA's tutorial sums.

The network of these tables is OFA's MobileNetV3 at width 1.2. Reading is lazy: a file is parsed, once, when its
resolution is first asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.errors import TableError
from riwoa.files.ownership import regular_file
from riwoa.parsing import read_once
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

_MOST_BYTES = 4 * 2**20  # OFA's have 15 KB
STEM = 24
WIDTHS = (32, 48, 96, 136, 192)  # output channels of each stage
STRIDES = (2, 2, 2, 1, 2)
SQUEEZE = (0, 1, 0, 1, 1)
HARD_SWISH = (0, 0, 1, 1, 1)
HEAD, FEATURES, CLASSES = 1152, 1536, 1000
_KERNEL_AT = {kernel: i for i, kernel in enumerate(KERNELS)}
_EXPANSION_AT = {expansion: i for i, expansion in enumerate(EXPANSIONS)}


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a network of one resolution adds up from, milliseconds."""

    stem_ms: float
    head_ms: float
    blocks_ms: npt.NDArray[np.float64]  # (layers, kernels, expansions)
    block_ms: list[list[list[float]]]  # the same, for a network by itself

    @property
    def fixed_ms(self) -> float:
        return self.stem_ms + self.head_ms


class OfaLatencyTable:
    """Latencies in milliseconds from a folder of ``<resolution>_lookup_table.yaml``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[int, Mapping[str, Any]] = {}
        self._of_resolution: dict[int, _Parts] = {}

    def latency_ms(self, config: OfaConfig) -> float:
        """The whole network: a plain sum over its operators.

        Raises:
            TableError: no table of this resolution, or no operator of this kind in it.
        """
        parts = self._parts(config.r)
        total_ms = parts.stem_ms  # the order of the sum is the file's: its last bits decide ties
        for layer, (kernel, expansion) in enumerate(zip(config.ks, config.e, strict=True)):
            if layer % BLOCKS < config.d[layer // BLOCKS]:
                total_ms += parts.block_ms[layer][_KERNEL_AT[kernel]][_EXPANSION_AT[expansion]]
        return total_ms + parts.head_ms

    def latencies_ms(self, configs: Sequence[OfaConfig]) -> npt.NDArray[np.float64]:
        """Those of many networks at once, (n,); ``latency_ms`` to the last bits, which the order of the sum decides.

        Raises:
            TableError: no table of a resolution, or an operator of the space that is not in it.
        """
        ks, e, d = (np.array([getattr(c, gene) for c in configs], dtype=np.int64) for gene in ("ks", "e", "d"))
        resolutions, of_config = np.unique([c.r for c in configs], return_inverse=True)
        parts = [self._parts(int(r)) for r in resolutions]
        layers = np.arange(STAGES * BLOCKS)
        picked = np.stack([p.blocks_ms for p in parts])[
            of_config[:, None], layers, np.searchsorted(KERNELS, ks), np.searchsorted(EXPANSIONS, e)
        ]
        exists = layers % BLOCKS < d[:, layers // BLOCKS]
        fixed_ms = np.array([p.fixed_ms for p in parts])[of_config]
        return np.asarray(fixed_ms + np.where(exists, picked, 0.0).sum(axis=1))

    def range_ms(self, resolutions: Sequence[int]) -> tuple[float, float]:
        """The least and the greatest latency of the whole space.

        Raises:
            TableError: no table of a resolution, or an operator of the space that is not in it.
        """
        parts = [self._parts(r) for r in resolutions]
        low_ms, high_ms = (np.stack([f(p.blocks_ms, axis=(1, 2)) for p in parts]) for f in (np.min, np.max))
        shallow = np.arange(STAGES * BLOCKS) % BLOCKS < min(DEPTHS)
        fixed_ms = np.array([p.fixed_ms for p in parts])
        return float((fixed_ms + low_ms[:, shallow].sum(1)).min()), float((fixed_ms + high_ms.sum(1)).max())

    def sha256(self, resolutions: Sequence[int]) -> str:
        """Hash of the files of these resolutions, and of how they are summed.

        Raises:
            TableError: one is missing.
        """
        digest = hashlib.sha256(b"ofa-table-1")
        for r in resolutions:
            self._table(r)
            digest.update(hashlib.sha256(self._file(r).read_bytes()).digest())
        return digest.hexdigest()

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

    def _parts(self, resolution: int) -> _Parts:
        """Every block of the space at one resolution: nine networks have all of them."""
        if resolution not in self._of_resolution:
            blocks_ms = np.empty((STAGES * BLOCKS, len(KERNELS), len(EXPANSIONS)))
            for i, j in product(range(len(KERNELS)), range(len(EXPANSIONS))):
                n = STAGES * BLOCKS
                uniform = OfaConfig((KERNELS[i],) * n, (EXPANSIONS[j],) * n, (max(DEPTHS),) * STAGES, resolution)
                _, *blocks, _ = self.layers_ms(uniform).values()
                blocks_ms[:, i, j] = blocks
            parts = self.layers_ms(uniform)
            self._of_resolution[resolution] = _Parts(parts["stem"], parts["head"], blocks_ms, blocks_ms.tolist())
        return self._of_resolution[resolution]

    def _file(self, resolution: int) -> Path:
        return self._folder / f"{resolution}_lookup_table.yaml"

    def _table(self, resolution: int) -> Mapping[str, Any]:
        if resolution not in self._tables:
            import yaml

            file = regular_file(self._file(resolution))
            try:
                content, _ = read_once(file, _MOST_BYTES)
                loaded = yaml.load(content.decode(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
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
        except (KeyError, TypeError, ValueError, OverflowError):
            raise TableError(f"no timing of {key} in OFA's table") from None
        if not (math.isfinite(mean_ms) and mean_ms >= 0):
            raise TableError(f"the timing of {key} in OFA's table is {mean_ms}, no time")
        return mean_ms
