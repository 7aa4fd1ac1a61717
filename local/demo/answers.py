"""What became of each request of the demo's stream, as its sender saw it. Times are `time.monotonic()`, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A request that was answered in full.

    `version` is the one that answered: for a `fallback` this is stable, in place of the candidate that the user was
    assigned. `rows` counts the images that were sent, `right` those whose digit was read rightly.
    """

    user: str
    sent_s: float
    answered_s: float
    generation: int
    version: int
    role: str
    fallback: bool
    rows: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that was not answered, or not as it must be, and why."""

    user: str
    sent_s: float
    reason: str
