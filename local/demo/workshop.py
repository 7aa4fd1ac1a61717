"""The demo's data scientist at work: the process that trains (local.demo.training), and what it has finished."""

import os
import sys
from pathlib import Path

from local import processes
from local.demo.digits import Rows
from local.demo.errors import DemoError
from local.demo.training import TRAFFIC_FILE, Entry
from local.system import REPOSITORY

TRAINING = "local.demo.training"

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""The machine's other core belongs to the system."""


class Workshop:
    """Trains in the background. Start it from the thread that will stop it."""

    def __init__(self, directory: Path, *, log_path: Path, module: str = TRAINING) -> None:
        """Begin to train, by a module that is given the directory; models appear in `directory`."""
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._child = processes.start(
            "training",
            [sys.executable, "-m", module, str(directory)],
            log_path=log_path,
            ready=lambda: True,
            deadline_s=10.0,
            environment=os.environ | _ONE_THREAD,
            working_directory=REPOSITORY,
        )

    def traffic(self) -> Rows | None:
        """The rows kept for live traffic, or None so far. Raises DemoError where the training failed."""
        path = self.finished(TRAFFIC_FILE)
        return Rows.load(path) if path else None

    def model(self, entry: Entry) -> Path | None:
        """A model's bundle, or None so far. Raises DemoError where the training failed."""
        return self.finished(entry.filename)

    def stop(self) -> None:
        """End the training, where it goes on."""
        self._child.stop()

    def finished(self, name: str) -> Path | None:
        """A file that the training makes, or None so far. Raises DemoError where the training failed."""
        code = self._child.exit_code
        path = self._directory / name
        if path.exists():
            return path
        if code is not None:
            raise DemoError(f"the training ended with {code} before {name} was there")
        return None
