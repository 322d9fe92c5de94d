"""``riwoactl bench runtime``: its command line, and what it found in words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options, contest
from riwoa.ctl.command import Parser, columns, loaded
from riwoa.limits import whole_cores
from riwoa.paths import client_state

if TYPE_CHECKING:
    from riwoa.hardware.lut import LatencyTable


def measured(parser: Parser, arguments: list[str], options: Options) -> dict[str, Any]:
    """Search with both tables and compare, as the command line says."""
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=200, help="unique evaluations of a search (default 200)")
    parser.add_argument("--workers", type=int, default=whole_cores())
    parser.add_argument("--torch-table", type=Path, metavar="FILE", help="measured first where it is missing")
    contest.add_configuration(parser)
    given = parser.parse_args(arguments)
    if given.seeds < 2 or min(given.budget, given.workers) < 1:
        parser.error("--seeds must be at least 2, --budget and --workers at least 1")
    from riwoa.bench.embedded import load_table
    from riwoa.bench.runtimes import Settings, bench_runtimes, torch_table

    config = loaded(given.config, given.set).config
    paths = client_state(options.state)
    settings = Settings(given.seeds, given.budget, given.workers)

    async def both() -> tuple[LatencyTable, LatencyTable]:
        own = await load_table(given.table, paths.latency_table, config)
        with bar("measuring torch", "round") as advance:
            beside = given.torch_table or paths.state / "bench_torch_table.json"
            return await torch_table(beside, own, lambda p: advance(p.done, p.total, "")), own

    tables = asyncio.run(both())
    with bar("searching", "search") as advance:
        out = paths.state / "bench_embedded.jsonl"
        return bench_runtimes(settings, config, tables, out, lambda done, total: advance(done, total, ""))


def in_words(found: dict[str, Any]) -> str:
    """Each seed, and what they say together."""
    rows = [["seed", "with", "winner, ms", "validation", "test", "at equal accuracy, ms", "validation", "test"]]
    for row in found["rows"]:
        for with_, name in (("torch", "torch's table"), ("runtime", "onnxruntime's")):
            pair = row["winners"][with_], row["equal_accuracy"][with_]
            cells = [[f"{n['ms']:.4f}", f"{100 * n['validation']:.2f} %", f"{100 * n['test']:.2f} %"] for n in pair]
            rows.append([str(row["seed"]) if with_ == "torch" else "", name, *cells[0], *cells[1]])
    low, high = found["ratio_between"]
    ratio = f"at equal accuracy torch's takes {found['ratio']:.3f} times as long ({low:.3f} to {high:.3f})"
    same = found["of_the_same_networks"]
    low, high = same["ratio_between"]
    chosen = f"chosen from the same networks, {same['ratio']:.3f} times as long ({low:.3f} to {high:.3f})"
    lines = [columns(rows), ratio, chosen]
    for split, gain in found["gain_at_equal_time"].items():
        mean, low, high = (100 * gain[name] for name in ("mean", "low", "high"))
        lines.append(f"at equal time onnxruntime's is {mean:+.2f} points ahead on {split} ({low:+.2f} to {high:+.2f})")
    return "\n".join(lines)
