"""Versions with pods of their own, from a drop to the Gateway: everything real but the cluster.

The control plane and its storage run as on one machine; a server process stands for the pods of each Deployment, with
the settings that the manifests give it; nginx carries out the routes, the manifests' and those that the control plane
wrote; a loop does what Flux does, by `kubectl kustomize`. That Flux and a Gateway do the same is theirs to keep.
"""

import math
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import BlobServiceClient

from local.processes import free_port
from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.core.otel import ENDPOINTS
from shared.core.slots import Slot
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import Gates, Placement, RolloutPolicy, Stage, Triggers
from shared.rollout.gateway import ENDPOINT_HEADER, VERSION_HEADER, backend_name
from tests.e2e.campaign import rollout_of
from tests.e2e.driver import MODEL, SERVER_SETTINGS, SETTINGS, Driver
from tests.e2e.erring import erring
from tests.infra import k8s_flux, k8s_slots
from tests.infra.k8s import Resource, of_kind, settings
from tests.infra.k8s_nginx import Nginx, digest, nginx_program
from tests.infra.k8s_routing import chosen
from tests.serving.processes import Server
from tests.support.models import bundle, classifier, iris
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(3_600)]

SHARED, BLUE, GREEN = (backend_name(MODEL, slot) for slot in (None, Slot.BLUE, Slot.GREEN))
STAGES = (Stage(weight_bp=2_000, duration_s=5), Stage(weight_bp=5_000, duration_s=5))
POLICY = Policy(
    validation=ValidationPolicy(noninferiority_margin=None, latency_ratio=None),
    rollout=RolloutPolicy(
        placement=Placement.DEDICATED,
        stages=STAGES,
        watch_s=5,
        tick_s=1,
        min_requests=100,
        gates=Gates(p99_ms=3_600_000, slow_ms=3_600_000, prediction_psi=None),
        triggers=Triggers(p99_ms=None, memory_share=None, prediction_psi=None),
        load_timeout_s=900,
        max_stage_s=900,
    ),
)
CALLERS, LARGE_EVERY, ENOUGH = 3, 4, 300
"""One row in so many is of flowers larger than any in the data; shares are looked at where so many were answered."""


@dataclass(slots=True)
class Flux:
    """Does what Flux does: looks at the container, and where it changed, has what is in it carried out."""

    connection: str
    folder: Path
    beside: list[Resource]
    """The manifests' own routes."""
    nginx: Nginx
    weights: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each set of routes that was carried out says of a request to the endpoint."""
    failed: list[BaseException] = field(default_factory=list)
    _seen: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def run(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        try:
            with BlobServiceClient.from_connection_string(self.connection) as client:
                while not stop.wait(0.3):
                    self._look(client)
        except BaseException as error:  # noqa: BLE001 - the test's own thread is to say it
            self.failed.append(error)

    def _look(self, client: BlobServiceClient) -> None:
        container = client.get_container_client("manifests")
        found = {blob.name: blob.etag for blob in container.list_blobs()}
        if found == self._seen:
            return
        blobs = {name: container.download_blob(name).readall() for name in found}
        folder = self.folder / str(next(self._numbers))
        made = k8s_flux.applied(k8s_flux.taken(blobs, self.folder), folder)
        self.carry_out([*self.beside, *of_kind(made, "HTTPRoute")])
        self._seen = found

    def carry_out(self, routes: list[Resource]) -> None:
        """Have the Gateway follow some routes."""
        self.weights[digest(routes)] = chosen(routes, "POST", f"/v2/models/{MODEL}/infer", {}) or {}
        self.nginx.follow(routes)


@dataclass(slots=True)
class Callers:
    """Ask for predictions through the Gateway without an end, and keep what they were answered."""

    url: str
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By the routes and the backend."""
    versions: set[tuple[str, str]] = field(default_factory=set)
    """Backends, and the versions that answered there."""
    failed: list[tuple[str, str, bool, str]] = field(default_factory=list)
    """Routes, backend, whether the row was a large flower, and what was said."""

    def ask(self, stop: threading.Event) -> None:
        """Until it is told to stop; what no server answered fails under no routes and no backend."""
        rows = iris()[0].tolist()
        with httpx.Client(base_url=self.url, timeout=30) as client:
            for number in count():
                if stop.wait(0.004):
                    return
                is_large = number % LARGE_EVERY == 0
                row = [3 * value if is_large else value for value in rows[number % len(rows)]]
                try:
                    answer = client.post("/predict", json=_asked([row]), headers={ENDPOINT_HEADER: MODEL})
                except httpx.HTTPError as error:
                    self.failed.append(("", "", is_large, repr(error)))
                    continue
                routes, backend = (answer.headers.get(name, "") for name in ("x-routes", "x-backend"))
                self.answered[routes, backend] += 1
                if answer.status_code == httpx.codes.OK:
                    self.versions.add((backend, answer.headers[VERSION_HEADER]))
                else:
                    self.failed.append((routes, backend, is_large, f"{answer.status_code} {answer.text[:200]}"))


def _asked(rows: list[list[float]]) -> dict[str, Any]:
    return {"model": MODEL, "features": rows, "user_id": "somebody"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What runs."""

    driver: Driver
    servers: dict[str, Server]
    flux: Flux
    callers: Callers


@pytest.fixture
def program() -> str:
    return nginx_program()


@pytest.fixture
def stand(program: str, tmp_path: Path) -> Generator[Stand]:
    (overlay := tmp_path / "overlay").mkdir()
    manifests = k8s_slots.dedicated(overlay, MODEL)
    system = System(StateDir(tmp_path / "state"), settings={FUNCTIONS: SETTINGS})
    system.state.create()
    with ExitStack() as stack:
        stack.callback(system.stop)
        for part in (AZURITE, FUNCTIONS):
            system.start_part(part)
        servers = {}
        for name in (SHARED, BLUE, GREEN):
            servers[name] = Server(_environment(manifests, name, system, tmp_path), tmp_path / f"{name}.log")
            stack.callback(servers[name].close)
        (gateway := tmp_path / "nginx").mkdir()
        addresses = {name: server.url.removeprefix("http://") for name, server in servers.items()}
        nginx = Nginx(program=program, folder=gateway, port=free_port(), addresses=addresses)
        beside = of_kind(manifests, "HTTPRoute")
        nginx.start(beside)
        stack.callback(nginx.stop)
        flux = Flux(system.storage_connection, tmp_path / "flux", beside, nginx)
        flux.weights[digest(beside)] = {SHARED: 1}
        driver = Driver(system)
        stack.callback(driver.close)
        callers = Callers(nginx.url)
        stack.enter_context(running([flux.run]))
        yield Stand(driver=driver, servers=servers, flux=flux, callers=callers)


def _environment(manifests: list[Resource], name: str, system: System, folder: Path) -> dict[str, str]:
    """The settings of a Deployment's pods, but for what a test cannot have, and for haste."""
    found = settings(manifests, name)
    for absent in ("SLIPWAY_BLOB_URL", *ENDPOINTS):
        found.pop(absent, None)
    mine = {
        "PATH": os.environ["PATH"],
        "SLIPWAY_STORAGE_CONNECTION": system.storage_connection,
        "SLIPWAY_CACHE_DIR": str(folder / f"{name}-cache"),
        "SLIPWAY_POD": f"{name}-0",
        "SLIPWAY_BIND": "127.0.0.1",
        "SLIPWAY_PORT": "0",
        "SLIPWAY_GRPC_PORT": "0",
    }
    return found | mine | SERVER_SETTINGS


@contextmanager
def running(targets: list[Any]) -> Generator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=target, args=(stop,)) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def rolled_out(stand: Stand, version: int, model: bytes) -> dict[str, Any]:
    """Drop a model, and wait until its rollout is over."""
    blob = stand.driver.drop(f"{version}.zip", bundle(model))
    stand.driver.wait_for(f"version {version} to be settled", lambda: stand.driver.settled(blob))
    found = rollout_of(stand.driver, version)
    assert found is not None
    return found


def carried_out(stand: Stand, weights: dict[str, int]) -> None:
    """Wait until the Gateway sends requests by these weights at last, and has answered enough of them so."""

    def is_so() -> bool:
        last, found = list(stand.flux.weights.items())[-1]
        drawn = sum(n for (routes, _), n in stand.callers.answered.copy().items() if routes == last)
        return bool(stand.flux.failed) or (found == weights and drawn >= ENOUGH)

    stand.driver.wait_for(f"answers by {weights}", is_so)
    assert stand.flux.failed == []


def check_shares(stand: Stand) -> set[tuple[int, ...]]:
    """That each set of routes drew by its weights, where enough was drawn; the weights that were looked at."""
    looked_at = set()
    for routes, weights in stand.flux.weights.items():
        drawn = {backend: n for (name, backend), n in stand.callers.answered.items() if name == routes}
        total = sum(drawn.values())
        assert drawn.keys() <= weights.keys(), f"by {weights}: {drawn}"
        if total < ENOUGH:
            continue
        looked_at.add(tuple(sorted(weights.values())))
        for backend, weight in weights.items():
            share = weight / sum(weights.values())
            bound = 5 * math.sqrt(share * (1 - share) / total)
            assert abs(drawn.get(backend, 0) / total - share) <= bound, f"by {weights}: {drawn}"
    return looked_at


def test_a_dedicated_canary_is_promoted_and_one_that_fails_is_taken_back(stand: Stand) -> None:
    driver, callers = stand.driver, stand.callers
    driver.put_policy(POLICY.model_copy(update={"rollout": RolloutPolicy(watch_s=0)}))
    rolled_out(stand, 1, classifier(c=1.0))
    eventually(stand.servers[SHARED].ready, what="the shared pods are ready")
    for name in (BLUE, GREEN):
        idle = stand.servers[name].http
        assert (idle.get("/health").status_code, idle.get("/ready").status_code) == (200, 503)
    driver.put_policy(POLICY)
    with running([callers.ask] * CALLERS):
        carried_out(stand, {SHARED: 1})

        second = rolled_out(stand, 2, classifier(c=2.0))

        assert second["state"] == "promoted", second["reason"]
        carried_out(stand, {BLUE: 10_000})
        assert callers.failed == []
        assert callers.versions == {(SHARED, "1"), (BLUE, "2")}
        assert check_shares(stand) >= {(2_000, 8_000), (5_000, 5_000), (10_000,)}

        third = rolled_out(stand, 3, erring(classifier(c=3.0)))

        assert third["state"] == "rolled_back", third["reason"]
        carried_out(stand, {BLUE: 10_000})
    assert driver.get(f"endpoints/{MODEL}")["stable"] == 2
    assert callers.failed, "the third was never asked"
    assert {(backend, is_large) for _, backend, is_large, _ in callers.failed} == {(GREEN, True)}
    last = list(stand.flux.weights)[-1]
    assert stand.flux.weights[last] == {BLUE: 10_000}
    assert [failure for failure in callers.failed if failure[0] == last] == []
    assert callers.versions == {(SHARED, "1"), (BLUE, "2"), (GREEN, "3")}
    check_shares(stand)
    assert driver.get("audit/verify")["problems"] == []


def test_who_names_a_version_gets_it_while_the_gateway_draws_for_others(stand: Stand) -> None:
    driver = stand.driver
    driver.put_policy(POLICY.model_copy(update={"rollout": RolloutPolicy(watch_s=0)}))
    rolled_out(stand, 1, classifier(c=1.0))
    held = (Stage(weight_bp=2_000, duration_s=3_000),)
    fields = POLICY.rollout.model_dump() | {"stages": held, "max_stage_s": 3_000}
    driver.put_policy(POLICY.model_copy(update={"rollout": RolloutPolicy.model_validate(fields)}))
    with running([stand.callers.ask]):
        driver.drop("2.zip", bundle(classifier(c=2.0)))
        carried_out(stand, {SHARED: 8_000, BLUE: 2_000})
    with httpx.Client(base_url=stand.callers.url, timeout=30) as client:
        for version, backend in (("1", SHARED), ("2", BLUE)):
            headers = {ENDPOINT_HEADER: MODEL, VERSION_HEADER: version}
            for _ in range(100):
                answer = client.post("/predict", json=_asked(iris()[0][:1].tolist()), headers=headers)
                assert (answer.status_code, answer.headers[VERSION_HEADER]) == (200, version), answer.text
                assert answer.headers["x-backend"] == backend
            told = client.get(f"/v2/models/{MODEL}/versions/{version}/ready")
            assert (told.status_code, told.headers["x-backend"]) == (200, backend)
        elsewhere = stand.servers[SHARED].http.get(f"/v2/models/{MODEL}/versions/2")
        assert elsewhere.status_code == httpx.codes.NOT_FOUND
        assert VERSION_HEADER in elsewhere.text
    assert stand.callers.failed == []
