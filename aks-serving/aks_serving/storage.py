"""Azure Blob Storage behind the port (aks_serving.ports.Storage): what is stored where, and what its errors mean.

What does not exist is the caller's to handle, everything else is UnavailableError. Retries are the callers'.
"""

import time
from collections.abc import Callable, Iterator

from aks_serving.blobs import NOT_FOUND, NOT_MODIFIED, Account, Blobs, RefusedError, bearer, checked_url
from aks_serving.ports import StoredPlan
from aks_serving.settings import Settings
from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import EndpointName, endpoint_name
from shared.routing.plan import artifact_blob_name, plan_blob_name

_ROUTES, _ARTIFACTS, _TELEMETRY = "routes", "artifacts", "telemetry"
_MAX_PLAN_BYTES = 1024 * 1024
_SCOPE = "https://storage.azure.com/.default"
_RENEW_S = 300.0


def open_storage(settings: Settings) -> "AzureStorage":
    """Storage as the settings say; nothing is asked of it yet. Raises InvalidInputError for a connection string or URL
    that is none.
    """
    if settings.storage_connection is not None:
        try:
            return AzureStorage(Blobs(Account.from_connection_string(settings.storage_connection)))
        except InvalidInputError as error:
            raise InvalidInputError(f"SLIPWAY_STORAGE_CONNECTION is not a connection string: {error}") from error
    try:
        url = checked_url(settings.blob_url or "")
    except InvalidInputError as error:
        raise InvalidInputError(f"SLIPWAY_BLOB_URL is not a storage account's URL: {error}") from error
    if url.scheme != "https":
        raise InvalidInputError("SLIPWAY_BLOB_URL begins with http: a token goes over https alone")
    return AzureStorage(Blobs(Account(url=url, sign=bearer(_managed_identity()))))


class AzureStorage:
    """See aks_serving.ports.Storage."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def plan_etags(self) -> dict[EndpointName, str]:
        try:
            found = self._blobs.etags(_ROUTES)
        except RefusedError as error:
            raise _unavailable(error) from error
        etags = {}
        for name, etag in found.items():
            try:
                etags[endpoint_name(name.removesuffix(".json"))] = etag
            except InvalidInputError:
                continue  # no endpoint can have this name, so it is no plan of ours
        return etags

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        try:
            # Cut where it is far too long for a plan: what is left does not parse, and is refused as torn.
            data, etag = self._blobs.read(
                _ROUTES, plan_blob_name(endpoint), unless_etag=unless_etag, max_bytes=_MAX_PLAN_BYTES
            )
        except RefusedError as error:
            if error.status == NOT_MODIFIED or _is_missing(error):
                return None
            raise _unavailable(error) from error
        return StoredPlan(data=data, etag=etag)

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        size_bytes = 0
        try:
            for chunk in self._blobs.chunks(_ARTIFACTS, artifact_blob_name(digest)):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise InvalidInputError(f"artifact {digest} is larger than the {max_bytes} bytes it may have")
                yield chunk
        except RefusedError as error:
            if _is_missing(error):
                raise NotFoundError("the blob") from error
            raise _unavailable(error) from error

    def keep_window(self, name: str, data: bytes) -> None:
        try:
            self._blobs.create(_TELEMETRY, name, data)
        except RefusedError as error:
            raise _unavailable(error) from error


def _is_missing(error: RefusedError) -> bool:
    """Whether the blob is not there; a container that is not there may come yet."""
    return error.status == NOT_FOUND and error.code != "ContainerNotFound"


def _unavailable(error: RefusedError) -> UnavailableError:
    return UnavailableError("blob storage", str(error))


def _managed_identity() -> Callable[[], str]:
    """Gives the token of the identity that this process runs under. Raises UnavailableError where there is none."""
    from azure.core.exceptions import AzureError  # noqa: PLC0415 - heavy: only where identities are used
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - heavy: only where identities are used

    credential = DefaultAzureCredential()
    held, expires_s = "", 0.0

    def token() -> str:
        nonlocal held, expires_s
        if time.time() >= expires_s - _RENEW_S:
            try:
                found = credential.get_token(_SCOPE)
            except AzureError as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                raise UnavailableError("the managed identity", reason) from error
            held, expires_s = found.token, float(found.expires_on)
        return held

    return token
