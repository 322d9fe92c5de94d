"""The circuit breaker of a language model: it leaves one alone that fails again and again.

It is counted in batches, so that no clock decides what is asked of the model.
"""

from __future__ import annotations

from riwoa.errors import CognitionError


class Breaker:
    """Open after repeated failures, for a number of batches; then one trial decides."""

    def __init__(self) -> None:
        self.left = 0  # batches to turn away
        self.reason: str | None = None  # the last failure, until something succeeds
        self._failures = 0

    def failed(self, reason: str, failures: int, rest: int) -> None:
        """Count a failed batch; a failed trial opens the breaker again at once.

        Args:
            reason: why it failed.
            failures: in a row, from which on it opens.
            rest: batches that are then turned away.
        """
        self.reason = reason
        self._failures += 1
        if self._failures >= failures:
            self.left = rest

    def succeeded(self) -> None:
        """Forget the failures: a batch was answered."""
        self.reason = None
        self._failures = 0

    def turn_away(self) -> None:
        """Do nothing while closed; else count the batch that comes.

        Raises:
            CognitionError: it is open.
        """
        if self.left:
            self.left -= 1
            raise self.refusal()

    def refusal(self) -> CognitionError:
        """The error of what comes while the breaker is open."""
        return CognitionError(f"circuit breaker open ({self.left} batches left) after: {self.reason}")
