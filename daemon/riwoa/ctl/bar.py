"""Progress on standard error: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Advance = Callable[[int, int, str], None]  # done, total, a few words


@contextmanager
def bar(what: str, unit: str) -> Iterator[Advance]:
    """A progress bar; call what it yields with how far the work is."""
    with tqdm(desc=what, unit=unit, dynamic_ncols=True, disable=not sys.stderr.isatty(), file=sys.stderr) as shown:

        def advance(done: int, total: int, words: str = "") -> None:
            if shown.total is None:  # continued work starts where it was, or the rate would be wrong
                shown.reset(total)
                shown.initial = shown.n = done
            shown.set_postfix_str(words, refresh=False)
            shown.update(done - shown.n)

        yield advance
