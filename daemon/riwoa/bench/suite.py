"""``make bench``: runs the declared experiments, each a command of its own, and keeps what each printed as JSON.

Searches are kept beside: killed and run again, it repeats none that was finished; its commands end with it. Two run at
a time as a rule, each on one thread. What fails does not stop the rest; the page then says what was not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import riwoa
from riwoa.bench.experiments import EXPERIMENTS, WHOLE, Experiment
from riwoa.bench.tasks import data_folder
from riwoa.errors import UsageError
from riwoa.files.lock import lock_of
from riwoa.ipc.child import child_command, child_environment
from riwoa.limits import whole_cores
from riwoa.paths import shipped
from riwoa_storage.durable import replace_durably

Progress = Callable[[int, int, str], None]
_LIBRARIES = ("numpy", "scipy", "optuna", "cmaes", "pymoo")


@dataclass(frozen=True, slots=True)
class Share:
    """Which experiments, and where their files are: ``folder`` holds results, a folder beside it all searches.

    Attributes:
        results: the folder of all.
        quick: a few seeds of a part of ``EXPERIMENTS``.
        only: names; all where there are none.
        whole: those of ``WHOLE`` instead.
        seeds: at most so many of each; None for all that are declared.
    """

    results: Path
    quick: bool = False
    only: tuple[str, ...] = ()
    whole: bool = False
    seeds: int | None = None

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.results / ("whole" if self.whole else "quick" if self.quick else "full")

    @property
    def experiments(self) -> list[Experiment]:
        """Those of the share.

        Raises:
            UsageError: one is named that there is not.
        """
        there = [e for e in (WHOLE if self.whole else EXPERIMENTS) if not self.quick or e.quick_seeds]
        names = [e.name for e in there]
        if unknown := [name for name in self.only if name not in names]:
            raise UsageError(f"--only: no experiment {unknown[0]!r}; there are {', '.join(names)}")
        return [e for e in there if not self.only or e.name in self.only]

    def seeds_of(self, experiment: Experiment) -> int:
        """How many of an experiment."""
        declared = experiment.quick_seeds if self.quick else experiment.seeds
        return declared if self.seeds is None else min(self.seeds, declared)

    def result(self, experiment: Experiment) -> Path:
        """Where an experiment's result lies."""
        return self.folder / f"{experiment.name}.json"

    def searches(self, experiment: Experiment) -> Path:
        """Where its searches lie, those of both shares."""
        return self.results / "searches" / f"{experiment.name}.jsonl"


def run_suite(share: Share, jobs: int, progress: Progress = lambda done, total, words: None) -> dict[str, str]:
    """Run the experiments of a share; what failed, by name.

    Raises:
        InputError: the data are not there.
        UsageError: an experiment is named that there is not.
        StateLockedError: another suite works on these results.
    """
    results = str(share.results.absolute())
    places = {"data": str(data_folder()), "table": str(shipped("latency_lut.json")), "results": results}
    experiments, failed = share.experiments, {}
    share.folder.mkdir(parents=True, exist_ok=True)
    with lock_of(share.results, "measures into", "--results"):
        held, holds = os.pipe()  # the commands' standard input: they end as soon as nobody holds its other end
        with open(held, "rb") as stdin, ThreadPoolExecutor(jobs) as pool, open(holds, "wb"):
            running = {pool.submit(_run, share, e, places, stdin): e for e in experiments}
            try:
                for done, future in enumerate(as_completed(running)):
                    if (said := future.result()) is not None:
                        failed[running[future].name] = said
                    progress(done + 1, len(experiments), running[future].name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what runs ends with the pipe, before the pool waits
                raise
    return failed


def _run(share: Share, experiment: Experiment, places: dict[str, str], stdin: BinaryIO) -> str | None:
    """Run one and keep its result, unless it is what lies there; what it said where it failed."""
    asked = experiment.command(places, share.seeds_of(experiment))
    command = child_command("riwoa.ctl", "--child", "--json", "bench", *asked, "--out", str(share.searches(experiment)))
    share.searches(experiment).parent.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    extra = {"RIWOA_DATA": places["data"]}
    done = subprocess.run(
        command, env=child_environment(1, extra), stdin=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    found, before = json.loads(done.stdout), _result(share, experiment)
    if {**before, **found} == before:  # timings included: every search was kept, so when and where it ran stands
        return None
    result = {**found, "took_s": time.monotonic() - started_s, "provenance": provenance()}
    replace_durably(share.result(experiment), json.dumps(result, allow_nan=False).encode())
    return None


def results(share: Share) -> dict[str, dict[str, Any]]:
    """What lies there of a share, by name."""
    found = {experiment.name: _result(share, experiment) for experiment in share.experiments}
    return {name: result for name, result in found.items() if result}


def _result(share: Share, experiment: Experiment) -> dict[str, Any]:
    """What lies there of one; empty where it is not measured yet."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(share.result(experiment).read_text(encoding="utf-8"))
    return found


def provenance(libraries: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """The code, the libraries and the machine."""
    commit = _commit(Path(riwoa.__file__).parent)
    return {"commit": commit, "libraries": ", ".join(map(_with_version, libraries)), "machine": _machine()}


def _commit(package: Path) -> str:
    """Of the checkout that the package lies in, marked where it has changes; the version elsewhere.

    The handbook decides no number, and this suite itself writes in it.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", *arguments), cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=all", "--", ".", ":(exclude)data/handbook")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('riwoa')}"


def _with_version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"no {library}"


def _machine() -> str:
    """Processor and cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {whole_cores()} cores, {os.uname().sysname}"
