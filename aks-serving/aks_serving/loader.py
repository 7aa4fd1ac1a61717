"""From a route of the plan to a model that may answer: verify the signature, fetch, load, replay, probe.

What each file is, is settled by its digest before the runtime sees it (aks_serving.artifacts); who made it, by its
signature before any of it is fetched (aks_serving.signatures). Blocking; runs on the loader's threads, beside the
serving ones.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from aks_serving.artifacts import Artifacts
from aks_serving.batches import LoadedModel, layout_of
from aks_serving.cache import DiskCache
from aks_serving.errors import LoadError
from aks_serving.golden import replay
from aks_serving.memory import Room, give_back, usage
from aks_serving.model import Model, Signature
from aks_serving.ports import Storage
from aks_serving.probe import rows_are_independent, sample_rows
from aks_serving.profiles import MAX_PROFILE_BYTES, read_profile
from aks_serving.signatures import check_signature
from aks_serving.tensors import Feeds
from aks_serving.warming import run_times
from shared.core.errors import InvalidInputError, UnavailableError
from shared.routing.plan import Route
from shared.signing.bundle import MAX_SIGNATURE_BYTES
from shared.telemetry.profile import Profile

log = logging.getLogger(__name__)

_MAX_GOLDEN_BYTES = 64 * 1024 * 1024
_LOOK_S = 0.2


class Loader:
    """Loads routes."""

    def __init__(
        self, storage: Storage, cache: DiskCache, *, pinned_keys: tuple[str, ...] = (), room: Room | None = None
    ) -> None:
        """`pinned_keys` are public keys in PEM: where there are any, they alone are trusted, and all must be signed.
        `room` says what may be loaded; None: everything.
        """
        self._artifacts = Artifacts(storage, cache)
        self._pinned_keys = pinned_keys
        self._room = room or Room(None)
        self._turn = threading.Lock()
        """Held while a model is made, so that what the process grows by is that model's, but for the few MiB that other
        versions' downloads take meanwhile. Replaced where that hangs.
        """
        self.making: Route | None = None
        """The route whose model is being made: it is all there, and is loaded, replayed, probed and warmed."""

    def load(self, endpoint: str, route: Route) -> LoadedModel:
        """Raises LoadError, which trying again would not cure, or UnavailableError, which it may."""
        signed_by = check_signature(route, pinned_keys=self._pinned_keys, fetch=self._signature)
        self._room.check(_needed_bytes(route), _named(route))  # it would take the disk's room for nothing
        golden_data = None
        if route.golden_digest is not None:
            golden_data = self._artifacts.read(route.golden_digest, max_bytes=_MAX_GOLDEN_BYTES, what="golden rows")
        self._artifacts.fetch(route)
        turn = self._taken_turn()
        try:
            self.making = route
            loaded = self._made(route, golden_data)
        finally:
            if turn is self._turn:
                self.making = None
            turn.release()
        loaded = replace(loaded, profile=self._profile_now(endpoint, route, loaded.model.signature))
        log.info(
            "endpoint %s: version %d is loaded "
            "(%d bytes, %d external files, signed by %s, batched: %s, %d bytes of memory)",
            endpoint,
            route.version,
            route.size_bytes,
            len(route.external),
            signed_by or "nobody",
            loaded.batchable,
            loaded.memory_bytes,
        )
        return loaded

    def leave_behind(self) -> None:
        """Leave the thread to what hangs on it: the next version has its turn."""
        self._turn = threading.Lock()
        self.making = None

    def _taken_turn(self) -> threading.Lock:
        turn = self._turn
        while not turn.acquire(timeout=_LOOK_S):
            turn = self._turn
        return turn

    def _made(self, route: Route, golden_data: bytes | None) -> LoadedModel:
        give_back()  # what the fetch let go of
        self._room.make(_needed_bytes(route), _named(route))
        before = usage()
        model = self._model(route)
        golden: Sequence[Feeds] = replay(model, golden_data) if golden_data is not None else ()
        rows = sample_rows(model.signature, golden)  # once: to make up those of a wide model takes a while
        batchable = rows_are_independent(model, rows)
        times = run_times(model, rows, batchable=batchable)
        give_back()
        after = usage()
        self._room.make(0, _named(route))
        return LoadedModel(
            model=model,
            batchable=batchable,
            layout=layout_of(model.signature) if batchable else None,
            allow_nan=route.allow_nan,
            run_times_s=times,
            memory_bytes=max(0, after.private_bytes - before.private_bytes),
            sample={name: array.copy() for name, array in rows[0].items()},
        )

    def _model(self, route: Route) -> Model:
        with (
            self._artifacts.model(route.artifact_digest, max_bytes=route.size_bytes) as data,
            self._artifacts.external_data(route.external) as external,
        ):
            return Model(version=route.version, digest=route.artifact_digest, data=data, external=external)

    def profile(self, endpoint: str, route: Route, signature: Signature) -> Profile | None:
        """The reference profile of a version; None, which the log explains, where it has none that can be used. Raises
        UnavailableError.
        """
        if route.profile_digest is None:
            return None
        try:
            data = self._artifacts.read(route.profile_digest, max_bytes=MAX_PROFILE_BYTES, what="reference profile")
            return read_profile(data, route.profile_digest, signature)
        except (LoadError, InvalidInputError) as error:
            log.error(  # noqa: TRY400
                "endpoint %s: the features of version %d are not counted: %s", endpoint, route.version, error
            )
            return None

    def _profile_now(self, endpoint: str, route: Route, signature: Signature) -> Profile | None:
        """As `profile`: that it cannot be had now keeps no version from serving."""
        try:
            return self.profile(endpoint, route, signature)
        except UnavailableError as error:
            log.warning(
                "endpoint %s: the features of version %d are not counted yet: %s", endpoint, route.version, error
            )
            return None

    def _signature(self, digest: str) -> bytes:
        return self._artifacts.read(digest, max_bytes=MAX_SIGNATURE_BYTES, what="signature")


def _needed_bytes(route: Route) -> int:
    """The file's bytes, and the tensors that the runtime makes of them; of external data what is mapped."""
    return 2 * route.size_bytes + sum(file.size_bytes for file in route.external)


def _named(route: Route) -> str:
    return f"version {route.version}"


class LoadWatch:
    """Sees a model that hangs while it is made. Time is counted in looks: a machine that slept convicts none."""

    def __init__(self, loader: Loader, *, hang_s: float, found: Callable[[Route, float], None]) -> None:
        """`found` is called with what hangs, once the loader left it behind, and for how long it was made."""
        self.tick_s = min(1.0, hang_s / 10)
        self._loader = loader
        self._hang_s = hang_s
        self._found = found
        self._seen: Route | None = None
        self._looks = 0

    async def look(self) -> None:
        """Look once; to be called every `tick_s`."""
        making = self._loader.making
        if making is None or making is not self._seen:
            self._seen, self._looks = making, 0
            return
        self._looks += 1
        took_s = self._looks * self.tick_s
        if took_s >= self._hang_s:
            self._seen = None
            self._loader.leave_behind()
            self._found(making, took_s)
