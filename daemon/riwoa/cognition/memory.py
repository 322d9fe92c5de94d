"""When memory runs out: how it shows, and how it is given back. Imports no torch; where it is loaded, it is asked."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def out_of_memory(error: BaseException) -> bool:
    """Whether it says so; torch does it with a class of its own on a GPU, and with a RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or says_out_of_memory(type(error).__name__, str(error))


def says_out_of_memory(name: str, message: str) -> bool:
    """The same of an error from another process: its class's name and its message."""
    named = name in ("MemoryError", "OutOfMemoryError")
    return named or (name == "RuntimeError" and "DefaultCPUAllocator" in message)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def as_memory_allows(work: Callable[[int], _T], batch: int) -> tuple[_T, int]:
    """``work(batch)``, with half the batch each time that memory runs out, and the batch that went through.

    Raises:
        MemoryError, torch.OutOfMemoryError: one at a time is too much.
    """
    while True:
        try:
            return work(batch), batch
        except Exception as error:
            if batch <= 1 or not out_of_memory(error):
                raise
            print(f"out of memory with a batch of {batch}", file=sys.stderr, flush=True)
        # Outside the handler: the exception's frames held what is to be freed.
        batch //= 2
        free_memory()
