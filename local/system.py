"""The whole system on one machine: Azurite, the functions host and the model server, as child processes.

`slipway up`, the demo and the end-to-end tests drive the same class. Each part can be stopped, killed and started again
by name, on the same ports; a further functions host can be added; any setting of any part can be overridden. All state
lies in the state directory, so a system started again on it goes on where it stopped.

One thread drives a system, and must live as long as its parts: they end with the thread that started them
(local.processes).
"""

import contextlib
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from local import processes
from local.azurite import ACCOUNT_KEY, ACCOUNT_NAME, Azurite
from local.state import ProcessRecord, Running, StateDir, start_ticks
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError

AZURITE: Final = "azurite"
FUNCTIONS: Final = "functions"
SERVER: Final = "server"

REPOSITORY = Path(__file__).resolve().parent.parent

_START_DEADLINE_S = 180.0
_ANSWER_TIMEOUT_S = 15.0
_STOP_GRACE_S = 20.0
_PORT_S, _PORT_POLL_S = 2.0, 0.05
_PORT_OPTIONS: Final = {AZURITE: "--storage-port", FUNCTIONS: "--functions-port", SERVER: "--server-port"}
"""How `slipway up` is told of them."""
_ORPHAN_GRACE_S = 10.0
_FOREIGN_SETTINGS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where each part listens, on 127.0.0.1."""

    blob: int = 10_000
    queue: int = 10_001
    table: int = 10_002
    functions: int = 7_071
    server: int = 8_080

    @classmethod
    def free(cls) -> Self:
        """Ports that nothing listened on a moment ago."""
        blob, queue, table, functions, server = (_free_port() for _ in range(5))
        return cls(blob=blob, queue=queue, table=table, functions=functions, server=server)


class System:
    """One system on a state directory. `start` it, or use it as a context manager.

    Args:
        state: its state directory; `start` creates it. Hold its lock (`StateDir.locked`) where others might use it.
        ports: where its parts listen; free ports are picked where none are given.
        settings: environment variables by the name of the part, over those that the system sets itself.
    """

    def __init__(
        self, state: StateDir, *, ports: Ports | None = None, settings: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.state = state
        self.ports = Ports.free() if ports is None else ports
        self._settings = {part: dict(overrides) for part, overrides in (settings or {}).items()}
        self._hosts = {FUNCTIONS: self.ports.functions}
        self._stoppers: dict[str, Callable[[], object]] = {}
        self._records: dict[str, ProcessRecord] = {}

    @property
    def functions_url(self) -> str:
        """The root of the (first) functions host; the admin API lies under `/api`."""
        return self.url(FUNCTIONS)

    @property
    def server_url(self) -> str:
        """The root of the model server."""
        return self.url(SERVER)

    @property
    def storage_connection(self) -> str:
        """Azurite's connection string, known before it runs."""
        endpoints = {"Blob": self.ports.blob, "Queue": self.ports.queue, "Table": self.ports.table}
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT_NAME};AccountKey={ACCOUNT_KEY};" + "".join(
            f"{service}Endpoint=http://127.0.0.1:{port}/{ACCOUNT_NAME};" for service, port in endpoints.items()
        )

    @property
    def key(self) -> str:
        """The key of the admin API. Raises NotFoundError before the functions host first ran."""
        try:
            return _default_key(self.state.keys)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotFoundError(
                f"a key in {self.state.keys}", hint="the functions host writes it when it starts"
            ) from error

    @property
    def parts(self) -> list[str]:
        """The names of all parts, in the order in which they start."""
        return [AZURITE, *self._hosts, SERVER]

    def url(self, part: str) -> str:
        """Where a functions host or the model server answers."""
        return f"http://127.0.0.1:{self._port(part)}"

    def settings_of(self, part: str) -> dict[str, str]:
        """The settings that a part is started with, overrides included, without the rest of the environment."""
        if part == SERVER:
            own = {
                "SLIPWAY_STORAGE_CONNECTION": self.storage_connection,
                "SLIPWAY_CACHE_DIR": str(self.state.serving_cache),
                "SLIPWAY_PORT": str(self.ports.server),
                "SLIPWAY_BIND": "127.0.0.1",
            }
        elif part in self._hosts:
            own = {
                "AzureWebJobsStorage": self.storage_connection,
                "SlipwayStorage": self.storage_connection,
                "SLIPWAY_DOCUMENTS": f"sqlite:{self.state.documents}",
                "SLIPWAY_SWEEP_SCHEDULE": "*/10 * * * * *",
                "SLIPWAY_HOST_BLOB_SCAN_S": "1",
                "SLIPWAY_HOST_MESSAGE_LEASE_S": "30",
            }
        else:
            own = {}
        return {"PYTHONUNBUFFERED": "1"} | own | self._settings.get(part, {})

    def override(self, part: str, settings: Mapping[str, str]) -> None:
        """Set environment variables of a part from its next start on, over what stands."""
        self._settings.setdefault(part, {}).update(settings)

    def add_host(self, name: str, *, settings: Mapping[str, str] | None = None, port: int | None = None) -> None:
        """Add a further functions host on the same state. Start it with `start_part(name)`."""
        if name in self.parts:
            raise ConflictError(f"there is a part {name!r} already: give the new one another name")
        self._hosts[name] = _free_port() if port is None else port
        self.override(name, settings or {})

    def start(self) -> Self:
        """Start every part that does not run, and return when all are ready.

        Raises ConflictError where a port is taken, ProcessStartError, AzuriteMissingError or UnavailableError; then
        nothing is left running.
        """
        self.state.create()
        try:
            for part in self.parts:
                self.start_part(part)
        except BaseException:
            self.stop()
            raise
        return self

    def check_ports(self) -> None:
        """See that each part can listen, before any is started.

        Raises InvalidInputError where two are given one port, ConflictError where one is taken.
        """
        taken: dict[int, str] = {}
        for part in self.parts:
            for port in self._ports_of(part):
                if port in taken:
                    raise InvalidInputError(f"port {port} is for {taken[port]} and for {part}: give each its own")
                taken[port] = part
            self._check_port_of(part)

    def start_part(self, part: str) -> None:
        """Start one part, and return when it is ready. Nothing happens where it runs already."""
        if self.is_running(part):
            return
        self._forget(part)
        self._check_port_of(part)
        log = self.state.logs / f"{part}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        if part == AZURITE:
            azurite = Azurite(
                log_path=log,
                location=self.state.azurite,
                blob_port=self.ports.blob,
                queue_port=self.ports.queue,
                table_port=self.ports.table,
                environment=self._environment(AZURITE),
            ).start()
            self._remember(part, azurite.pid, azurite.stop)
            create_storage(self.storage_connection)
        else:
            child = processes.start(
                part,
                self._arguments(part),
                log_path=log,
                ready=lambda: _answers(f"{self.url(part)}{_READY_PATH[SERVER if part == SERVER else FUNCTIONS]}"),
                deadline_s=_START_DEADLINE_S,
                environment=self._environment(part),
                working_directory=REPOSITORY,
            )
            self._remember(part, child.pid, lambda: child.stop(_STOP_GRACE_S))

    def stop(self) -> None:
        """Stop every part, the last started first. Azurite, which holds what the others write, goes last."""
        for part in reversed(self.parts):
            self.stop_part(part)

    def stop_part(self, part: str) -> None:
        """Ask a part to end and wait until it has; what overstays is killed."""
        self._forget(part)

    def kill_part(self, part: str) -> None:
        """End a part as a crash would (SIGKILL), alone: what it started is left to notice for itself."""
        record = self._records.get(part)
        if record is not None and record.is_alive():
            os.kill(record.pid, signal.SIGKILL)
        self._forget(part)

    def restart_part(self, part: str) -> None:
        """Stop a part and start it again, on the same ports."""
        self.stop_part(part)
        self.start_part(part)

    def is_running(self, part: str) -> bool:
        """Whether a part's process runs."""
        record = self._records.get(part)
        return record is not None and record.is_alive()

    def fallen(self) -> list[str]:
        """The parts that do not run."""
        return [part for part in self.parts if not self.is_running(part)]

    def pids(self) -> dict[str, int]:
        """The process ids of the parts that run."""
        return {part: self._records[part].pid for part in self.parts if self.is_running(part)}

    def running(self) -> Running:
        """What clients need to know, as `up.json` holds it."""
        return Running(
            functions_url=self.functions_url,
            server_url=self.server_url,
            key=self.key,
            storage_connection=self.storage_connection,
            pids=self.pids(),
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _port(self, part: str) -> int:
        if part == SERVER:
            return self.ports.server
        if part in self._hosts:
            return self._hosts[part]
        raise NotFoundError(f"a part {part!r} with a URL", hint=f"there are {', '.join([*self._hosts, SERVER])}")

    def _arguments(self, part: str) -> list[str]:
        if part == SERVER:
            return [sys.executable, "-m", "aks_serving"]
        where = ["--app-dir", str(REPOSITORY), "--port", str(self._port(part)), "--keys", str(self.state.keys)]
        return [sys.executable, "-m", "local.host", *where]

    def _environment(self, part: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN_SETTINGS}
        return inherited | self.settings_of(part)

    def _ports_of(self, part: str) -> list[int]:
        return [self.ports.blob, self.ports.queue, self.ports.table] if part == AZURITE else [self._port(part)]

    def _check_port_of(self, part: str) -> None:
        for port in self._ports_of(part):
            if not is_port_free(port, within_s=_PORT_S):
                raise ConflictError(
                    f"port {port}, for {part}, is taken: stop what listens there, or choose another port"
                    f" with {_PORT_OPTIONS.get(part, _PORT_OPTIONS[FUNCTIONS])}"
                )

    def _remember(self, part: str, pid: int, stop: Callable[[], object]) -> None:
        self._stoppers[part] = stop
        ticks = start_ticks(pid)
        self._records[part] = ProcessRecord(name=part, pid=pid, start_ticks=-1 if ticks is None else ticks)
        try:
            self.state.record_processes(self._records.values())
        except OSError:
            # One that is on no record would outlive a system that is killed.
            self._forget(part)
            raise

    def _forget(self, part: str) -> None:
        stop = self._stoppers.pop(part, None)
        if stop is not None:
            stop()
        self._records.pop(part, None)


def end_left_behind(state: StateDir, *, grace_s: float = _ORPHAN_GRACE_S) -> list[str]:
    """End the parts that a killed system left running, and return their names. Call with the state's lock held."""
    found = state.left_behind()
    for record in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(record.is_alive() for record in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    for record in found:
        if record.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(record.pid, signal.SIGKILL)
    return [record.name for record in found]


def is_port_free(port: int, *, within_s: float = 0.0) -> bool:
    """Whether a server could listen on the port, now or within that time: a process that was killed as it began another
    leaves its port to that one for a moment.
    """
    deadline_s = time.monotonic() + within_s
    while not (free := processes.can_listen(port)) and time.monotonic() < deadline_s:
        time.sleep(_PORT_POLL_S)
    return free


def create_storage(connection: str) -> None:
    """Create the blob containers and queues that do not exist yet."""
    from shared.store.blobs import AzureBlobs  # noqa: PLC0415
    from shared.store.queues import AzureQueues  # noqa: PLC0415

    with closing(AzureBlobs.from_connection_string(connection)) as blobs:
        blobs.ensure_containers()
    with closing(AzureQueues.from_connection_string(connection)) as queues:
        queues.ensure_queues()


_READY_PATH: Final = {FUNCTIONS: "/api/health", SERVER: "/v2/health/live"}


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        with connection.getresponse() as answer:
            return answer.status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    try:
        return processes.free_port()
    except OSError as error:
        raise ConflictError(f"{error.strerror}: stop what listens there") from error


def _default_key(keys: Path) -> str:
    found = json.loads(keys.read_text())["functionKeys"]["default"]
    if not isinstance(found, str):
        raise TypeError(f"the key is a {type(found).__name__}, not text")
    return found
