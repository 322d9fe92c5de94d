"""Covariance of the elites and its eigenbasis, usable with far fewer elites than coordinates."""

from __future__ import annotations

import numpy as np

from riwoa.search.fitness import FloatArray


def shrunk_covariance(elites: FloatArray) -> FloatArray:
    """Sample covariance shrunk towards a multiple of the identity. (k, D) in, (D, D) out.

    With k <= D the sample covariance is singular and its small eigenvalues are noise; the intensity is estimated from
    the data (oracle-approximating shrinkage, Chen et al., IEEE Trans. Signal Process. 58, 2010, Eq. 23). The target is
    a multiple of the identity, not the diagonal: that is what stays the same when the landscape is rotated.
    """
    k, d = elites.shape
    centred = elites - elites.mean(axis=0)
    s = centred.T @ centred / k
    mu = float(np.trace(s)) / d
    tr_s2 = float(np.sum(s * s))
    denominator = (k + 1.0 - 2.0 / d) * (tr_s2 - d * mu**2)
    rho = 1.0 if denominator <= 0.0 else min(1.0, ((1.0 - 2.0 / d) * tr_s2 + (d * mu) ** 2) / denominator)
    return np.asarray((1.0 - rho) * s + rho * mu * np.eye(d))


def eigenbasis(covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, largest first, shape (D,), and orthonormal eigenvectors as columns, shape (D, D).

    An eigenvector's sign is LAPACK's accident; here its largest component (the first among equals) is positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.argmax(np.abs(vectors), axis=0)
    signs = np.where(np.take_along_axis(vectors, largest[None, :], axis=0) < 0.0, -1.0, 1.0)
    return np.ascontiguousarray(values), np.ascontiguousarray(vectors * signs)
