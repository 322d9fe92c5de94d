"""OFA's official accuracy predictor, without OFA's code: a small perceptron over one-hot choices. No torch but to load.

Cai et al., ICLR 2020. Input 128: 20 kernels and 20 expansions of three choices (all zero where the layer does not
exist), then eight resolutions from 112 in steps of 16; three hidden layers of 400 with ReLU; output: ImageNet top-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.errors import OracleError
from riwoa.oracle.mobilenet import BLOCKS, EXPANSIONS, KERNELS, STAGES, OfaConfig

RESOLUTIONS_PX = tuple(range(112, 225, 16))
_LAYERS = STAGES * BLOCKS
_INPUTS = 6 * _LAYERS + len(RESOLUTIONS_PX)
_SHAPES = ((400, _INPUTS), (400, 400), (400, 400), (1, 400))
_NUMBERS = (0, 2, 4, 6)  # of the linear layers in OFA's nn.Sequential; a ReLU stands between each two


class AccuracyPredictor:
    """Accuracies (fractions) of batches of subnets, in float32; the last bits depend on the size of the batch.

    Args:
        weights: the four (weight (out, in), bias (out,)) pairs, first layer first.
    """

    def __init__(self, weights: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]) -> None:
        self._weights = tuple(weights)

    @classmethod
    def load(cls, file: Path) -> AccuracyPredictor:
        """Read OFA's ``acc_predictor.pth``.

        Raises:
            OracleError: unreadable, or not that network.
        """
        import torch

        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            pairs = [(_array(state[f"{i}.weight"]), _array(state[f"{i}.bias"])) for i in _NUMBERS]
        except Exception as error:  # torch raises whatever its unpickler met
            reason = str(error).partition("\n")[0][:200]
            raise OracleError(f"{file}: not OFA's accuracy predictor ({type(error).__name__}: {reason})") from None
        shapes = tuple(w.shape for w, _ in pairs)
        if shapes != _SHAPES or any(b.shape != w.shape[:1] for w, b in pairs):
            raise OracleError(f"{file}: not OFA's accuracy predictor: layers of shapes {shapes}, should be {_SHAPES}")
        if not all(np.isfinite(w).all() and np.isfinite(b).all() for w, b in pairs):
            raise OracleError(f"{file}: damaged: a weight of the accuracy predictor is not finite")
        return cls(pairs)

    def accuracies(self, configs: Sequence[OfaConfig]) -> npt.NDArray[np.float32]:
        """Predicted top-1 of each subnet, shape (n,).

        Raises:
            OracleError: a resolution outside the predictor's eight.
        """
        x = np.array([_features(c) for c in configs], dtype=np.float32).reshape(-1, _INPUTS)
        for weight, bias in self._weights[:-1]:
            x = np.maximum(x @ weight.T + bias, 0.0)
        weight, bias = self._weights[-1]
        return np.asarray((x @ weight.T + bias)[:, 0])


def _array(tensor: Any) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.float().numpy())


def _features(config: OfaConfig) -> npt.NDArray[np.float32]:
    """The 128 inputs of one subnet."""
    out = np.zeros(_INPUTS, dtype=np.float32)
    for i in range(_LAYERS):
        if i % BLOCKS < config.d[i // BLOCKS]:
            out[3 * i + KERNELS.index(config.ks[i])] = 1.0
            out[3 * _LAYERS + 3 * i + EXPANSIONS.index(config.e[i])] = 1.0
    if config.r not in RESOLUTIONS_PX:
        raise OracleError(f"the predictor knows the resolutions {RESOLUTIONS_PX}, not {config.r}")
    out[6 * _LAYERS + RESOLUTIONS_PX.index(config.r)] = 1.0
    return out
