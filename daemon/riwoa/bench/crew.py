"""Jobs side by side, each in a process of its own that makes once what it works with: landscapes are not shared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

from riwoa.ipc.child import die_with_parent, thread_variables
from riwoa.log import configure

Place = TypeVar("Place")
Job = TypeVar("Job")
Done = TypeVar("Done")

_place: Any = None  # of a worker process


def work(
    make: Callable[[], Place], do: Callable[[Place, Job], Done], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Done]]:
    """Each job with what came of it, in the order in which they end; with one worker here and in their order.

    Args:
        make: what a worker works with; as ``do``, a function of a module, or a ``partial`` of one.
        do: a job.
        jobs: whose arguments another process can be given.
        workers: processes.
    """
    workers = min(workers, len(jobs))
    if workers < 2:
        place = make() if jobs else None
        for job in jobs:
            yield job, do(place, job)  # type: ignore[arg-type]
        return
    os.environ.update(thread_variables(1))  # for the processes; this one only waits
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (make,)) as pool:
        try:
            under_way = {pool.submit(partial(_do, do), job): job for job in jobs}
            for future in as_completed(under_way):
                yield under_way[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(make: Callable[[], Any]) -> None:
    global _place
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches it too, and it has nothing to say
    configure("error", "auto")
    _place = make()


def _do(do: Callable[[Any, Any], Any], job: Any) -> Any:
    return do(_place, job)
