"""Azurite, Microsoft's emulator of Azure Storage, as a child process: blobs, queues and tables on 127.0.0.1.

It is run by its JavaScript entry with node, so that there is one process and one pid. Ports not given are picked by
Azurite itself. With a `location` its state survives a stop; a SIGKILL of Azurite may lose the last seconds, so it is
to be stopped, not killed. It sends no telemetry and calls nobody.

Node is the path in SLIPWAY_NODE, else `node` on the PATH. The package is `node_modules/azurite` of this repository,
else of the directory in SLIPWAY_NODE_MODULES.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from local import processes

ACCOUNT_NAME = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that every Azurite has by default. Its key is public, and opens nothing but an emulator."""

_SERVICES = ("Blob", "Queue", "Table")
_LISTENING = re.compile(r"Azurite (\w+) service is successfully listening at http://127\.0\.0\.1:(\d+)")
_START_DEADLINE_S = 120.0
_ENTRY = Path("azurite", "dist", "src", "azurite.js")


class AzuriteMissingError(Exception):
    """Node, or the npm package `azurite`, was not found. The message says where it was looked for."""


class Azurite:
    """One Azurite. `start` it (or use it as a context manager), then take its `connection_string`.

    Args:
        log_path: the file for its output, begun anew at each start.
        location: the directory that holds its state; None keeps everything in memory.
        blob_port, queue_port, table_port: 0 picks a free one, anew at each start.
        accounts: the storage accounts that it has; each sees nothing of the others.
        environment: where SLIPWAY_NODE, SLIPWAY_NODE_MODULES and PATH are read; os.environ by default.
    """

    def __init__(
        self,
        *,
        log_path: Path,
        location: Path | None = None,
        blob_port: int = 0,
        queue_port: int = 0,
        table_port: int = 0,
        accounts: Sequence[str] = (ACCOUNT_NAME,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log_path = log_path
        self._location = location
        self._wanted = {"Blob": blob_port, "Queue": queue_port, "Table": table_port}
        self._accounts = tuple(accounts)
        self._environment = dict(os.environ if environment is None else environment)
        self._ports: dict[str, int] = {}
        self._child: processes.Child | None = None

    def start(self) -> Self:
        """Start it and return when all three services listen. Raises AzuriteMissingError or ProcessStartError."""
        arguments = [find_node(self._environment), str(find_entry(self._environment)), *self._options()]
        # Azurite falls back to its working directory for state; in memory, the log's directory takes what is left.
        self._child = processes.start(
            "Azurite",
            arguments,
            log_path=self._log_path,
            ready=self._all_listen,
            deadline_s=_START_DEADLINE_S,
            environment=self._environment
            | {"AZURITE_ACCOUNTS": ";".join(f"{account}:{ACCOUNT_KEY}" for account in self._accounts)},
            working_directory=self._log_path.parent,
        )
        return self

    def stop(self) -> None:
        """Stop it, its state written. Harmless when it does not run."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    @property
    def pid(self) -> int:
        """Its process id. Raises RuntimeError when it was not started."""
        if self._child is None:
            raise RuntimeError("Azurite does not run: call start() first")
        return self._child.pid

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service: `Blob`, `Queue`, `Table`. Empty before the start."""
        return dict(self._ports)

    @property
    def connection_string(self) -> str:
        """The connection string of its first account. Raises RuntimeError before the start."""
        return self.connection_string_of(self._accounts[0])

    def connection_string_of(self, account: str) -> str:
        """The connection string of one of its accounts. Raises RuntimeError before the start."""
        if not self._ports:
            raise RuntimeError("Azurite has no address yet: call start() first")
        endpoints = ";".join(
            f"{service}Endpoint=http://127.0.0.1:{self._ports[service]}/{account}" for service in _SERVICES
        )
        return f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={ACCOUNT_KEY};{endpoints};"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _options(self) -> list[str]:
        options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        for service, port in self._wanted.items():
            options += [f"--{service.lower()}Host", "127.0.0.1", f"--{service.lower()}Port", str(port)]
        if self._location is None:
            return [*options, "--inMemoryPersistence"]
        self._location.mkdir(parents=True, exist_ok=True)
        return [*options, "--location", str(self._location)]

    def _all_listen(self) -> bool:
        found = _LISTENING.findall(self._log_path.read_text(errors="replace"))
        self._ports = {service: int(port) for service, port in found}
        return set(self._ports) == set(_SERVICES)


def find_node(environment: Mapping[str, str]) -> str:
    """The path of the node binary. Raises AzuriteMissingError."""
    named = environment.get("SLIPWAY_NODE")
    if named:
        if shutil.which(named) is None:
            raise AzuriteMissingError(
                f"SLIPWAY_NODE is {named!r}, which cannot be run: name a node binary, 20 or newer"
            )
        return named
    found = shutil.which("node", path=environment.get("PATH"))
    if found is None:
        raise AzuriteMissingError(
            "node is not on the PATH: install Node 20 or newer, or set SLIPWAY_NODE to its binary"
        )
    return found


def find_entry(environment: Mapping[str, str]) -> Path:
    """Azurite's JavaScript entry. Raises AzuriteMissingError."""
    roots = [Path(__file__).resolve().parent.parent / "node_modules"]
    if environment.get("SLIPWAY_NODE_MODULES"):
        roots.append(Path(environment["SLIPWAY_NODE_MODULES"]).resolve())
    for root in roots:
        if (root / _ENTRY).is_file():
            return root / _ENTRY
    looked = " or ".join(str(root) for root in roots)
    raise AzuriteMissingError(f"the npm package azurite is not in {looked}: run `npm ci` in the repository")
