"""What the protocol came to: a JSON object and a picture, all recomputed from the stages' raw counts.

mCE is the mean over the fifteen corruptions of the error, itself the mean over the five severities, not normalised:
Hendrycks & Dietterich divide by AlexNet's errors on ImageNet-C, and published none for CIFAR; the literature on
CIFAR-100-C reports the plain mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES

SCHEMA = 2  # 1: CIFAR-100 alone
_UNNORMALISED = "no errors of AlexNet on CIFAR-100-C were published to divide by"
_FROST = {
    "procedural": "frost from textures made here, not from the published photographs: not comparable with published "
    "figures",
    "photographs": "frost from the published photographs",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A network's counts. ``correct`` by corruption: one number a severity, of ``images`` each."""

    name: str
    role: str
    result: Mapping[str, Any]  # result.json
    latency_ms: float | None
    images: int
    correct: Mapping[str, Sequence[int]]


def summary(networks: Sequence[Judged], facts: Mapping[str, Any], corrupted: Mapping[str, Any]) -> dict[str, Any]:
    """The result object.

    Args:
        networks: all judged on the same images.
        facts: of the job, as they are.
        corrupted: ``CorruptedSet.facts``.
    """
    return {
        "schema": SCHEMA,
        **facts,
        "judged_on": networks[0].result["split"],
        "corrupted": dict(corrupted),
        "mce": {"normalised": False, "reason": _UNNORMALISED, "corruptions": len(CORRUPTIONS)},
        "networks": {network.name: _network(network) for network in networks},
    }


def _network(judged: Judged) -> dict[str, Any]:
    accuracies = {name: [count / judged.images for count in judged.correct[name]] for name in CORRUPTIONS}
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    result = judged.result
    kept = ("weights_sha256", "architecture", "resolution", "macs", "parameters", "device", "losses", "training_s")
    return {
        "role": judged.role,
        "latency_ms": judged.latency_ms,
        "test": dict(result["test"]),
        "test_error": result["test_error"],
        "corruption_accuracy": means,
        "corruption_accuracy_by_severity": accuracies,
        "severity_accuracy": [statistics.fmean(accuracies[n][s - 1] for n in CORRUPTIONS) for s in SEVERITIES],
        "mean_corruption_accuracy": statistics.fmean(means.values()),
        "mce": 1 - statistics.fmean(means.values()),
        **{name: result[name] for name in kept if name in result},
    }


def told_source(data: Mapping[str, Any]) -> str:
    """One paragraph: published or made, of how many images, and what mCE means here."""
    corrupted, split = data["corrupted"], data["judged_on"]
    if corrupted["source"] == "published":
        told = f"CIFAR-100-C: the published archive at {corrupted['folder']}"
    else:
        made = f"made here from the {split} images (seed {corrupted['seed']})"
        told = f"The corruptions of CIFAR-100-C, {made}; "
        if data["task"] == "cifar100":
            told = f"CIFAR-100-C: {made}, not the published archive; "
        told += _FROST[corrupted["frost"]]
    told += f"; {corrupted['images']} images a severity. mCE is unnormalised: {_UNNORMALISED}."
    if split != "test":
        told += " There are no test pictures: the validation pictures judge, which chose the winner."
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


# -- the picture -------------------------------------------------------------------------------------------------------

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe & Ito's, told apart by all
_BAR, _GAP, _LEFT, _TOP, _HEIGHT, _FOOT = 9, 14, 48, 60, 240, 110


def svg(data: Mapping[str, Any]) -> str:
    """Bars of accuracy by corruption, the clean test images first, one colour a network."""
    networks = data["networks"]
    groups = ["clean", *CORRUPTIONS]
    step = _BAR * len(networks) + _GAP
    width, height = _LEFT + step * len(groups) + _GAP, _TOP + _HEIGHT + _FOOT
    top = max(0.1, *(max(_accuracy(n, g) for g in groups) for n in networks.values()))
    ceiling = min(1.0, -(-top * 10 // 1) / 10)  # the next whole tenth
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">Corruptions of CIFAR-100-C ({data["corrupted"]["source"]}): '
        "accuracy, mean over severities</text>",
        *_legend(networks),
        *_axis(ceiling, width),
    ]
    for g, group in enumerate(groups):
        x = _LEFT + _GAP / 2 + g * step
        for i, network in enumerate(networks.values()):
            share = _accuracy(network, group)
            bar = _HEIGHT * share / ceiling
            place = f'x="{x + i * _BAR:.1f}" y="{_TOP + _HEIGHT - bar:.2f}" width="{_BAR - 1}" height="{bar:.2f}"'
            title = f"<title>{escape(group)}: {_percent(share)}</title>"
            parts.append(f'<rect {place} fill="{_COLOURS[i % len(_COLOURS)]}">{title}</rect>')
        at = f"{x + step / 2 - _GAP / 2:.1f},{_TOP + _HEIGHT + 12}"
        label = escape(group.replace("_", " "))
        parts.append(f'<text transform="translate({at}) rotate(-45)" text-anchor="end">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _accuracy(network: Mapping[str, Any], group: str) -> float:
    return float(network["test"]["accuracy"] if group == "clean" else network["corruption_accuracy"][group])


def _legend(networks: Mapping[str, Any]) -> list[str]:
    parts, x = [], _LEFT
    for i, (name, network) in enumerate(networks.items()):
        label = f"{name}: mCE {_percent(network['mce'])}"
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{_COLOURS[i % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 14}" y="39">{escape(label)}</text>')
        x += 40 + 6 * len(label)
    return parts


def _axis(ceiling: float, width: int) -> list[str]:
    parts = []
    for tenth in range(round(ceiling * 10) + 1):
        y = _TOP + _HEIGHT - _HEIGHT * tenth / 10 / ceiling
        parts.append(f'<line x1="{_LEFT}" x2="{width - _GAP}" y1="{y:.2f}" y2="{y:.2f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.2f}" text-anchor="end">{10 * tenth} %</text>')
    return parts
