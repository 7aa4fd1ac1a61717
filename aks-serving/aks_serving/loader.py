"""From a route of the plan to a model that may answer: fetch, verify, load, replay, probe.

The bytes that are hashed are the bytes that are loaded: they are read once into memory, and the session is made from
them, so that nothing can change in between. Blocking; runs on the loader's threads, beside the serving ones.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from aks_serving.cache import DiskCache
from aks_serving.errors import LoadError
from aks_serving.golden import replay
from aks_serving.model import Model
from aks_serving.ports import Storage
from aks_serving.probe import rows_are_independent
from aks_serving.tensors import Feeds
from shared.core.errors import InvalidInputError, NotFoundError
from shared.routing.plan import Route

log = logging.getLogger(__name__)

_MAX_GOLDEN_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that passed every check, and whether requests for it may be run together."""

    model: Model
    batchable: bool


class Loader:
    """Loads routes."""

    def __init__(self, storage: Storage, cache: DiskCache) -> None:
        self._storage = storage
        self._cache = cache

    def load(self, route: Route) -> LoadedModel:
        """Raises LoadError, which trying again would not cure, or UnavailableError, which it may."""
        data = self._fetch(route.artifact_digest, max_bytes=route.size_bytes, what="model")
        golden_data = None
        if route.golden_digest is not None:
            golden_data = self._fetch(route.golden_digest, max_bytes=_MAX_GOLDEN_BYTES, what="golden rows")
        model = Model(version=route.version, digest=route.artifact_digest, data=data)
        golden: Sequence[Feeds] = replay(model, golden_data) if golden_data is not None else ()
        batchable = rows_are_independent(model, golden)
        log.info("version %d is loaded (%d bytes, batched: %s)", route.version, len(data), batchable)
        return LoadedModel(model=model, batchable=batchable)

    def _fetch(self, digest: str, *, max_bytes: int, what: str) -> bytes:
        cached = self._cache.artifact(digest)
        if cached is not None:
            return cached
        try:
            data = self._storage.artifact(digest, max_bytes=max_bytes)
        except (NotFoundError, InvalidInputError) as error:
            raise LoadError(f"the {what} cannot be had: {error}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise LoadError(
                f"altered in storage: the SHA-256 of the {what} is {found}, "
                f"and the plan says {digest}; it is not loaded"
            )
        self._cache.keep_artifact(digest, data)
        return data
