"""Hand-written fakes of the server's edges."""

import hashlib
import threading
from collections.abc import Iterator

from aks_serving.ports import StoredPlan

from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import EndpointName
from shared.routing.plan import RoutePlan
from shared.telemetry.features import FeatureWindow
from shared.telemetry.window import Window

_FEATURES = "/features/"
_CHUNK_BYTES = 1024 * 1024


class MemoryStorage:
    """Storage in memory, which can be down, and can hold an artifact back, or fail to give it a number of times."""

    def __init__(self) -> None:
        self.plans: dict[EndpointName, bytes] = {}
        self.artifacts: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.down = False
        self.artifact_reads = 0
        self.plan_reads = 0
        self.held: dict[str, threading.Event] = {}
        self.outages: dict[str, int] = {}
        self.breaking: set[str] = set()
        """Artifacts of which only the first half arrives."""

    def put(self, *files: bytes) -> None:
        """Store artifacts under their digests."""
        for data in files:
            self.artifacts[hashlib.sha256(data).hexdigest()] = data

    def publish(self, plan: RoutePlan) -> None:
        self.plans[EndpointName(plan.endpoint)] = plan.model_dump_json().encode()

    def windows(self) -> list[Window]:
        """Every stored window, in the order in which they were stored."""
        return [Window.model_validate_json(data) for name, data in list(self.blobs.items()) if _FEATURES not in name]

    def feature_windows(self) -> list[FeatureWindow]:
        """Every stored feature window, likewise."""
        blobs = list(self.blobs.items())
        return [FeatureWindow.model_validate_json(data) for name, data in blobs if _FEATURES in name]

    def plan_etags(self) -> dict[EndpointName, str]:
        self._answer()
        return {name: _etag(data) for name, data in self.plans.items()}

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        self._answer()
        data = self.plans.get(endpoint)
        if data is None or _etag(data) == unless_etag:
            return None
        self.plan_reads += 1
        return StoredPlan(data=data, etag=_etag(data))

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        self._answer()
        self.artifact_reads += 1
        if self.outages.get(digest, 0) > 0:
            self.outages[digest] -= 1
            raise UnavailableError("blob storage", "it is down for this artifact, says the test")
        if digest in self.held:
            assert self.held[digest].wait(30)
        data = self.artifacts.get(digest)
        if data is None:
            raise NotFoundError(f"artifact {digest}")
        if len(data) > max_bytes:
            raise InvalidInputError(f"artifact {digest} is larger than the {max_bytes} bytes it may have")
        half = len(data) // 2
        yield from _chunks(data, 0, half)
        if digest in self.breaking:
            raise UnavailableError("blob storage", "the connection broke, says the test")
        yield from _chunks(data, half, len(data))

    def keep_window(self, name: str, data: bytes) -> None:
        self._answer()
        self.blobs.setdefault(name, data)

    def _answer(self) -> None:
        if self.down:
            raise UnavailableError("blob storage", "it is down, says the test")


def _chunks(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    for place in range(start, stop, _CHUNK_BYTES):
        yield data[place : min(place + _CHUNK_BYTES, stop)]


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
