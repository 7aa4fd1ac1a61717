"""A weighted route before two servers, carried out: shares, a header that names a version, a switch that fails nobody.

What is shown is the route as it is written and the server's own part, above all that it drains while the proxy has not
heard of it yet. That a Gateway carries the same route out alike is Gateway API's promise, not tried here.
"""

import copy
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import pytest

from local.processes import free_port
from tests.infra.k8s import Resource, overlay, settings, the
from tests.infra.k8s_nginx import Nginx, config, nginx_program
from tests.serving import models
from tests.serving.processes import Account, Server
from tests.support.waiting import eventually

BLUE, GREEN = "slipway-serving-blue", "slipway-serving-green"
_FACTORS = {BLUE: 1.0, GREEN: 2.0}


def routes(*, green: int) -> list[Resource]:
    """The route of the manifests, with a share of 100 for green, and green for whoever asks for it by a header."""
    made = copy.deepcopy(the(overlay("production"), "HTTPRoute", "slipway-serving"))
    (rule,) = made["spec"]["rules"]
    backend = rule["backendRefs"][0]
    header = {"type": "Exact", "name": "x-model-version", "value": "green"}
    named = [match | {"headers": [header]} for match in rule["matches"]]
    shares = [backend | {"name": BLUE, "weight": 100 - green}, backend | {"name": GREEN, "weight": green}]
    made["spec"]["rules"] = [
        rule | {"backendRefs": shares},
        {"matches": named, "backendRefs": [backend | {"name": GREEN, "weight": 1}]},
    ]
    return [made]


@dataclass(slots=True)
class Load:
    """Callers that ask without pause until they are told to stop; what they were answered."""

    url: str
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, name=f"caller {n}") for n in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for so many answers more."""
        already = self.answered.total()
        eventually(lambda: self.failed or self.answered.total() >= already + count, what=f"{count} answers more")

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", json={"features": [[1, 2]]})
                    backend = answer.headers["x-backend"]
                    right = answer.json()["predictions"] == [[_FACTORS[backend], 2 * _FACTORS[backend]]]
                    if answer.status_code == httpx.codes.OK and right:
                        self.answered[backend] += 1
                    else:
                        self.failed.append(f"{backend}: {answer.status_code} {answer.text}")
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.failed.append(repr(error))


@pytest.fixture
def servers(unused_accounts: Iterator[str], tmp_path: Path) -> Iterator[dict[str, Server]]:
    """Blue and green: each a server of its own, with a version of its own."""
    made: dict[str, Server] = {}
    drain_s = settings(overlay("production"))["SLIPWAY_DRAIN_S"]
    for number, (name, factor) in enumerate(_FACTORS.items(), 1):
        account = Account(next(unused_accounts))
        data = models.scaler(factor)
        account.put(data)
        account.publish(models.plan(1, models.route(number, data)))
        folder = tmp_path / name
        folder.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "SLIPWAY_STORAGE_CONNECTION": account.connection,
            "SLIPWAY_CACHE_DIR": str(folder / "cache"),
            "SLIPWAY_PORT": "0",
            "SLIPWAY_DRAIN_S": drain_s,
        }
        made[name] = Server(environment, folder / "log")
        account.close()
    for server in made.values():
        eventually(server.ready, what="both servers are ready")
    yield made
    for server in made.values():
        server.close()


@pytest.fixture
def program() -> str:
    return nginx_program()


@pytest.fixture
def nginx(program: str, servers: dict[str, Server], tmp_path: Path) -> Iterator[Nginx]:
    """A proxy before the servers, not started yet."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    addresses = {name: server.url.removeprefix("http://") for name, server in servers.items()}
    made = Nginx(program=program, folder=folder, port=free_port(), addresses=addresses)
    yield made
    made.stop()


@pytest.mark.long
def test_a_weighted_route_splits_names_and_switches_without_a_failed_request(
    nginx: Nginx, servers: dict[str, Server]
) -> None:
    nginx.start(routes(green=20))
    with Load(nginx.url) as load:
        load.more(3000)
        seen = copy.copy(load.answered)
        with httpx.Client(base_url=load.url, timeout=30) as client:
            named = Counter(
                client.post("/predict", json={"features": [[1, 2]]}, headers={"x-model-version": "green"}).json()[
                    "model_version"
                ]
                for _ in range(200)
            )
        # Blue is told to stop while it still has its share: the proxy hears of it only afterwards.
        servers[BLUE].process.terminate()
        eventually(lambda: not servers[BLUE].ready(), what="blue is not ready")
        not_ready = load.answered[BLUE]
        load.more(300)
        told_late = load.answered[BLUE] - not_ready
        nginx.follow(routes(green=100))
        code = servers[BLUE].process.wait(60)
        after = load.answered[BLUE]
        load.more(1000)

    share, total = seen[GREEN] / seen.total(), seen.total()
    assert load.failed == []
    assert abs(share - 0.2) < 5 * math.sqrt(0.2 * 0.8 / total), f"{share:.3f} of {total} to green"
    assert named == {2: 200}
    assert told_late > 0, "blue answered on while it was not ready"
    assert code == 0
    assert load.answered[BLUE] == after, "nothing goes to blue once it is gone"


def test_a_route_is_read_by_its_weights_and_headers_in_the_order_of_the_gateway_api() -> None:
    told = config(routes(green=20), {BLUE: "127.0.0.1:1", GREEN: "127.0.0.1:2"}, port=3, folder=Path("/nowhere"))
    patterns = [line.split('"')[1] for line in told.splitlines() if '"~^' in line]

    assert f" {{ 80.00% {BLUE}; * {GREEN}; }}" in told
    assert 'map "$request_method|$uri|$http_x_model_version" $backend {' in told
    assert patterns[-2:] == [r"~^[A-Z]+\\|/v2(/[^|]*)?\\|green$", r"~^[A-Z]+\\|/v2(/[^|]*)?\\|[^|]*$"]
    assert f"80.00% {BLUE}" not in config(routes(green=100), {}, port=3, folder=Path("/nowhere"))
