"""Log lines as the processes write them where the log is JSON."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from shared.core.logs import JsonFormatter


class _Kept(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[dict[str, Any]] = []
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@contextmanager
def json_lines(name: str, level: int = logging.INFO) -> Generator[list[dict[str, Any]]]:
    """What a logger, and those beneath it, write until the end of the block."""
    logger, kept = logging.getLogger(name), _Kept(level)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)
        logger.setLevel(before)
