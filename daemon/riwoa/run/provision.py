"""Who writes the semantic proposals of a run: decided once, when the daemon starts, and held to when a run is resumed.

A run is one search with one model or with none: what p_semantic hands out in it, and what its adapters were made for,
follow from that. So the run's provenance names its model with a fingerprint, and a resumed run gets the same one or,
where that is gone, somebody who fails every request: the search then goes on geometrically, on the same schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from riwoa.cognition.chat_server import served_model
from riwoa.cognition.endpoint import ServerError
from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.http_provider import HttpProvider
from riwoa.cognition.model_process import EngineLimits
from riwoa.cognition.models import Recommended, Resolved, choose, recommended
from riwoa.cognition.protocol import ModelSpec, OnTrainingStep, Trained, TrainingJob
from riwoa.cognition.provider import ProposalProvider, ProviderStats, ScriptedProvider
from riwoa.cognition.spending import Spending
from riwoa.config.extended import plugin_of
from riwoa.config.schema import Cognition
from riwoa.errors import ConfigError, ModelError
from riwoa.limits import memory
from riwoa.plugins import Plugin
from riwoa.run.style import Style, style_of
from riwoa.run.worth import why_not
from riwoa_storage.records import ReplyRecord, RequestRecord, RunRecord

Configured = Callable[[], Cognition]  # as in force now: limits may change in a run
OnLog = Callable[[str], None]
Provide = Callable[[Configured, RunRecord | None, OnLog, str | None, Path | None], Awaitable["Provision"]]
# Whoever runs a server has a model that can be trusted with a long prompt, and knows its temperature better.
SERVED = Recommended(temperature=0.7, top_p=0.95, thinking_tokens=1024, template="full", learning_rate=1e-3)
_ON_A_SERVER = "http:"  # what the name of a model on a server begins with


@dataclass(frozen=True, slots=True)
class Provision:
    """Who writes, how, and why. ``provider`` is None where the search is geometric."""

    provider: ProposalProvider | None
    style: Style
    reason: str
    spec: ModelSpec | None = None  # of a language model that is here
    kind: str = "model"  # who writes, where somebody does: the value of cognition.provider
    missed: bool = False  # a language model was asked for, and there is none
    learns: bool = True  # whether it can be trained
    trainer: Callable[[], ProposalProvider | None] | None = None  # of trainings beside (``ProposalQueue``)

    @property
    def state(self) -> str:
        """For the status: "model", "http", "scripted", others' names, "off", "model gone", "geometric only"."""
        if self.provider is None:
            return "geometric only" if self.missed else "off"
        return "model gone" if isinstance(self.provider, AbsentProvider) else self.kind

    @property
    def busy_cores(self) -> int:
        """Cores that a language model on the CPU keeps busy."""
        return self.spec.threads if self.spec is not None and self.spec.device == "cpu" else 0

    def provenance(self) -> dict[str, Any]:
        """What the run's results depend on; where the files lie is none of it."""
        spec = {} if self.spec is None else self.spec.to_json()
        spec.pop("directory", None)
        return {"model": None if self.provider is None else self.provider.model, "model_spec": spec or None}

    def event(self) -> dict[str, Any]:
        """What is journaled beside that, each time the daemon starts."""
        return {**self._told(), "directory": None if self.spec is None else self.spec.directory}

    def view(self) -> dict[str, Any]:
        """For the status object."""
        return {**self._told(), "learns": self.learns}

    def _told(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "model": None if self.provider is None else self.provider.model,
            "reason": self.reason,
        }


class AbsentProvider:
    """Stands for a run's model that is gone: every request fails, with the reason."""

    def __init__(self, model: str, reason: str) -> None:
        self.model = model
        self._error = ModelError(f"the run's model {model} is gone: {reason}")

    async def start(self) -> None:
        """Fail: there is nothing to start.

        Raises:
            ModelError: always.
        """
        raise self._error

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """As ``start``."""
        raise self._error

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """As ``start``."""
        raise self._error

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        """As ``start``."""
        raise self._error

    async def close(self) -> None:
        """Do nothing: nothing is held."""

    def stats(self) -> ProviderStats:
        """Unavailable, with the reason."""
        return ProviderStats(state="unavailable", reason=str(self._error))


async def provide(
    cognition: Configured,
    run: RunRecord | None,
    on_log: OnLog,
    directory: str | None = None,
    journal: Path | None = None,
) -> Provision:
    """Decide for a new run, or for the one that is continued, whose model lay in ``directory`` last.

    ``journal`` knows what a model on a server has cost so far; without it nothing has been spent.

    Raises:
        ConfigError: the run was begun with another model than the one that is here, or nobody offers such a provider.
        PluginError: another package's provider cannot be made.
    """
    name = cognition().provider
    if name in _BUILT_IN:
        return await _BUILT_IN[name](cognition, run, on_log, directory, journal)
    return _of_plugin(cognition(), plugin_of("cognition", name))


async def _nobody(
    cognition: Configured, run: RunRecord | None, on_log: OnLog, directory: str | None, journal: Path | None
) -> Provision:
    return Provision(None, style_of(cognition()), "cognition.provider = none")


async def _script(
    cognition: Configured, run: RunRecord | None, on_log: OnLog, directory: str | None, journal: Path | None
) -> Provision:
    settings = cognition()
    provider = ScriptedProvider(settings.script)
    return Provision(provider, style_of(settings), "scripted, as configured", kind="scripted")


def _of_plugin(settings: Cognition, plugin: Plugin) -> Provision:
    """Another package's provider: what its factory makes of ``[cognition]``, its own table among it.

    Raises:
        ConfigError: the package offers no function or class.
        PluginError: it cannot make one.
    """
    if not callable(plugin.value):
        raise ConfigError(f"the package {plugin.package}: {plugin.name} must make a provider of [cognition]")
    with plugin.blamed("make its provider"):
        provider: ProposalProvider = plugin.value(settings)
    return Provision(provider, style_of(settings), f"of the package {plugin.package}", kind=plugin.name)


async def _language_model(
    cognition: Configured, run: RunRecord | None, on_log: OnLog, directory: str | None, journal: Path | None
) -> Provision:
    """The configured language model; who stands in for it where there is none.

    Raises:
        ConfigError: see ``provide``.
    """
    settings = cognition()
    try:
        found = await asyncio.to_thread(_found, settings, run, directory)
    except ModelError as error:
        return _without_model(settings, run, str(error))
    if run is not None and run.provenance.get("model") is None:
        reason = f"run {run.run_id} was begun without a language model; --new-run would use {found.spec.name}"
        return Provision(None, style_of(settings), reason, missed=True)
    style = style_of(settings, recommended(found.spec))

    def made() -> LanguageModelProvider:
        return LanguageModelProvider(found.spec, limits=lambda: _limits(cognition()), on_log=on_log)

    def trainer() -> LanguageModelProvider | None:
        try:
            free_bytes = memory().available_bytes
        except Exception:  # as psutil fails where the machine does not tell
            return None
        return made() if free_bytes >= cognition().memory_bytes else None

    return Provision(made(), style, found.reason, found.spec, trainer=trainer if settings.train_beside else None)


async def _worthwhile(
    cognition: Configured, run: RunRecord | None, on_log: OnLog, directory: str | None, journal: Path | None
) -> Provision:
    """The language model where it is worth its seconds; a run that is continued keeps to what was decided.

    Raises:
        ConfigError: see ``provide``.
    """
    settings = cognition()
    if run is None:
        try:
            found = await asyncio.to_thread(_found, settings, None, directory)
            reason = await asyncio.to_thread(why_not, settings, found.spec, journal)
        except ModelError as error:
            reason = str(error)
        if reason is not None:
            return Provision(None, style_of(settings), reason)
    elif run.provenance.get("model") is None:
        reason = f"run {run.run_id} was begun without a language model; --new-run decides anew"
        return Provision(None, style_of(settings), reason)
    return await _language_model(cognition, run, on_log, directory, journal)


async def _server(
    cognition: Configured, run: RunRecord | None, on_log: OnLog, directory: str | None, journal: Path | None
) -> Provision:
    """A model on a server, which need not run yet, unless it is to say which model it has."""
    settings, style = cognition(), style_of(cognition(), SERVED)
    begun_with = None if run is None else run.provenance.get("model")
    if run is not None and begun_with is None:
        reason = f"run {run.run_id} was begun without a language model; --new-run would use the server's"
        return Provision(None, style, reason, missed=True)
    try:
        served_as = begun_with.removeprefix(_ON_A_SERVER) if begun_with else await served_model(settings)
    except ServerError as error:
        mend = "with cognition.http.model set a search begins all the same, and asks once the server is there"
        return Provision(None, style, f"{error}; {mend}", missed=True)
    run_id = None if run is None else run.run_id
    spent = Spending if journal is None else partial(Spending.journaled, journal, run_id)
    provider = HttpProvider(f"{_ON_A_SERVER}{served_as}", served_as, cognition, spent)
    reason = f"on the server {settings.http.url}, as configured"
    return Provision(provider, style, reason, kind="http", learns=False)


_BUILT_IN: Mapping[str, Provide] = {
    "model": _language_model,
    "auto": _worthwhile,
    "http": _server,
    "scripted": _script,
    "none": _nobody,
}


def _without_model(settings: Cognition, run: RunRecord | None, reason: str) -> Provision:
    begun_with = None if run is None else run.provenance.get("model")
    if begun_with is None:
        return Provision(None, style_of(settings), reason, missed=True)
    return Provision(AbsentProvider(begun_with, reason), style_of(settings), reason, missed=True)


def _found(settings: Cognition, run: RunRecord | None, directory: str | None) -> Resolved:
    """The configured model; for a run that was begun with one, that one.

    Raises:
        ModelError: there is none.
        ConfigError: there is another one.
    """
    found = _chosen(settings, settings.model)
    if run is None or (begun_with := run.provenance.get("model")) is None:
        return found
    if _same(found.spec.name, begun_with):
        return Resolved(replace(found.spec, name=begun_with), found.reason)
    # "auto" may mean another model by now, while the run's own is still where it was.
    try:
        same = _chosen(settings, directory or "")
    except ModelError:
        same = None
    if same is not None and _same(same.spec.name, begun_with):
        return Resolved(same.spec, f"the model that run {run.run_id} was begun with")
    raise ConfigError(
        f"run {run.run_id} was begun with the model {begun_with}, cognition.model = {settings.model} is "
        f"{found.spec.name} here; put its files back ({directory}), name another copy of them in cognition.model, or "
        "use --new-run"
    )


def _same(one: str, other: str) -> bool:
    """Whether two names carry one fingerprint: a directory may be moved and renamed."""
    return one.rpartition("@")[2] == other.rpartition("@")[2]


def _chosen(settings: Cognition, model: str) -> Resolved:
    return choose(
        model, threads=settings.threads, lora_dropout=settings.lora_dropout, memory_bytes=settings.memory_bytes
    )


def _limits(settings: Cognition) -> EngineLimits:
    return EngineLimits(
        operation_timeout_s=2
        * max(settings.timeout_s, settings.train_timeout_s),  # the proposal queue's patience ends sooner
        memory_limit_bytes=settings.memory_bytes,
        breaker_failures=settings.breaker_failures,
        breaker_rest=settings.breaker_rest,
    )
