"""An accuracy predictor of one's own, learned from evaluations that a journal holds: mean and standard deviation.

A Gaussian process (Rasmussen & Williams, 2006, algorithm 2.1) over one-hot choices, as OFA's predictor sees them: three
zeros where a layer does not exist. What was tried, on the first 100 / 200 / 400 architectures of a search of its space
by that predictor, and Spearman's correlation and the share of 90 % intervals that hold on the *next* 300:

    Gaussian process, squared exponential     0.48 / 0.87 / 0.95   0.78 / 0.94 / 0.93   under 2 s
    the same, Matern 5/2                      0.48 / 0.87 / 0.95   0.78 / 0.94 / 0.94
    Bayesian ridge regression                 0.54 / 0.82 / 0.93   0.83 / 0.84 / 0.96
    five perceptrons (64, 64), bootstrapped   0.48 / 0.79 / 0.93   0.33 / 0.63 / 0.86   7 to 15 s
    five perceptrons, Adam                    0.45 / 0.77 / 0.91   0.22 / 0.46 / 0.58
    random forest, 200 trees                  0.41 / 0.78 / 0.80   0.78 / 0.92 / 0.92

Held out at random among those that it learns from, the first has 0.945 / 0.972 / 0.986: a search moves on to where all
networks are good, and there they are harder to tell apart. Believe ``check`` on later evaluations, not the folds.

numpy alone: the daemon learns one anew in every generation.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.errors import InputError
from riwoa.files.ownership import regular_file, safetensors_notes
from riwoa.parsing import parse_json
from riwoa.search.fitness import FloatArray
from riwoa.search.space import INACTIVE, IntArray, Space, SpaceError
from riwoa_storage.durable import replace_durably

FEWEST, MOST = 20, 1000  # architectures to learn from: fewer say nothing, more take minutes (the cube of their number)
FOLDS = 5
INTERVAL_SHARE, _INTERVAL_SD = 0.90, 1.6448536269514722
_FORMAT = "riwoa-surrogate-1"
_MAX_FILE_BYTES = 64 * 2**20
_LENGTHS = np.geomspace(0.7, 30.0, 12)  # of a kernel, in (differing features)^½: 92 differ at most in OFA's space
_NOISES = np.geomspace(1e-5, 1.0, 26)  # relative to the signal
_FINER = 7
_BLOCK_ROWS = 1024  # predicted together: bounds the kernel matrix


@dataclass(frozen=True, slots=True)
class Examples:
    """Evaluated architectures of one space."""

    space: Space
    indices: IntArray  # canonical, (n, genes)
    accuracies: FloatArray  # fractions, (n,)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        content = self.indices.astype("<i8").tobytes() + self.accuracies.astype("<f8").tobytes()
        return hashlib.sha256(self.space.sha256.encode() + content).hexdigest()

    def rows(self, chosen: IntArray | npt.NDArray[np.bool_]) -> Examples:
        """Some of them."""
        return Examples(self.space, self.indices[chosen], self.accuracies[chosen])


@dataclass(frozen=True, slots=True)
class Kernel:
    """Hyperparameters, of standardised accuracies; ``z_scale`` widens what the process believes of its own errors."""

    length: float
    signal: float  # variance
    noise: float  # variance
    z_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """How predictions stand against evaluations that they were not made from."""

    architectures: int
    spearman: float
    kendall: float
    rmse: float  # fractions
    coverage: float  # of the intervals that should hold INTERVAL_SHARE
    z_sd: float  # 1 where the standard deviations are right

    def to_json(self) -> dict[str, float]:
        """JSON object; what cannot be computed (ranks of equal numbers) is left out."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if math.isfinite(value)}


def is_surrogate(path: Path) -> bool:
    """Whether a file is what ``Surrogate.save`` writes."""
    return safetensors_notes(path).get("format") == _FORMAT


class Surrogate:
    """Predicts accuracies in the space of its examples.

    Args:
        examples: what it was learned from.
        kernel: fitted to them.
        report: what is known of it, a JSON object that is kept with it.
    """

    def __init__(self, examples: Examples, kernel: Kernel, report: Mapping[str, Any]) -> None:
        self.examples = examples
        self.kernel = kernel
        self.report = report
        self._centre = float(examples.accuracies.mean())
        self._spread = float(examples.accuracies.std())

    @property
    def space(self) -> Space:
        """Of the architectures that it knows."""
        return self.examples.space

    def predict(self, architectures: Sequence[Mapping[str, Any]]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of what an evaluation of each would give, fractions, each (n,).

        Raises:
            SpaceError: an architecture outside the space; the message names the gene.
        """
        indices = [self.space.indices(a) for a in architectures]
        return self.predict_indices(np.array(indices, dtype=np.int64).reshape(-1, len(self.space)))

    def predict_indices(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """As ``predict``, of canonical indices (n, genes)."""
        blocks = [self._predict_block(indices[i : i + _BLOCK_ROWS]) for i in range(0, len(indices), _BLOCK_ROWS)]
        means, sds = zip(*blocks, strict=True) if blocks else ((), ())
        return np.concatenate([*means, np.empty(0)]), np.concatenate([*sds, np.empty(0)])

    def _predict_block(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        inverse, weights, known = self._fitted
        k = _covariance(one_hot(self.space, indices), known, self.kernel)
        variance = self.kernel.signal + self.kernel.noise - np.einsum("ij,jk,ik->i", k, inverse, k, optimize=True)
        sd = self.kernel.z_scale * np.sqrt(np.maximum(variance, self.kernel.noise))
        return self._centre + self._spread * (k @ weights), self._spread * sd

    @cached_property
    def _fitted(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The inverse covariance of the examples, their weights, and their features."""
        x = one_hot(self.space, self.examples.indices)
        covariance = _covariance(x, x, self.kernel) + self.kernel.noise * np.eye(len(x))
        inverse: FloatArray = np.linalg.inv(covariance).astype(np.float64)
        return inverse, inverse @ ((self.examples.accuracies - self._centre) / self._spread), x

    def left_out_z(self) -> FloatArray:
        """Each example's error in standard deviations, had it been left out (Rasmussen & Williams, eq. 5.12)."""
        inverse, weights, _ = self._fitted
        return np.asarray(weights / np.sqrt(np.diag(inverse)))

    # -- files -----------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write it durably as safetensors.

        Raises:
            OSError: it cannot be written.
        """
        from safetensors.numpy import save

        k = self.kernel
        content = {
            "format": _FORMAT,
            "space": json.dumps(self.space.to_json()),
            "kernel": json.dumps([k.length, k.signal, k.noise, k.z_scale]),
            "report": json.dumps(self.report, allow_nan=False),
        }
        tensors: dict[str, npt.NDArray[Any]] = {"indices": self.examples.indices.astype(np.int32)}
        tensors["accuracies"] = self.examples.accuracies
        replace_durably(path, save(tensors, content))

    @classmethod
    def load(cls, path: Path) -> Surrogate:
        """Read what ``save`` wrote.

        Raises:
            InputError: missing, damaged, or not one of these files.
        """
        from safetensors import SafetensorError, safe_open

        try:
            if regular_file(path).stat().st_size > _MAX_FILE_BYTES:
                raise ValueError("it is too large")
            with safe_open(path, framework="numpy") as file:
                content = file.metadata() or {}
                if content.get("format") != _FORMAT:
                    raise ValueError("of another format")
                space = Space.from_json(parse_json(content["space"]))
                kernel = Kernel(*(float(v) for v in parse_json(content["kernel"])))
                indices, accuracies = (file.get_tensor(name) for name in ("indices", "accuracies"))
                report = parse_json(content["report"])
            examples = Examples(space, indices.astype(np.int64), accuracies.astype(np.float64))
            _check(examples, kernel)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"{path} is no accuracy predictor of riwoa's ({reason}); train it again") from None
        return cls(examples, kernel, report)


def one_hot(space: Space, indices: IntArray) -> FloatArray:
    """Features of canonical indices (n, genes): a one for each active gene's choice, (n, sum of choices)."""
    return np.hstack([indices[:, [i]] == np.arange(c) for i, c in enumerate(space.cardinalities)], dtype=np.float64)


def fit(examples: Examples, seed: int = 0) -> Surrogate:
    """Learn from evaluations, of more than ``MOST`` the latest: a search is where they are. Judged by cross-validation.

    Raises:
        InputError: too few, or all equal.
    """
    if len(examples) < FEWEST:
        raise InputError(f"{len(examples)} evaluated architectures are too few to learn from, {FEWEST} are needed")
    rng = np.random.default_rng(seed)
    examples = examples.rows(np.arange(len(examples)) >= len(examples) - MOST)
    if not examples.accuracies.std() > 1e-9:
        raise InputError(f"all {len(examples)} accuracies are equal: there is nothing to learn")
    fold = rng.permutation(len(examples)) % FOLDS
    parts = [(learn(examples.rows(fold != k)), examples.rows(fold == k)) for k in range(FOLDS)]
    means, sds = np.empty(len(examples)), np.empty(len(examples))
    for k, (surrogate, left_out) in enumerate(parts):
        means[fold == k], sds[fold == k] = surrogate.predict_indices(left_out.indices)
    held_out = judge(means, sds, examples.accuracies)
    whole = learn(examples)
    return Surrogate(examples, whole.kernel, {"architectures": len(examples), "held_out": held_out.to_json()})


def judge(means: FloatArray, sds: FloatArray, accuracies: FloatArray) -> Judgement:
    """Predictions against evaluations, each (n,)."""
    from scipy import stats

    z = (accuracies - means) / sds
    ranked = bool(np.ptp(means) > 0 and np.ptp(accuracies) > 0)
    return Judgement(
        architectures=len(means),
        spearman=float(stats.spearmanr(means, accuracies).statistic) if ranked else math.nan,
        kendall=float(stats.kendalltau(means, accuracies).statistic) if ranked else math.nan,
        rmse=float(np.sqrt(np.mean((means - accuracies) ** 2))),
        coverage=float(np.mean(np.abs(z) <= _INTERVAL_SD)),
        z_sd=float(np.sqrt(np.mean(z**2))),
    )


def covers(mean: float, deviation: float, accuracy: float) -> bool:
    """Whether the interval that should hold ``INTERVAL_SHARE`` of them holds this accuracy."""
    return abs(accuracy - mean) <= _INTERVAL_SD * deviation


def unseen(surrogate: Surrogate, examples: Examples) -> Examples:
    """Those that it was not learned from.

    Raises:
        InputError: of another space.
    """
    if examples.space.sha256 != surrogate.space.sha256:
        raise InputError(
            f"the predictor knows the space {surrogate.space.name!r}, the run searched {examples.space.name!r} or with "
            "other choices; train one on this journal"
        )
    known = {row.tobytes() for row in surrogate.examples.indices}
    return examples.rows(np.array([row.tobytes() not in known for row in examples.indices], dtype=np.bool_))


def learn(examples: Examples) -> Surrogate:
    """The process of greatest marginal likelihood (eq. 2.30), its deviations scaled so that left-out errors fit them.

    For each length scale of a grid, then of a finer one around the best, an eigendecomposition gives the likelihood for
    every ratio of noise to signal; the signal's own variance follows in closed form. Seconds for a thousand examples,
    the same kernel as gradients find (scikit-learn's, on 40 to 400 examples: predictions equal to 0.0001), and nothing
    to converge.

    Args:
        examples: not all of one accuracy.
    """
    x, y = one_hot(examples.space, examples.indices), examples.accuracies
    y = (y - y.mean()) / y.std()
    differing = _differing(x, x)
    found = [_likeliest(differing, y, length) for length in _LENGTHS]
    best = min(range(len(found)), key=lambda i: found[i][0])
    around = _LENGTHS[max(0, best - 1)], _LENGTHS[min(len(_LENGTHS), best + 2) - 1]
    found += [_likeliest(differing, y, length) for length in np.geomspace(*around, _FINER)[1:-1]]
    kernel = min(found, key=lambda f: f[0])[1]
    z_scale = float(np.sqrt(np.mean(Surrogate(examples, kernel, {}).left_out_z() ** 2)))
    return Surrogate(examples, replace(kernel, z_scale=max(z_scale, 1e-3)), {})


def _likeliest(differing: FloatArray, y: FloatArray, length: float) -> tuple[float, Kernel]:
    """The least negative log marginal likelihood at a length scale, up to a constant, and its kernel."""
    eigenvalues, vectors = np.linalg.eigh(np.exp(-differing / (2.0 * length**2)))
    spectra = np.maximum(eigenvalues, 0.0)[None, :] + _NOISES[:, None]
    signals = np.mean((vectors.T @ y) ** 2 / spectra, axis=1)
    costs = 0.5 * len(y) * np.log(signals) + 0.5 * np.log(spectra).sum(axis=1)
    least = int(np.argmin(costs))
    signal = float(signals[least])
    return float(costs[least]), Kernel(float(length), signal, signal * float(_NOISES[least]))


def _covariance(a: FloatArray, b: FloatArray, kernel: Kernel) -> FloatArray:
    """Squared exponential of the number of features that differ, (n, m); noise is not in it."""
    return np.asarray(kernel.signal * np.exp(-_differing(a, b) / (2.0 * kernel.length**2)))


def _differing(a: FloatArray, b: FloatArray) -> FloatArray:
    """How many features differ, (n, m)."""
    return np.asarray(a.sum(1)[:, None] + b.sum(1)[None, :] - 2.0 * (a @ b.T))


def _check(examples: Examples, kernel: Kernel) -> None:
    """Refuse a file whose numbers are not those of examples of its space, before anything is computed from them."""
    n, genes = len(examples.accuracies), len(examples.space)
    if examples.indices.shape != (n, genes) or not FEWEST <= n <= MOST:
        raise ValueError(f"examples of shape {examples.indices.shape}")
    if np.any(examples.indices < INACTIVE) or np.any(examples.indices >= examples.space.cardinalities):
        raise ValueError("an example lies outside its space")
    if not np.isfinite(examples.accuracies).all() or not examples.accuracies.std() > 0:
        raise ValueError("accuracies that are not finite, or all equal")
    values = (kernel.length, kernel.signal, kernel.noise, kernel.z_scale)
    if not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError("hyperparameters that are not positive")


def examples_of(space: Space, found: Iterator[tuple[Mapping[str, Any], Any]]) -> Examples:
    """Architectures with their accuracies, each once; what is no number, or outside the space, is left out."""
    rows: dict[bytes, tuple[IntArray, float]] = {}
    for architecture, accuracy in found:
        if not isinstance(accuracy, int | float) or not math.isfinite(accuracy):
            continue
        try:
            row = space.indices(architecture)
        except SpaceError:
            continue
        rows.setdefault(row.tobytes(), (row, float(accuracy)))
    indices = np.array([row for row, _ in rows.values()], dtype=np.int64).reshape(-1, len(space))
    return Examples(space, indices, np.array([accuracy for _, accuracy in rows.values()], dtype=np.float64))
