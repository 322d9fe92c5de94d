"""``riwoactl train``: the supernet for one's own pictures, which a search with ``checkpoint = "trained"`` then uses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from riwoa.config.kinds.supernet import TRAINED
from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, default_config, emit, loaded
from riwoa.datasets.catalogue import task_of
from riwoa.errors import StateLockedError, UsageError
from riwoa.files.lock import holder
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.supernet_oracle import other_pictures
from riwoa.oracle.trained import require_planned, trained_on, training_job
from riwoa.paths import StatePaths, daemon_state
from riwoa.supernet.job import JobProgress, TrainingJob, told_check, train_job
from riwoa.supernet.lead import lead_line
from riwoa.supernet.recipe import read_recipe


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Train, or continue, or tell what is there."""
    given = _parser().parse_args(arguments)
    config = loaded(given.config or default_config(), given.set).config
    settings = config.oracle.supernet
    if config.oracle.kind != "supernet" or settings.checkpoint != TRAINED:
        raise UsageError(
            'nothing is to be trained: [oracle.supernet] needs checkpoint = "trained", and data = the folder of the '
            "pictures; `riwoactl init FOLDER` writes both"
        )
    paths = daemon_state(options.state)
    if (process := holder(paths)) is not None:
        raise StateLockedError(f"process {process or 'unknown'} serves {paths.state}; stop it first: riwoactl stop")
    paths.state.mkdir(parents=True, exist_ok=True)
    job = training_job(paths.supernet, config, supernet_spec(config.oracle))
    if given.again:
        _set_aside(paths)
    if job.out.exists():
        require_planned(job)
        if trained_on(job.out) != task_of(job.judged).sha256:
            raise other_pictures(job.out, job.judged.data)
        data = _found(job, {})
        emit(options, data, f"{render(data)}\nit was there already; --again trains another")
        return 0
    with bar("training", "step") as advance:

        def progress(p: JobProgress) -> None:
            advance(p.done, p.total, p.words)

        losses = train_job(job, progress)
    data = _found(job, losses)
    emit(options, data, render(data))
    return 0


def _parser() -> Parser:
    description = """Trains the supernet for oracle.supernet.data as [train] says, into the state directory; killed and
    run again, it continues, on a CPU to the same bytes. A search does the same by itself where it is missing."""
    parser = Parser("train", description=description)
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: $RIWOA_CONFIG, else ./riwoa.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--again", action="store_true", help="set the supernet that is there aside, and begin anew")
    return parser


def _set_aside(paths: StatePaths) -> None:
    """Keep the present supernet, for a run that was begun with it, and forget a training that was begun."""
    from riwoa.supernet.training import unfinished

    unfinished(paths.supernet).unlink(missing_ok=True)
    if paths.supernet.exists():
        kept = paths.supernet.with_suffix(".previous.safetensors")
        paths.supernet.replace(kept)
        print(f"the supernet that was there is now {kept}", file=sys.stderr)


def _found(job: TrainingJob, losses: dict[str, Any]) -> dict[str, Any]:
    recipe = read_recipe(job.out)
    told = {name: getattr(recipe, name) for name in ("steps", "width_mult", "n_classes", "stem", "source")}
    losses = {name: losses[name] for name in ("loss_largest", "loss_distilled") if name in losses}
    resolutions = list(recipe.resolutions)
    return {"supernet": str(job.out), **told, "resolutions": resolutions, **losses, **told_check(job.out)}


def render(data: dict[str, Any]) -> str:
    """The supernet in words: what it is, what its subnets reach, and whether that is worth a search."""
    start = f"from {data['source']}" if data["source"] else "from scratch"
    sizes = ", ".join(map(str, data["resolutions"]))
    lines = [
        f"{data['supernet']}: {data['n_classes']} classes, width {data['width_mult']:g}, {sizes} px, {start}, "
        f"{data['steps']:,} steps"
    ]
    if "loss_largest" in data:
        lines.append(f"last losses: {data['loss_largest']:.3f} of the largest, {data['loss_distilled']:.3f} distilled")
    if "accuracy" in data:
        rows = [[name.replace("_", " "), f"{100 * row['validation']:.2f} %"] for name, row in data["accuracy"].items()]
        lines += [f"accuracy on {data['images']} validation images:", columns(rows), lead_line(data)]
    return "\n".join(lines)
