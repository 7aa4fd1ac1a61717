"""From a route of the plan to a model that may answer: verify the signature, fetch, load, replay, probe.

What each file is, is settled by its digest before the runtime sees it (aks_serving.artifacts); who made it, by its
signature before any of it is fetched (aks_serving.signatures). Blocking; runs on the loader's threads, beside the
serving ones.
"""

import ctypes
import logging
from collections.abc import Sequence

from aks_serving.artifacts import Artifacts
from aks_serving.batches import LoadedModel, layout_of
from aks_serving.cache import DiskCache
from aks_serving.golden import replay
from aks_serving.model import Model
from aks_serving.ports import Storage
from aks_serving.probe import rows_are_independent, sample_rows
from aks_serving.signatures import MAX_SIGNATURE_BYTES, check_signature
from aks_serving.tensors import Feeds
from aks_serving.warming import run_times
from shared.routing.plan import Route

log = logging.getLogger(__name__)

_MAX_GOLDEN_BYTES = 64 * 1024 * 1024


class Loader:
    """Loads routes."""

    def __init__(self, storage: Storage, cache: DiskCache, *, pinned_keys: tuple[str, ...] = ()) -> None:
        """`pinned_keys` are public keys in PEM: where there are any, they alone are trusted, and all must be signed."""
        self._artifacts = Artifacts(storage, cache)
        self._pinned_keys = pinned_keys

    def load(self, route: Route) -> LoadedModel:
        """Raises LoadError, which trying again would not cure, or UnavailableError, which it may."""
        signed_by = check_signature(route, pinned_keys=self._pinned_keys, fetch=self._signature)
        golden_data = None
        if route.golden_digest is not None:
            golden_data = self._artifacts.read(route.golden_digest, max_bytes=_MAX_GOLDEN_BYTES, what="golden rows")
        model = self._model(route)
        golden: Sequence[Feeds] = replay(model, golden_data) if golden_data is not None else ()
        batchable = rows_are_independent(model, golden)
        times = run_times(model, sample_rows(model.signature, golden), batchable=batchable)
        _give_back_memory()
        log.info(
            "version %d is loaded (%d bytes, %d external files, signed by %s, batched: %s)",
            route.version,
            route.size_bytes,
            len(route.external),
            signed_by or "nobody",
            batchable,
        )
        return LoadedModel(
            model=model,
            batchable=batchable,
            layout=layout_of(model.signature) if batchable else None,
            allow_nan=route.allow_nan,
            run_times_s=times,
        )

    def _model(self, route: Route) -> Model:
        # The runtime keeps the bytes as long as the session: they are counted where memory is predicted.
        data = self._artifacts.read(route.artifact_digest, max_bytes=route.size_bytes, what="model")
        with self._artifacts.external_data(route.external) as external:
            return Model(version=route.version, digest=route.artifact_digest, data=data, external=external)

    def _signature(self, digest: str) -> bytes:
        return self._artifacts.read(digest, max_bytes=MAX_SIGNATURE_BYTES, what="signature")


def _give_back_memory() -> None:
    """Return what building a session took and let go of: for tree ensembles twice what the session itself keeps."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
