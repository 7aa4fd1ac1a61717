"""A functions host for tests: `python -m local.host` as a process of its own, over a storage account.

with HostProcess.start(app_dir=..., directory=tmp_path, storage=storage, settings={...}) as host:
httpx.get(f"{host.url}/api/...", headers=host.headers)
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from local import processes

_READY = re.compile(r"^ready (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
_START_DEADLINE_S = 180.0
_UNWANTED = ("SLIPWAY_HOST_", "AzureFunctions", "AzureWebJobs", "PYTHON_")


class HostProcess:
    """A running host. Its log and its keys lie in the directory that it was given."""

    def __init__(self, child: processes.Child, log_path: Path, keys_path: Path) -> None:
        self.child = child
        self.log_path = log_path
        self._keys_path = keys_path

    @classmethod
    def start(
        cls, *, app_dir: Path, directory: Path, storage: str, settings: Mapping[str, str], name: str = "host"
    ) -> Self:
        """Start a host on a free port, and return when it listens. Raises ProcessStartError with its log's tail.

        Hosts that are given one directory share their keys; `name` tells their logs apart.
        """
        log_path, keys_path = directory / f"{name}.log", directory / "keys.json"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_UNWANTED)}
        child = processes.start(
            name,
            [
                sys.executable, "-m", "local.host",
                "--app-dir", str(app_dir), "--port", "0", "--keys", str(keys_path),
            ],
            log_path=log_path,
            ready=lambda: _READY.search(log_path.read_text()) is not None,
            deadline_s=_START_DEADLINE_S,
            environment=inherited | {"AzureWebJobsStorage": storage, "PYTHONUNBUFFERED": "1"} | dict(settings),
            working_directory=directory,
        )  # fmt: skip
        return cls(child, log_path, keys_path)

    @property
    def url(self) -> str:
        """Its root."""
        found = _READY.search(self.log())
        assert found is not None
        return found[1]

    @property
    def key(self) -> str:
        """The host key of its functions."""
        return str(json.loads(self._keys_path.read_text())["functionKeys"]["default"])

    @property
    def master_key(self) -> str:
        """The master key."""
        return str(json.loads(self._keys_path.read_text())["masterKey"])

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a client that has the host key."""
        return {"x-functions-key": self.key}

    def log(self) -> str:
        """All that it wrote."""
        return self.log_path.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop(5.0)
