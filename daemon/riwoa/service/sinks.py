"""Where a search may be told to, beside its journal: MLflow and Weights & Biases, by their own clients.

Each client is imported where it is used, and is an extra of the installation. Whatever a client raises becomes a
``SinkError``: a server that is away is no matter of the search.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from riwoa.errors import RiwoaError, UsageError
from riwoa.text import printable

_MOST_METRICS, _MOST_PARAMETERS = 1_000, 100  # of one of MLflow's batches
_MOST_TEXT = 500
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing of a search is anybody else's
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # whoever tells it waits, and says so
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_KEY = "riwoa.key"  # the tag by which a run is found again


class SinkError(RiwoaError):
    """A tracking server could not be told."""

    exit_code = 74


@dataclass(frozen=True, slots=True)
class ToldRun:
    """What is told of a run as it begins.

    Attributes:
        key: the same for the same run of the same journal, also to another process.
        name: for people.
        parameters: its settings, by dotted keys.
        tags: what else it is known by.
    """

    key: str
    name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToldGeneration:
    """What is told of a committed generation."""

    generation: int
    committed_unix_s: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ToldEnd:
    """What is told of a run that is over."""

    finished: bool  # else it was given up for another
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Sink(Protocol):
    """A tracking server, or its files; every method raises ``SinkError`` alone.

    Attributes:
        place: which one, and what in it.
        is_durable: whether what it was told is safe once ``put`` has returned, not only once it is closed.
    """

    place: str
    is_durable: bool

    def begin(self, run: ToldRun) -> None:
        """Begin a run there, or go on with the one that an earlier process began."""
        ...

    def put(self, generations: Sequence[ToldGeneration]) -> None:
        """Tell of generations, ascending; those that were told before may come again."""
        ...

    def end(self, end: ToldEnd) -> None:
        """Tell that the run is over."""
        ...

    def close(self) -> None:
        """Have everything be safe that was told."""
        ...


@contextmanager
def _told_to(place: str) -> Iterator[None]:
    """The boundary to a client, which may raise anything."""
    try:
        yield
    except SinkError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SinkError(f"{place}: {printable(reason, _MOST_TEXT)}") from None


class MlflowSink:
    """A run of an experiment of MLflow; see ``Sink``.

    Args:
        uri: of the server or the store; None for MLflow's own default ($MLFLOW_TRACKING_URI).
        experiment: is made where it is not there.
    """

    is_durable = True

    def __init__(self, uri: str | None, experiment: str) -> None:
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        with _told_to("mlflow"):
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=uri)
            self.place = f"mlflow, experiment {experiment} at {self._client.tracking_uri}"
        self._experiment = experiment
        self._run_id = ""

    def begin(self, run: ToldRun) -> None:
        """See ``Sink.begin``; the run there is found by a tag."""
        from mlflow.entities import Param

        with _told_to(self.place):
            of = self._client.get_experiment_by_name(self._experiment)
            number = of.experiment_id if of else self._client.create_experiment(self._experiment)
            (there, *_) = self._client.search_runs([number], f"tags.`{_KEY}` = '{run.key}'") or (
                self._client.create_run(number, run_name=run.name, tags={_KEY: run.key, **run.tags}),
            )
            self._run_id = str(there.info.run_id)
            known = there.data.params
            new = [Param(name, printable(value, _MOST_TEXT)) for name, value in run.parameters.items()]
            new = [parameter for parameter in new if parameter.key not in known]
            for at in range(0, len(new), _MOST_PARAMETERS):
                self._client.log_batch(self._run_id, params=new[at : at + _MOST_PARAMETERS])

    def put(self, generations: Sequence[ToldGeneration]) -> None:
        """See ``Sink.put``: the same value at the same time and step counts once in a database."""
        from mlflow.entities import Metric

        with _told_to(self.place):
            metrics = [
                Metric(name, value, int(1_000 * told.committed_unix_s), told.generation)
                for told in generations
                for name, value in told.metrics.items()
            ]
            for at in range(0, len(metrics), _MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=metrics[at : at + _MOST_METRICS])

    def end(self, end: ToldEnd) -> None:
        """See ``Sink.end``."""
        with _told_to(self.place):
            for name, value in end.metrics.items():
                self._client.log_metric(self._run_id, name, value)
            for name, text in end.tags.items():
                self._client.set_tag(self._run_id, name, text)
            self._client.set_terminated(self._run_id, "FINISHED" if end.finished else "KILLED")

    def close(self) -> None:
        """See ``Sink.close``."""


class WandbSink:
    """A run of a project of Weights & Biases; see ``Sink``. $WANDB_MODE=offline writes files below a directory.

    Args:
        project: of the account that ``wandb login`` knows.
        directory: where its files lie.
    """

    is_durable = False  # its own process takes what is logged, and writes it when it may

    def __init__(self, project: str, directory: str) -> None:
        mode, entity = os.environ.get("WANDB_MODE", "online"), os.environ.get("WANDB_ENTITY", "")
        self.place = ", ".join(filter(None, ("wandb", f"project {project}", entity, mode)))
        self._project = project
        self._directory = directory
        self._run: Any = None

    def begin(self, run: ToldRun) -> None:
        """See ``Sink.begin``; the run's key is its id there."""
        with _told_to(self.place):
            import wandb

            self._run = wandb.init(
                project=self._project,
                name=run.name,
                id=run.key,
                resume="allow",
                dir=self._directory,
                config={**run.parameters, **run.tags},
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
                ),
            )

    def put(self, generations: Sequence[ToldGeneration]) -> None:
        """See ``Sink.put``: of a step that it has, the server takes nothing more."""
        with _told_to(self.place):
            for told in generations:
                self._run.log(dict(told.metrics), step=told.generation)

    def end(self, end: ToldEnd) -> None:
        """See ``Sink.end``."""
        with _told_to(self.place):
            for name, value in {**end.metrics, **end.tags}.items():
                self._run.summary[name] = value

    def close(self) -> None:
        """See ``Sink.close``."""
        if self._run is not None:
            with _told_to(self.place):
                self._run.finish()
            self._run = None


def opener(name: str, project: str, uri: str | None, directory: str) -> Callable[[], Sink]:
    """What opens a sink by its name: ``mlflow`` or ``wandb``.

    Raises:
        UsageError: its client is not installed.
    """
    if find_spec(name) is None:
        raise UsageError(f"{name} is not installed; install it with: pip install 'riwoa[{name}]'")
    if name == "mlflow":
        return lambda: MlflowSink(uri, project)
    return lambda: WandbSink(project, directory)
