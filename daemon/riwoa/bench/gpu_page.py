"""The part of the results page that ``make gpu-evidence`` writes, and its table of what is done and what is next."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from riwoa.bench.gpu import Evidence, Record, due, lacks
from riwoa.bench.gpu_plan import Measurement
from riwoa.text import duration

BEGIN = "<!-- gpu: what follows is written by `make gpu-evidence`, and again the next time -->"
END = "<!-- gpu: end -->"
_WIDTH = 79
_TITLES = {
    "supernet": "A CIFAR-100 supernet of width 0.5",
    "table": "The CUDA latency table",
    "tensorrt": "TensorRT's latencies",
    "search": "A search with its oracle on the GPU, by the CUDA table",
    "validate": "The winner retrained (`riwoactl validate cifar100`)",
    "model": "A model of Nanbeige's shape, random weights, in the loop of the same search",
}

Rows = list[tuple[str, str]]


def states(plan: Sequence[Measurement], evidence: Evidence) -> list[list[str]]:
    """Name, state, time and slices of each measurement, in order."""
    left = [m.name for m in due(plan, evidence)]
    rows = []
    for m in plan:
        record = evidence.record(m.name)
        spent = f"{duration(record.took_s)}, slices: {record.slices}" if record.slices else ""
        rows.append([m.name, _state(m, evidence, m.name in left[:1]), spent])
    return rows


def _state(measurement: Measurement, evidence: Evidence, is_next: bool) -> str:
    record = evidence.record(measurement.name)
    if record.done:
        return "done"
    if record.failed is not None:
        return f"to be tried again: {record.failed}"
    state = lacks(measurement, evidence) or ("under way" if record.slices else "not measured yet")
    return f"{state}, next" if is_next else state


def rendered(plan: Sequence[Measurement], evidence: Evidence) -> str:
    """The generated part, in Markdown."""
    done = [(m, evidence.record(m.name)) for m in plan if evidence.record(m.name).done]
    parts = ["By a rehearsal on a processor: no results."] if evidence.rehearsal else []
    left = [(m.name, evidence.record(m.name).failed) for m in plan if not evidence.record(m.name).done]
    if left:
        names = ", ".join(name if reason is None else f"{name} ({reason})" for name, reason in left)
        parts.append(_filled(f"Of what `make gpu-evidence` measures, not yet measured: {names}."))
    parts += [_filled(f"{what} {'; '.join(told)}.") for what, told in _provenance(done).items() if told]
    for measurement, record in done:
        title = f"{_TITLES[measurement.name]} ({duration(record.took_s)} in slices: {record.slices})"
        parts += [_filled(title), _block(_FOUND[measurement.name](record.found))]
    return "\n\n".join(parts)


def _provenance(done: Sequence[tuple[Measurement, Record]]) -> dict[str, list[str]]:
    """Cards with machines, libraries and commits of all slices, each once."""
    slices = [told for _, record in done for told in record.provenance]
    machines = [f"{told['card']} ({told['machine']})" for told in slices]
    others = {what: [told[key] for told in slices] for what, key in (("With", "libraries"), ("Commit", "commit"))}
    return {what: list(dict.fromkeys(told)) for what, told in {"On": machines, **others}.items()}


# -- what was found, by measurement ------------------------------------------------------------------------------------


def _supernet(found: Mapping[str, Any]) -> Rows:
    check = found["check"]
    rows = [("training", f"{found['train']['steps']} steps")]
    for name, accuracy in check["accuracy"].items():
        rows.append((name.replace("_", " "), ", ".join(f"{split} {100 * a:.2f} %" for split, a in accuracy.items())))
    errors = check["lead_standard_errors"]
    known = "" if errors is None else f", {errors:.1f} standard errors"
    return [*rows, ("lead over the median", f"{100 * check['lead']:.2f} points{known}")]


def _table(found: Mapping[str, Any]) -> Rows:
    check = found["check"]
    rows = [("operators", f"{found['build']['operators']}, repeats: {found['build']['settings']['repeats']}")]
    for p in check["predictors"]:
        rows.append((p["predictor"], f"Spearman {p['spearman']:.3f}, median error {p['median_error_percent']:.1f} %"))
    interval = check["interval"]
    if interval is not None:
        rows.append(("interval", f"+-{interval['half_width_percent']:.1f} %, holds {100 * interval['coverage']:.0f} %"))
    return [*rows, ("unseen networks", f"{check['networks']}, rounds: {check['rounds']}")]


def _tensorrt(found: Mapping[str, Any]) -> Rows:
    calibration = found["build"]["calibration"]
    low, high = found["build"]["range_ms"]
    return [
        ("range of the space", f"{low:.3f} to {high:.3f} ms"),
        ("networks that it is fitted on", f"{calibration['networks']}, Spearman {calibration['spearman']:.3f}"),
        ("mean error on them", f"{calibration['mean_abs_error_percent']:.1f} %"),
    ]


def _search(found: Mapping[str, Any]) -> Rows:
    status = found["status"]
    leader, test, timed = status["leader"], status["test"] or {}, status["timed"] or {}
    rows = [
        ("evaluations", f"{status['evaluations']['unique']}"),
        ("winner, validation", f"{100 * leader['accuracy']:.2f} %, the best of {leader['tries']}"),
    ]
    if test.get("accuracy") is not None:
        error = f" +- {100 * test['accuracy_error']:.2f}" if test.get("accuracy_error") is not None else ""
        rows.append(("winner, test", f"{100 * test['accuracy']:.2f} %{error}"))
    target = f"target {status['run']['target_ms']:.4f}"
    rows.append(("winner, by the table", f"{leader['latency_ms']:.4f} ms, {target}"))
    if timed.get("latency_ms") is not None:
        rows.append(("winner, by the clock", f"{timed['latency_ms']:.4f} ms, {timed['runtime']}"))
    return rows


def _validate(found: Mapping[str, Any]) -> Rows:
    rows = []
    for name, network in found["report"]["networks"].items():
        test = f"test {100 * network['test']['accuracy']:.2f} % +- {100 * network['test_error']:.2f}"
        corrupted = f"corrupted {100 * network['mean_corruption_accuracy']:.2f} %"
        rows.append((name, f"{test}, {corrupted}, {network['macs'] / 1e6:.1f} M multiply-adds"))
    return rows


def _model(found: Mapping[str, Any]) -> Rows:
    check, status = found["check"], found["status"]
    memory = "unknown" if check["vram_bytes"] is None else f"{check['vram_bytes'] / 2**20:,.0f} MiB on the card"
    alone, batch = (check[f"tokens_per_s_{how}"] for how in ("alone", "batch"))
    rows = [
        ("weights", f"{check['quantization']}, computed in {check['dtype']}, loaded in {check['load_s']:.1f} s"),
        ("memory", memory),
        ("tokens a second", f"{alone:.1f} alone, {batch:.1f} in a batch of 8"),
    ]
    if not check["four_bit"]:
        rows.append(("4-bit", textwrap.shorten(f"no: {check['four_bit_reason']}", 50)))
    for name in ("semantic", "placebo"):
        if (told := status["operators"].get(name)) is not None:
            rows.append((name, f"proposals {told['proposals']}, valid {told['valid']}, wins {told['wins']}"))
    return [*rows, *_search(found)]


_FOUND: dict[str, Callable[[Mapping[str, Any]], Rows]] = {
    "supernet": _supernet,
    "table": _table,
    "tensorrt": _tensorrt,
    "search": _search,
    "validate": _validate,
    "model": _model,
}


def _block(rows: Rows) -> str:
    """Two columns as code; what is too long for a line goes on below itself."""
    width = max(len(name) for name, _ in rows) + 2
    lines = []
    for name, value in rows:
        first, *more = textwrap.wrap(value, _WIDTH - 4 - width, break_on_hyphens=False) or [""]
        lines += [f"{name.ljust(width)}{first}", *(" " * width + line for line in more)]
    return "\n".join(["```", *lines, "```"])


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
