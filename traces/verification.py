"""`Verification`: how far a trace was from the model's own slow attention when it was looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

__all__ = ["Check", "Verification"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison.

    Attributes:
        what: What was compared: weights, row sums, outputs, tokens, ...
        where: The site, or the part of the trace.
        passed: Whether it holds.
        error: Largest difference; None where the comparison has no number.
        tolerance: What the error may be.
        note: What is wrong, or what was compared with what.
    """

    what: str
    where: str
    passed: bool
    error: float | None = None
    tolerance: float | None = None
    note: str = ""

    def __str__(self) -> str:
        """Return the comparison as one line."""
        number = "" if self.error is None else f" {self.error:.2g}"
        limit = "" if self.tolerance is None else f" (at most {self.tolerance:.2g})"
        note = f": {self.note}" if self.note else ""
        return (
            f"{'ok' if self.passed else 'FAILED'} {self.what} of {self.where}{number}{limit}{note}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verification:
    """The comparisons of a trace with a model that was run again, slowly.

    Attributes:
        checks: The comparisons, in order.
        rows: Rows of each map that were compared.
        seed: What the rows were drawn with.
        against: The model that was run, with the type that it computed in.
    """

    checks: tuple[Check, ...]
    rows: int
    seed: int
    against: str

    @property
    def passed(self) -> bool:
        """Return whether there were comparisons, and all of them hold."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """Return the comparisons that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    def largest(self, what: str) -> float | None:
        """Return the largest error of one kind of comparison; None where there was none."""
        errors = [
            check.error for check in self.checks if check.what == what and check.error is not None
        ]
        return max(errors, default=None)

    def __str__(self) -> str:
        """Return the outcome as one line."""
        names = dict.fromkeys(check.what for check in self.checks if check.error is not None)
        errors = ", ".join(f"{name} {self.largest(name):.2g}" for name in names)
        outcome = "passed" if self.passed else f"FAILED {len(self.failures)}"
        found = f"; largest errors: {errors}" if errors else ""
        return f"{outcome} of {len(self.checks)} checks against {self.against}{found}"

    def __repr__(self) -> str:
        """Return the outcome, and what failed."""
        return "\n".join([f"Verification {self}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        for check in self.failures:
            yield f"  {check}"

    def _repr_html_(self) -> str:
        """Return all comparisons as a table, for notebooks."""
        rows = "".join(f"<tr><td>{escape(str(check))}</td></tr>" for check in self.checks)
        return f"<table><caption>{escape(str(self))}</caption>{rows}</table>"
