"""What the chain of checks has made so far, which the next step starts from. For the sandboxed process."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.core.verdict import Outcome, Verdict
from shared.validation.datafile import Array
from shared.validation.model import LoadedModel, Rows
from shared.validation.wire import Stage, ValidateTask

if TYPE_CHECKING:
    from shared.validation.statistics.evidence import Predictions

SEED = 17
"""Of samples of rows: the same rows each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows of a data file: all of them, or a sample where there are more than are looked at.

    `inputs` are the model's, ready to run; `columns` have one value a row, by name; `features` are those of them that
    the model takes.
    """

    inputs: Rows
    labels: Array | None
    columns: Mapping[str, Array]
    features: tuple[str, ...]
    rows: int
    total_rows: int

    @property
    def described(self) -> str:
        """How many rows, in words."""
        if self.rows == self.total_rows:
            return f"{self.rows} rows"
        return f"{self.rows} rows, a sample of {self.total_rows} (seed {SEED})"


@dataclass(slots=True, kw_only=True)
class Chain:
    """The state of one validation. What a step could not make stays None, and the steps that want it are left out."""

    work: ValidateTask
    workdir: Path
    file_bytes: int
    begin: Callable[[Stage], None]
    deadline: float = math.inf
    """When this process is ended, by time.monotonic()."""
    verdicts: list[Verdict] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    """The sections of the report's details, by name."""
    graph: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of the graph, as fields of LoadFigures."""
    model: LoadedModel | None = None
    champion: LoadedModel | None = None
    champion_unusable: str = ""
    """Why the champion can be compared with in nothing, in words that follow "the champion"."""
    data: Sample | None = None
    reference: Sample | None = None
    outputs: Rows | None = None
    predictions: "Predictions | None" = None
    metrics: dict[str, float] = field(default_factory=dict)
    has_golden: bool = False
    has_profile: bool = False
    has_performance: bool = False

    def add(self, *verdicts: Verdict) -> bool:
        """Take verdicts down; whether all of them pass or are advice."""
        self.verdicts += verdicts
        return all(verdict.outcome is Outcome.PASS or verdict.advisory for verdict in verdicts)

    def leave(self, name: str, content: bytes) -> None:
        """Leave a file in the working directory for whoever asked: the empty one that was made for it, or a new one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.workdir / name, flags, 0o600), "wb") as file:
            file.write(content)

    @property
    def loaded(self) -> LoadedModel:
        """The model, for the steps after the one that loads it."""
        if self.model is None:
            raise AssertionError("this step is taken with a loaded model only")
        return self.model

    @property
    def champion_name(self) -> str:
        """The champion in words."""
        version = self.work.champion_version
        return "the champion" if version is None else f"the champion, version {version},"
