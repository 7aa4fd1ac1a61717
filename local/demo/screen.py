"""What the demo shows while it runs: lines with the time since its start, and below them, on a terminal, a live one.

Standard output carries the lines, or, where it is to carry JSON alone, standard error does.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

type Style = str

_WIDTH = 120
"""Of tables, where there is no terminal."""


class Screen:
    """The demo's screen. Use it as a context manager."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = Console(stderr=to_stderr, highlight=False)
        if not self._console.is_terminal:
            self._console.width = _WIDTH
        self._started_s = time.monotonic()
        self._live: Status | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def step(self, text: str) -> None:
        """Begin a part of the story."""
        self._line(text, "bold cyan", mark="▸")

    def say(self, text: str) -> None:
        """Tell what happened."""
        self._line(text, "")

    def good(self, text: str) -> None:
        """Tell of a success."""
        self._line(text, "green", mark="✓")

    def bad(self, text: str) -> None:
        """Tell what was refused or went wrong."""
        self._line(text, "red", mark="✗")

    def detail(self, text: str) -> None:
        """Tell what stands behind the line before."""
        self._line(text, "dim")

    def show(self, renderable: RenderableType) -> None:
        """Show a table."""
        self._console.print()
        self._console.print(renderable)

    def live(self, text: str) -> None:
        """Set the live line. Shown on a terminal only."""
        if self._live is not None:
            self._live.update(Text(text, style="dim", no_wrap=True, overflow="ellipsis"))

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = self._console.status("")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, text: str, style: Style, *, mark: str = " ") -> None:
        line = Text.assemble((f"{self.elapsed_s:5.1f} s ", "dim"), (f"{mark} {text}", style))
        self._console.print(line, soft_wrap=True)
