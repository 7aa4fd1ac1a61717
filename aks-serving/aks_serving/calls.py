"""What the engine runs: calls, each of which is told once what became of it, on the event loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from aks_serving.batches import BatchKey, Results
from aks_serving.tensors import Feeds
from shared.core.errors import SlipwayError

URGENT, NORMAL, LOW = range(3)
"""Priorities: what runs first."""


class Call(ABC):
    """A request's wish to be run by a version; its inputs as aks_serving.batches.Inputs says, its `key` likewise.

    `input_bytes` is the size of the inputs, `held_bytes` what the call holds beside them; neither changes while it
    waits or runs. `deadline_s` is a time of perf_counter, or infinity; `priority` 0 runs before 1, and 1 before 2.
    """

    __slots__ = (
        "deadline_s",
        "feeds",
        "held_bytes",
        "input_bytes",
        "key",
        "packed",
        "priority",
        "rows",
        "started_s",
    )

    packed: bytes | None
    feeds: Feeds | None
    rows: int | None
    key: BatchKey
    input_bytes: int
    held_bytes: int
    deadline_s: float
    priority: int
    started_s: float

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether nobody waits for the result any more."""

    @abstractmethod
    def answered(self, results: Results, start: int, stop: int, now_s: float) -> None:
        """The version ran: the call's are rows `start` to `stop` of the results. Called once, on the event loop."""

    @classmethod
    def answered_together(
        cls,
        calls: Sequence["Call"],  # noqa: ARG003 - for those that do it
        results: Results,  # noqa: ARG003
        now_s: float,  # noqa: ARG003
    ) -> "Sequence[Call] | None":
        """As `answered` for calls of one batch, which have their rows in order: those whose answers went wrong, or None
        where these calls are not to be told together, in which case nothing was done. Never raises.
        """
        return None

    @abstractmethod
    def failed(self, error: SlipwayError) -> None:
        """The version did not run, or failed. Called once, in place of `answered`."""

    @abstractmethod
    def dropped(self) -> None:
        """Nobody waited any more, and it did not run. Called once, in place of `answered`."""
