"""What a run's networks are asked to do, and where their weights come from."""

from __future__ import annotations

from pathlib import PurePath

from riwoa.config.kinds.supernet import TRAINED
from riwoa.report.facts import Task
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json, RunRecord


def task_of(reader: JournalReader, run: RunRecord) -> Task:
    """The task of a run, by its oracle and the configuration that it ended with."""
    config = reader.config_revisions(run.run_id)[-1].config
    epochs = int((config.get("run") or {}).get("finetune_epochs") or 0)
    return task_of_oracle(run.provenance.get("oracle") or {}, epochs)


def task_of_oracle(oracle: Json, finetune_epochs: int = 0) -> Task:
    """The task of an oracle, by its JSON form as journaled."""
    classes = oracle.get("n_classes")
    return Task(
        data=PurePath(str(oracle.get("data") or "")).name,
        classes=int(classes) if isinstance(classes, int) else None,
        judged_in=str(oracle.get("dtype") or ""),
        weights=_weights(oracle) if oracle.get("kind") == "supernet" else "",
        finetune_epochs=finetune_epochs,
    )


def _weights(oracle: Json) -> str:
    """Whose weights every network has."""
    checkpoint = oracle.get("checkpoint")
    if checkpoint is None:
        return "the supernet that comes with riwoa, trained already"
    if checkpoint == TRAINED or oracle.get("trained_on") is not None:
        return "a supernet that was trained on these pictures before the search"
    return f"the supernet {PurePath(str(checkpoint)).name}, trained before the search"
