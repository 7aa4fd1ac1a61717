"""The host of one functions app: what Azure's host does around the Python worker, on one machine.

Start: host.json and settings are read, the app is indexed, every binding is checked, the keys are read, and the queues
and container that the host needs are created; only then does anything listen. Whatever is wrong stops the start.

Stop (SIGTERM or SIGINT): nothing new is taken, what runs may finish within the grace, then messages and timers still
in work are given back. Several hosts may run one app over one storage account; a host may be killed at any moment.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from azure.core.exceptions import AzureError

from local.host import bindings
from local.host.bindings import BLOB_TRIGGER, HTTP_TRIGGER, QUEUE_TRIGGER, TIMER_TRIGGER, Function
from local.host.blobs import POISON_QUEUE, BlobMessageHandler, BlobScanner, BlobTrigger, trigger_queue
from local.host.errors import HostStartError
from local.host.hostjson import HostJson, QueueOptions, read_host_json
from local.host.http import HttpFront, HttpTrigger
from local.host.invocations import Invoker
from local.host.keys import load_keys
from local.host.messages import Message
from local.host.outputs import QueueOutputs
from local.host.queues import QueueListener, poison_name
from local.host.settings import HOST_STORAGE, AppSettings, HostSettings, connection_string
from local.host.storage import HOSTS_CONTAINER, Storages, ensure_container, in_thread
from local.host.timers import TimerListener, TimerTrigger
from local.host.worker import Worker

EXIT_TIMEOUT = 3
"""The exit code after a function overran its time: start the host again, as Azure does."""
EXIT_CRASH = 4
"""The exit code after an error of the host's own."""

_log = logging.getLogger("host")

_STORAGE_THREADS = 16
_FATAL_GRACE_S = 2.0
_GIVE_BACK_S = 5.0
_MAX_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What an app declares, checked and ready to be started."""

    https: list[HttpTrigger]
    queues: list[tuple[Function, bindings.QueueTarget]]
    blobs: list[BlobTrigger]
    timers: list[TimerTrigger]


class Host:
    """One app's host. `run` it once; a process holds one, for the worker library holds one app a process.

    Args:
        app_dir: the directory of `function_app.py` and `host.json`; it must be on the import path.
        port: the HTTP port on 127.0.0.1; 0 picks a free one.
        keys_path: the keys file (local.host.keys).
        environment: the app settings; the app itself reads `os.environ`, so pass that.
    """

    def __init__(self, *, app_dir: Path, port: int, keys_path: Path, environment: Mapping[str, str]) -> None:
        self._app_dir = app_dir
        self._port = port
        self._keys_path = keys_path
        self._environment = environment
        self._storages = Storages()
        self._worker = Worker()
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Run until told to stop; returns the exit code. Raises HostStartError where it cannot start."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_STORAGE_THREADS, thread_name_prefix="storage"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        host_json = read_host_json(self._app_dir, self._environment)
        settings = HostSettings.from_env(self._environment, self._app_dir)
        host_storage = self._storages.of(connection_string(self._environment, HOST_STORAGE))
        plan = await self._plan(host_json)
        keys = load_keys(self._keys_path)
        listening = _bind(self._port)
        invoker = Invoker(
            self._worker,
            QueueOutputs(self._storages, base64=host_json.queues.base64),
            timeout_s=host_json.function_timeout_s,
            on_timeout=lambda reason: self._end(EXIT_TIMEOUT, f"{reason}: the host ends, start it again"),
        )
        queues = self._queue_listeners(plan, host_json, settings, invoker)
        await self._prepare_storage(queues)
        front = HttpFront(plan.https, keys=keys, host_id=settings.host_id, invoker=invoker)
        server = _Server(_server_config(front, settings.grace_s), on_started=lambda: self._say_ready(listening))
        scanners = [
            BlobScanner(
                trigger,
                host_storage=host_storage,
                host_id=settings.host_id,
                interval_s=settings.blob_scan_s,
                patience_s=settings.blob_receipt_s,
            )
            for trigger in plan.blobs
        ]
        timers = [
            TimerListener(
                trigger,
                storage=host_storage,
                host_id=settings.host_id,
                claim_s=settings.timer_lease_s,
                invoker=invoker,
            )
            for trigger in plan.timers
        ]
        _announce(plan)
        return await self._serve(server, listening, [*queues, *scanners, *timers], settings.grace_s)

    async def _plan(self, host_json: HostJson) -> _Plan:
        settings = AppSettings(self._environment)
        script = self._environment.get("PYTHON_SCRIPT_FILE_NAME") or "function_app.py"
        index = await self._worker.load(self._app_dir, script)
        functions = [bindings.read_function(metadata, settings) for metadata in index]
        of_type = {kind: [item for item in functions if item.trigger.type == kind] for kind in bindings.TRIGGERS}
        return _Plan(
            https=[HttpTrigger.of(item, settings, prefix=host_json.route_prefix) for item in of_type[HTTP_TRIGGER]],
            queues=[
                (item, bindings.queue_target(item.name, item.trigger, settings)) for item in of_type[QUEUE_TRIGGER]
            ],
            blobs=[BlobTrigger.of(item, settings, self._storages) for item in of_type[BLOB_TRIGGER]],
            timers=[TimerTrigger.of(item, settings) for item in of_type[TIMER_TRIGGER]],
        )

    def _queue_listeners(
        self, plan: _Plan, host_json: HostJson, settings: HostSettings, invoker: Invoker
    ) -> list[QueueListener]:
        listeners = []
        for function, target in plan.queues:
            storage = self._storages.of(target.connection)
            poison = poison_name(target.queue)
            listeners.append(
                QueueListener(
                    queue=storage.queue(target.queue),
                    poison=storage.queue(poison) if poison else None,
                    options=host_json.queues,
                    lease_s=settings.message_lease_s,
                    handle=_QueueHandler(function, invoker),
                )
            )
        if plan.blobs:
            handler = BlobMessageHandler(plan.blobs, invoker, poison_after=host_json.blobs.poison_blob_threshold)
            storage = self._storages.of(connection_string(self._environment, HOST_STORAGE))
            listeners.append(
                QueueListener(
                    queue=storage.queue(trigger_queue(settings.host_id)),
                    poison=storage.queue(POISON_QUEUE),
                    options=_blob_queue_options(host_json),
                    lease_s=settings.message_lease_s,
                    handle=handler.handle,
                )
            )
        return listeners

    async def _prepare_storage(self, queues: list[QueueListener]) -> None:
        host_storage = self._storages.of(connection_string(self._environment, HOST_STORAGE))
        try:
            await asyncio.gather(
                in_thread(ensure_container, host_storage.blobs, HOSTS_CONTAINER), *(queue.prepare() for queue in queues)
            )
        except AzureError as error:
            reason = str(error).partition("\n")[0]
            raise HostStartError(f"the storage of {HOST_STORAGE}, or of a queue, does not answer: {reason}") from error

    async def _serve(
        self,
        server: "_Server",
        listening: socket.socket,
        listeners: list[QueueListener | BlobScanner | TimerListener],
        grace_s: float,
    ) -> int:
        serving = asyncio.create_task(server.serve([listening]), name="http")
        tasks = {asyncio.create_task(listener.run(self._stopping)) for listener in listeners} | {serving}
        for task in tasks:
            task.add_done_callback(self._check_ended)
        await self._stopping.wait()
        _log.info("stopping: nothing new is taken, what runs has %g s to finish", grace_s)
        server.should_exit = True
        _, unfinished = await asyncio.wait(tasks, timeout=_FATAL_GRACE_S if self._exit_code else grace_s)
        if unfinished:
            _log.warning("the grace is over: what still runs is given back")
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=_GIVE_BACK_S)
        _log.info("stopped")
        return self._exit_code

    def _say_ready(self, listening: socket.socket) -> None:
        # In one write: where the output is not buffered, a log line could come between a line and its end.
        print(f"ready http://127.0.0.1:{listening.getsockname()[1]}\n", end="", flush=True)  # noqa: T201 - for who waits

    def _check_ended(self, task: asyncio.Task[None]) -> None:
        """A listener ends when the host stops. One that ends before has failed, and nobody would notice."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("a part of the host failed", exc_info=error)
        if not self._stopping.is_set():
            self._end(EXIT_CRASH, "a part of the host ended by itself: the host ends, start it again")

    def _end(self, exit_code: int, reason: str) -> None:
        _log.error("%s", reason)
        self._exit_code = exit_code
        self._stopping.set()


class _QueueHandler:
    """Calls a function with a message of its queue."""

    def __init__(self, function: Function, invoker: Invoker) -> None:
        self._function = function
        self._invoker = invoker

    async def __call__(self, message: Message) -> bool:
        return (await self._invoker.call(self._function, message.data(), message.metadata())).succeeded


class _Server(uvicorn.Server):
    """Uvicorn, with the signals left to the host. `on_started` is called when it accepts requests."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


def _server_config(front: HttpFront, grace_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        front,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )


def _bind(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        # So that of two hosts told to take one port the second fails here, not later.
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        raise HostStartError(f"port {port} of 127.0.0.1 cannot be had ({error}): choose another with --port") from None
    return listening


def _blob_queue_options(host_json: HostJson) -> QueueOptions:
    """How the messages of blob scans are taken: `maxDegreeOfParallelism` at once; retries wait as for queues."""
    batch = min(_MAX_BATCH, host_json.blobs.max_degree_of_parallelism)
    return replace(
        host_json.queues,
        batch_size=batch,
        new_batch_threshold=host_json.blobs.max_degree_of_parallelism - batch,
        max_dequeue_count=host_json.blobs.poison_blob_threshold,
        base64=True,
    )


def _announce(plan: _Plan) -> None:
    for http in plan.https:
        methods = ",".join(sorted(http.route.methods)) or "any method"
        _log.info(
            "listening function=%s http %s /%s level=%s", http.function.name, methods, http.route.template, http.level
        )
    for function, target in plan.queues:
        _log.info("listening function=%s queue %s", function.name, target.queue)
    for blob in plan.blobs:
        _log.info("listening function=%s blobs %s", blob.function.name, blob.function.trigger.fields.get("path"))
    for timer in plan.timers:
        _log.info("listening function=%s timer %s", timer.function.name, timer.schedule)
    _log.info("pid %d runs %d functions", os.getpid(), len([*plan.https, *plan.queues, *plan.blobs, *plan.timers]))
