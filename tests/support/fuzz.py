"""How many examples a fuzzing test tries: few in ``make test``, ``$TEST_FUZZ`` in ``make test-crash``."""

from __future__ import annotations

import os


def examples(few: int) -> int:
    return int(os.environ.get("TEST_FUZZ", few))
