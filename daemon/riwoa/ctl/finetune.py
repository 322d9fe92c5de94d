"""``riwoactl finetune``: train the winner on, and write its files anew."""

from __future__ import annotations

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.errors import StateLockedError, UsageError
from riwoa.files.lock import holder, locked
from riwoa.oracle.kind import FineTuning
from riwoa.paths import StatePaths, client_state
from riwoa.service.finetuning import FineTuned, finetune_winner, finetuned, gain_line, usual_threads
from riwoa.supernet.job import JobProgress

_USUAL = FineTuning()


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Fine-tune or continue, export, and say what it brought.

    Raises:
        UsageError: a number that makes no sense.
        StateLockedError: a daemon works in the state directory.
    """
    given = _parser(verb).parse_args(arguments)
    if given.epochs < 1 or given.threads < 1 or not 0 < given.learning_rate < 1:
        raise UsageError("--epochs and --threads are at least 1, --learning-rate lies between 0 and 1")
    paths = client_state(options.state)
    if (process := holder(paths)) is not None:
        raise StateLockedError(f"process {process or 'unknown'} serves {paths.state}; let it finish, or stop it first")
    how = FineTuning(given.epochs, given.learning_rate, given.seed, given.threads)
    finetuned(paths.journal, given.run)  # whether there is a winner at all, before torch is imported
    with locked(paths):
        if given.again:
            _forget(paths)
        with bar("fine-tuning", "step") as advance:

            def progress(p: JobProgress) -> None:
                advance(p.done, p.total, p.words)

            done = finetune_winner(paths.journal, how, progress, given.run)
        exported = None if given.no_export else _exported(paths, given.run)
    data = {"finetuned": str(done.file), "was_there": done.was_there, **done.told, "exported_to": exported}
    emit(options, data, render(done, exported))
    return 0


def _parser(verb: str) -> Parser:
    description = """Trains the winner of a run on, on the training pictures of its data: half on their labels, half on
what the supernet's largest subnet says of them. The epoch that reads the most validation pictures right is kept, the
beginning included; the test pictures are looked at once, before and after. Killed and run again, it continues, on a
processor to the same bytes. Then the winner is exported anew, with these weights."""
    parser = Parser(verb, description=description)
    add = parser.add_argument
    add("--epochs", type=int, default=_USUAL.epochs, metavar="N", help=f"default: {_USUAL.epochs}")
    add(
        "--learning-rate",
        type=float,
        default=_USUAL.learning_rate,
        metavar="X",
        help=f"at its highest (default: {_USUAL.learning_rate})",
    )
    add("--seed", type=int, default=_USUAL.seed, metavar="N", help="of the pictures' order and augmentation")
    add("--threads", type=int, default=usual_threads(), metavar="N", help="of the processor (default: %(default)s)")
    add("--run", type=int, metavar="ID", help="the run (default: the latest)")
    add("--again", action="store_true", help="forget the fine-tuning that is there, and begin anew")
    add("--no-export", action="store_true", help="leave the export as it is")
    return parser


def _forget(paths: StatePaths) -> None:
    from riwoa.supernet.training import unfinished

    paths.finetuned.unlink(missing_ok=True)
    unfinished(paths.finetuned).unlink(missing_ok=True)


def _exported(paths: StatePaths, run_id: int | None) -> str:
    from riwoa.export import export_run

    with bar("exporting"):
        return str(export_run(paths.journal, paths.export, run_id).directory)


def render(done: FineTuned, exported: str | None) -> str:
    """What the fine-tuning brought, and whether that may be chance."""
    told = done.told
    kept = f"epoch {told['kept_epoch']} of {told['epochs']}" if told["kept_epoch"] else "the weights it began with"
    rows = [["kept", f"{kept}, the best on the validation pictures"]]
    for split in ("test", "validation"):
        if split in told:
            rows.append([split, gain_line(told[split])])
    if "test" not in told:
        rows.append(["test", "there are no test pictures, and the validation pictures chose the epoch"])
    rows.append(["weights", str(done.file)])
    if exported is not None:
        rows.append(["exported to", exported])
    text = columns(rows)
    return f"{text}\nit was done before; --again begins anew" if done.was_there else text
