"""The servers under test: started as their users start them, on the serving core, checked for right answers, stopped.

Slipway runs as `python -m aks_serving` against Azurite, with a stable version and a candidate at 20 %, windows and
metrics on: everything on. Beside it stand the same server set up in other ways (SETUPS), the bare loop
(benchmarks.serving.bare), the constant answer, and the peers.
"""

import http.client
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from benchmarks.serving import grpcload, machine, wire
from benchmarks.serving.catalogue import Peer, Variant
from benchmarks.serving.environments import PEER_FOLDER, python_of
from benchmarks.serving.http2 import Http2Error
from benchmarks.serving.wire import Form, Message
from benchmarks.serving.workloads import Workload
from local import processes
from local.azurite import Azurite
from local.system import REPOSITORY, create_storage
from shared.core.canonical import canonical_json, digest_of_bytes
from shared.drift.profiling import profile_of
from shared.routing.plan import Role, Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

SLIPWAY, SLIPWAY_OFF, BARE, CONSTANT = "slipway", "slipway-off", "bare", "constant"
COUNTING, NOT_COUNTING = "slipway-counting", "slipway-not-counting"
TRACED, UNTRACED = "slipway-traced", "slipway-untraced"
SLIPWAY_ONE, SLIPWAY_TWO, SLIPWAY_GRPC = "slipway-one-version", "slipway-two-workers", "slipway-grpc"
CANDIDATE_BP = 2_000
_START_S = 60.0
_CHECKED = 4
_NOT_YET = (0, 404, 503)
"""What is answered while a model is loaded; 0 stands for no answer at all."""
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A way to run Slipway's server. `settings` come on top of those that it cannot do without."""

    candidate_bp: int = CANDIDATE_BP
    names_users: bool = True
    grpc: bool = False
    profile: bool = False
    """Whether its version has a reference profile."""
    settings: Mapping[str, str] = field(default_factory=dict)


SETUPS: Mapping[str, Setup] = {
    SLIPWAY: Setup(),
    SLIPWAY_OFF: Setup(
        candidate_bp=0, names_users=False, settings={"SLIPWAY_WINDOW_S": "60", "SLIPWAY_POLL_S": "3600"}
    ),
    # A batch of one version is one run; with a candidate it is two.
    SLIPWAY_ONE: Setup(candidate_bp=0),
    SLIPWAY_TWO: Setup(settings={"SLIPWAY_WORKERS": "2"}),
    SLIPWAY_GRPC: Setup(grpc=True),
    COUNTING: Setup(candidate_bp=0, names_users=False, profile=True, settings={"SLIPWAY_FEATURE_WINDOW_S": "5"}),
    # Where spans go to is said by whoever starts it.
    TRACED: Setup(candidate_bp=0, names_users=False),
    UNTRACED: Setup(candidate_bp=0, names_users=False),
    NOT_COUNTING: Setup(candidate_bp=0, names_users=False, profile=True, settings={"SLIPWAY_FEATURE_SHARE": "0"}),
}


class WrongAnswerError(Exception):
    """A server under test answers something else than the model does."""


class RefusedError(WrongAnswerError):
    """A server under test does not answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A server that runs and answers rightly. `paths` are where it takes which form; `names_users` whether its bodies
    say for whom they ask.
    """

    name: str
    workload: Workload
    child: processes.Child
    port: int
    paths: Mapping[Form, str]
    missing: Mapping[Form, str] = field(default_factory=dict)
    """The forms that it turned out not to take, and what it said."""
    names_users: bool = False
    grpc_port: int = 0

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        return self.child.pid

    def messages(self, form: Form, rows: int) -> list[Message]:
        """Requests for it."""
        return wire.messages(self.workload, form, rows=rows, path=self.paths[form], subjects=self.names_users)


@contextmanager
def storage(folder: Path) -> Iterator[str]:
    """Azurite with Slipway's containers; its connection string."""
    with Azurite(log_path=folder / "azurite.log") as azurite:
        create_storage(azurite.connection_string)
        yield azurite.connection_string


def publish(
    connection: str, endpoint: str, workload: Workload, *, candidate_bp: int, profile: bytes | None = None
) -> None:
    """Publish the workload's model as an endpoint: version 1 stable, and where it has a share, version 2 candidate."""
    shares = [(1, Role.STABLE, 10_000 - candidate_bp), (2, Role.CANDIDATE, candidate_bp)]
    routes = tuple(
        Route(
            version=version,
            role=role,
            weight_bp=weight_bp,
            artifact_digest=workload.digest,
            size_bytes=workload.path.stat().st_size,
            profile_digest=None if profile is None else digest_of_bytes(profile),
        )
        for version, role, weight_bp in shares
        if weight_bp
    )
    plan = RoutePlan(endpoint=endpoint, generation=1, salt="benchmark", routes=routes)
    with closing(AzureBlobs.from_connection_string(connection)) as blobs:
        blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(workload.digest), workload.path.read_bytes())
        if profile is not None:
            blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(digest_of_bytes(profile)), profile)
        blobs.create(BlobContainer.ROUTES, plan_blob_name(endpoint), plan.model_dump_json().encode())


@contextmanager
def slipway(
    workload: Workload,
    *,
    connection: str,
    folder: Path,
    core: str,
    name: str = SLIPWAY,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Subject]:
    """Slipway's model server, in the setup of that name, with `more` settings. `core` may be more than one."""
    setup = SETUPS[name]
    endpoint = workload.name + name.removeprefix(SLIPWAY)
    profile = _profile(workload) if setup.profile else None
    publish(connection, endpoint, workload, candidate_bp=setup.candidate_bp, profile=profile)
    port = processes.free_port()
    settings = {
        "SLIPWAY_STORAGE_CONNECTION": connection,
        "SLIPWAY_CACHE_DIR": tempfile.mkdtemp(prefix=f"{endpoint}-", dir=folder),
        "SLIPWAY_ENDPOINTS": endpoint,
        "SLIPWAY_PORT": str(port),
        "SLIPWAY_POD": name,
    } | {**setup.settings, **more}
    infer = f"/v2/models/{endpoint}/infer"
    paths = {Form.PLAIN: "/predict", Form.V2_JSON: infer, Form.V2_BINARY: infer}
    grpc_port = 0
    if setup.grpc:
        grpc_port = processes.free_port()
        settings["SLIPWAY_GRPC_PORT"] = str(grpc_port)
        paths[Form.GRPC] = endpoint
    command = [sys.executable, "-m", "aks_serving"]
    with _started(name, command, settings, folder=folder, core=core, port=port, log=endpoint) as child:
        yield _checked(
            Subject(
                name=name,
                workload=workload,
                child=child,
                port=port,
                paths=paths,
                names_users=setup.names_users,
                grpc_port=grpc_port,
            )
        )


def _profile(workload: Workload) -> bytes:
    """The reference profile of the rows that are asked, and of their answers."""
    found = profile_of({workload.input_name: workload.rows}, {workload.output_name: workload.expected(workload.rows)})
    if found is None:
        raise ValueError(f"{len(workload.rows)} rows are too few for a profile")
    return canonical_json(found.model_dump(mode="json"))


@contextmanager
def bare(workload: Workload, *, folder: Path, core: str, constant: bool = False) -> Iterator[Subject]:
    """The bare loop, or the constant answer."""
    name = CONSTANT if constant else BARE
    port = processes.free_port()
    settings = {"BARE_MODEL": str(workload.path), "BARE_PORT": str(port)}
    if constant:
        settings["BARE_CONSTANT"] = "1"
    command = [sys.executable, "-m", "benchmarks.serving.bare"]
    log = f"{name}-{workload.name}"
    with _started(name, command, settings, folder=folder, core=core, port=port, log=log) as child:
        subject = Subject(name=name, workload=workload, child=child, port=port, paths={Form.PLAIN: "/predict"})
        yield subject if constant else _checked(subject)


@contextmanager
def peer(
    described: Peer, variant: Variant, workload: Workload, *, cache: Path, folder: Path, core: str
) -> Iterator[Subject]:
    """A peer in one of its variants. Raises EnvironmentMissingError, ProcessStartError or WrongAnswerError."""
    python = python_of(described, cache)
    port = processes.free_port()
    own = Path(tempfile.mkdtemp(prefix=f"{described.name}-", dir=folder))
    settings = {
        "PEER_MODEL": str(workload.path),
        "PEER_NAME": workload.name,
        "PEER_PORT": str(port),
        "PEER_FOLDER": str(own),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    } | variant.settings
    command = [str(python), str(PEER_FOLDER / f"{described.name}_server.py")]
    log = f"{described.name}-{workload.name}"
    paths = {variant.form: variant.path.format(model=workload.name)}
    with _started(
        described.name, command, settings, folder=folder, core=core, port=port, log=log, within_s=described.start_s
    ) as child:
        subject = Subject(name=described.name, workload=workload, child=child, port=port, paths=paths)
        yield _checked(subject, within_s=described.start_s)


@contextmanager
def _started(
    name: str,
    command: list[str],
    settings: Mapping[str, str],
    *,
    folder: Path,
    core: str,
    port: int,
    log: str,
    within_s: float = _START_S,
) -> Iterator[processes.Child]:
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    child = processes.start(
        name,
        ["taskset", "-c", core, *command],
        log_path=folder / f"{log}.log",
        ready=lambda: _listens(port),
        deadline_s=within_s,
        environment=environment | dict(settings),
        working_directory=REPOSITORY,
    )
    machine.prefer(child.pid)
    try:
        yield child
    finally:
        machine.thaw(child.pid)
        child.stop()
        # What a server started and did not take along when it was asked to end goes now, with its group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, 9)


def _checked(subject: Subject, within_s: float = _START_S) -> Subject:
    """Wait for its first right answer, and compare some of every form: without those that it does not take.

    Raises WrongAnswerError where it answers not even the first form, or any form with other numbers than the model's.
    """
    first, *others = subject.paths
    deadline_s = time.monotonic() + within_s
    while _ask(subject, first, subject.messages(first, 1)[0])[0] in _NOT_YET and time.monotonic() < deadline_s:
        time.sleep(0.1)
    _check(subject, first)
    missing = {}
    for form in others:
        try:
            _check(subject, form)
        except RefusedError as error:
            missing[form] = str(error)
    paths = {form: path for form, path in subject.paths.items() if form not in missing}
    return replace(subject, paths=paths, missing=missing)


def _check(subject: Subject, form: Form) -> None:
    for rows in (1, 16):
        for number, request in enumerate(subject.messages(form, rows)[:_CHECKED]):
            status, kind, body = _ask(subject, form, request)
            if status != http.client.OK:
                tail = processes.log_tail(subject.child.log_path)
                raise RefusedError(
                    f"{subject.name} answers {form} with {status}: {body[:300]!r}; its log ends with:\n{tail}"
                )
            _compare(subject, form, rows, number, body, kind)


def _compare(subject: Subject, form: Form, rows: int, number: int, body: bytes, kind: str) -> None:
    try:
        found = wire.answer(form, body, kind, subject.workload.output_name)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WrongAnswerError(f"{subject.name} answers {form} with {body[:300]!r}: {error!r}") from error
    wanted = wire.expected(subject.workload, rows=rows, number=number)
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        raise WrongAnswerError(f"{subject.name} answers {form} with {found[:4]}, and the model says {wanted[:4]}")


def _ask(subject: Subject, form: Form, request: Message) -> tuple[int, str, bytes]:
    """Status, content type and body; of gRPC 200 where there is a message, and 500 where there is none."""
    if form is Form.GRPC:
        try:
            body = grpcload.call(subject.grpc_port, request.body)
        except (OSError, Http2Error) as error:
            return 0, "", repr(error).encode()
        return (http.client.OK if body else http.client.INTERNAL_SERVER_ERROR), request.content_type, body
    connection = http.client.HTTPConnection("127.0.0.1", subject.port, timeout=30)
    headers = {"Content-Type": request.content_type} | dict(request.headers)
    try:
        connection.request("POST", request.path, body=request.body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, "", repr(error).encode()
    finally:
        connection.close()


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
