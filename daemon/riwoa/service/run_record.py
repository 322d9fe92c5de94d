"""The record of a run in the journal: begun with its provenance, or continued where it is still the same search."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa import __version__
from riwoa.config.loading import INFERRED, Loaded, difference, former_defaults, from_journal, keys_in_journal
from riwoa.config.reload import Reloader, with_defaults, with_keys
from riwoa.config.schema import OFFSPRING, Config, as_json, may_restart, value_of
from riwoa.errors import ConfigError, TableError
from riwoa.hardware.probe import library_versions
from riwoa.log import get_logger
from riwoa.oracle.kind import Problem
from riwoa.oracle.workers import worker_count
from riwoa.patience import patiently
from riwoa.run.inheritance import Heritage, heritage_of
from riwoa.run.memory import Memory
from riwoa.run.provision import Provision
from riwoa.run.task import target_ms
from riwoa.surrogate.gaussian_process import Examples
from riwoa_storage.events import AdaptersLeftOut, CognitionProvided, MemoryInherited, RunResumed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json, RunRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("service")
Inherit = Callable[[Json], Awaitable[Heritage]]
_LAGS = ("cognition.lag", "cognition.train_lag")  # counted in generations as they are committed


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run to continue, and the keys that this start of the daemon changes in it."""

    run: RunRecord
    restarted: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What the results of a run depend on beside its configuration: with another of these it is another search."""

    problem: Problem
    oracle_version: str
    provision: Provision
    prior: Examples | None
    memory: Memory | None = None


def find_unfinished(journal_path: Path, loaded: Loaded, reloader: Reloader) -> UnfinishedRun | None:
    """The run to continue; the configuration that it used last is then in force.

    Raises:
        ConfigError: the configuration that the daemon was started with changes a key that cannot change in a run.
    """
    with JournalReader(journal_path) as reader:
        run = reader.latest_run()
        if run is None or run.status != "running":
            return None
        revisions = reader.config_revisions(run.run_id)
    # Where nobody asked for it, a run begun before there was such a key, or such a default, goes on as it was.
    begun_with, in_force = keys_in_journal(revisions[0].config), from_journal(revisions[-1].config)
    settled = ("search.offspring", *(_LAGS if in_force.search.asynchronous else ()))
    former = {**former_defaults(revisions[0].config), **{key: value_of(in_force, key) for key in settled}}
    loaded = with_defaults(loaded, former)
    refused = difference(in_force, loaded.config).refused
    refused = {
        key: pair
        for key, pair in refused.items()
        if loaded.origin.get(key, "default") not in (("default", INFERRED) if key not in begun_with else (INFERRED,))
    }
    restarted = [key for key in refused if may_restart(key, type(in_force))]
    names = [f"{key} ({old!r} -> {new!r})" for key, (old, new) in refused.items() if key not in restarted]
    if names:
        raise ConfigError(
            f"run {run.run_id} cannot continue with another {', '.join(names)}; change it back or use --new-run"
        )
    reloader.continue_from(with_keys(in_force, loaded.config, restarted), loaded.config, former)
    return UnfinishedRun(run, {key: value_of(loaded.config, key) for key in restarted})


def settle_new_run(loaded: Loaded, reloader: Reloader) -> None:
    """Have a run that begins ask as many candidates at once as there are workers, unless somebody named a number.

    One that is asked beside others knows less than one that is asked after them, hence no more than that. Where they
    are told one by one, and so many generations pass in the time of one, the language model has as much more of them.
    """
    settled = {"search.offspring": max(OFFSPRING, worker_count(loaded.config.oracle))}
    search = with_defaults(loaded, settled).config.search
    settled |= {key: search.commits(value_of(loaded.config, key)) for key in _LAGS}
    begun = with_defaults(loaded, settled).config
    reloader.continue_from(begun, begun, settled)


def inherits(config: Config, provision: Provision) -> bool:
    """Whether a run that is to begin may have an adapter of an earlier one."""
    learns = config.cognition.train and provision.learns and provision.provider is not None
    return config.cognition.inherit and learns


async def inheritance(journal: Path, role: str, provenance: Json) -> Heritage:
    """The adapter of an earlier run of the journal that one with this provenance begins with; told."""

    def look() -> Heritage:
        with JournalReader(journal) as reader:
            return heritage_of(reader, provenance, role=role)

    heritage = await patiently(look)
    if heritage.adapter is not None:
        _log.info("adapter_inherited", adapter=heritage.adapter.words)
    if heritage.left_out:
        _log.warning("adapters_left_out", reasons=list(heritage.left_out))
    return heritage


async def begin_or_continue(
    journal: JournalWriter, unfinished: UnfinishedRun | None, config: Config, inputs: RunInputs, inherit: Inherit
) -> int:
    """Journal that a run begins, or that the unfinished one is continued; returns its number.

    Args:
        journal: the writer.
        unfinished: the run to continue; None for a new one.
        config: in force.
        inputs: of the run.
        inherit: looks for the adapter of a run by its provenance.

    Raises:
        TableError, ConfigError: the unfinished run was begun with other inputs.
    """
    if unfinished is None:
        provenance = {**_provenance(config, inputs), **inputs.provision.provenance()}
        heritage = await inherit(provenance) if inherits(config, inputs.provision) else Heritage(None)
        if heritage.adapter is not None:
            provenance["adapter"] = heritage.adapter.to_json()
        run_id = await journal.begin_run(provenance, as_json(config))
        if heritage.left_out:
            await journal.put_event(AdaptersLeftOut(run_id=run_id, reasons=heritage.left_out))
    else:
        run_id = unfinished.run.run_id
        _require_same(unfinished.run, inputs)
        changed = {key: list(v) if isinstance(v, tuple) else v for key, v in unfinished.restarted.items()}
        await journal.put_event(RunResumed(run_id=run_id, restarted=changed))
    if inputs.memory is not None and not inputs.memory.is_journaled:
        await journal.put_event(MemoryInherited(run_id=run_id, content=inputs.memory.to_json()))
    await journal.put_event(CognitionProvided(run_id=run_id, **inputs.provision.event()))
    return run_id


def _require_same(run: RunRecord, inputs: RunInputs) -> None:
    """Refuse to continue a run on other inputs than it was begun with.

    Raises:
        TableError, ConfigError: say what differs and the way out.
    """
    if run.provenance["latency_table_sha256"] != inputs.problem.latency_sha256:
        raise TableError(
            f"run {run.run_id} was begun with another latency table than the one there is now; put it back or use "
            "--new-run"
        )
    if run.provenance["oracle_version"] != inputs.oracle_version:
        raise ConfigError(
            f"run {run.run_id} was begun with another oracle (checkpoint, data, table, dtype or library versions "
            "changed); undo the change or use --new-run"
        )
    if run.provenance.get("prior_sha256") != (inputs.prior.sha256 if inputs.prior is not None else None):
        key = f"search.{run.provenance['strategy']}.predictor"
        raise ConfigError(f"run {run.run_id} was begun with another file in {key}; put it back or use --new-run")


def _provenance(config: Config, inputs: RunInputs) -> dict[str, Any]:
    problem, answers = inputs.problem, config.oracle.settings.answers_latency
    target = target_ms(config.objective.wanted_ms, problem.auto_target_ms, answers_latency=answers)
    race = {"rungs": list(config.oracle.rungs), "confidence": config.oracle.rung_confidence}
    return {
        "riwoa": __version__,
        "seed": config.run.seed,
        "strategy": config.search.strategy,
        "space": problem.space.to_json(),
        "objective": config.objective.to_json(),
        "target_ms": target,
        "oracle": {**problem.spec.to_json(), **problem.described},
        "oracle_version": inputs.oracle_version,
        "latency_table_sha256": problem.latency_sha256,
        "versions": library_versions(),
        # What evaluates fewer architectures in full, where there is something.
        **({"race": race} if config.oracle.rungs else {}),
        **({"prior_sha256": inputs.prior.sha256} if inputs.prior is not None else {}),
        **({"memory": inputs.memory.provenance()} if inputs.memory is not None else {}),
    }


def model_directory(journal_path: Path, run: RunRecord | None) -> str | None:
    """Where the language model of a run that is continued lay last."""
    if run is None:
        return None
    with JournalReader(journal_path) as reader:
        told = [event.directory for event in reader.events(run.run_id, CognitionProvided)]
    return next((directory for directory in reversed(told) if directory), None)
