"""``riwoactl predictor train | check``: an accuracy predictor learned from a journal's evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, subverb
from riwoa.errors import InputError
from riwoa.files.ownership import output_file, regular_file, unwritable
from riwoa.paths import client_state
from riwoa.run.front import chosen_run
from riwoa_storage.reader import JournalReader

if TYPE_CHECKING:
    from riwoa.surrogate.gaussian_process import Examples

_KNOWN = {
    "train": "learn accuracies, with their uncertainty, from what a run evaluated",
    "check": "hold a predictor against evaluations that it was not learned from",
}
_NAMES = {
    "spearman": "Spearman's rank correlation",
    "kendall": "Kendall's rank correlation",
    "rmse": "root mean square error",
    "coverage": "90 % intervals that hold",
    "z_sd": "spread of the errors, predicted = 1",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to train or check."""
    name = subverb(verb, arguments, _KNOWN)
    return {"train": _train, "check": _check}[name](arguments[1:], options)


def _parser(name: str, description: str) -> Parser:
    parser = Parser(f"predictor {name}", description=description)
    parser.add_argument("--journal", type=Path, metavar="DB", help="default: the journal of the state directory")
    parser.add_argument("--run", type=int, metavar="N", help="the run to take evaluations from (default: the latest)")
    return parser


def _train(arguments: list[str], options: Options) -> int:
    parser = _parser("train", "A Gaussian process over one-hot choices; judged by cross-validation.")
    parser.add_argument("--first", type=int, metavar="N", help="learn from the first N architectures alone")
    parser.add_argument("--seed", type=int, default=0, help="of the cross-validation's folds")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="where to put it")
    given = parser.parse_args(arguments)
    if given.seed < 0 or (given.first is not None and given.first < 1):
        parser.error("--seed must not be negative, and --first be at least 1")
    import numpy as np

    from riwoa.surrogate.gaussian_process import fit, is_surrogate

    journal = given.journal or client_state(options.state).journal
    out = output_file(given.out, "an accuracy predictor of riwoa's", is_surrogate, inputs=[journal])
    examples = read_examples(journal, given.run)
    if given.first is not None:
        examples = examples.rows(np.arange(len(examples)) < given.first)
    with bar("learning"):
        surrogate = fit(examples, given.seed)
    try:
        surrogate.save(out)
    except OSError as error:
        raise unwritable(given.out, error, "name another --out") from None
    data = {"file": str(given.out), **surrogate.report}
    title = f"{given.out}: learned from {data['architectures']} architectures; each held out once"
    emit(options, data, _render(title, data["held_out"]))
    return 0


def _check(arguments: list[str], options: Options) -> int:
    parser = _parser("check", "Evaluations of a run that are not among the predictor's own.")
    parser.add_argument("file", type=Path, help="of `riwoactl predictor train`")
    given = parser.parse_args(arguments)
    from riwoa.surrogate.gaussian_process import Surrogate, judge, unseen

    surrogate = Surrogate.load(given.file)
    journal = given.journal or client_state(options.state).journal
    examples = unseen(surrogate, read_examples(journal, given.run))
    if len(examples) < 2:
        raise InputError(f"{journal} holds no evaluations that {given.file} was not learned from; let a run go on")
    found = judge(*surrogate.predict_indices(examples.indices), examples.accuracies).to_json()
    data = {"file": str(given.file), "learned_from": len(surrogate.examples), "unseen": found}
    title = f"{given.file}: learned from {len(surrogate.examples)} architectures; {len(examples)} others of the run"
    emit(options, data, _render(title, found))
    return 0


def read_examples(journal: Path, run_id: int | None) -> Examples:
    """What a run evaluated, in the order in which it did.

    Raises:
        InputError: no run was begun, or its space is not in the journal.
        StorageError: the journal or the run is missing, or damaged.
    """
    from riwoa.run.limits import journaled_objective
    from riwoa.search.space import Space, SpaceError
    from riwoa.surrogate.gaussian_process import examples_of

    with JournalReader(regular_file(journal)) as reader:
        record = chosen_run(reader, run_id)
        try:
            space = Space.from_json(record.provenance["space"])
        except (KeyError, SpaceError) as error:
            raise InputError(f"{journal}: the space of run {record.run_id} is not there ({error})") from None
        objective = journaled_objective(record.provenance, None)
        found = (
            (individual.architecture, objective.value(individual.metrics))
            for _, individual in reader.individuals(record.run_id)
            if individual.status == "ok"
        )
        return examples_of(space, found)


def _render(title: str, found: dict[str, Any]) -> str:
    rows = []
    for name, words in _NAMES.items():
        if name in found:
            percent = name in ("rmse", "coverage")
            rows.append([words, f"{100 * found[name]:.2f} %" if percent else f"{found[name]:.3f}"])
    return f"{title}\n{columns(rows)}"
