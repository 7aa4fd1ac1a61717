"""Azure Blob Storage behind the port: the only module that knows the storage library, obstore (docs/adr/0012).

Its errors are translated by one table (`_translated`): what does not exist is the caller's to handle, everything else
is UnavailableError. Retries are the callers': each call makes one attempt with short time-outs. No error tells a URL's
query, which may hold a signature.

Must be opened in the process that uses it: the library's threads do not survive a fork.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError
from obstore.store import AzureStore

from aks_serving.ports import StoredPlan
from aks_serving.settings import Settings
from aks_serving.storage_access import access
from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import EndpointName, endpoint_name
from shared.routing.plan import artifact_blob_name, plan_blob_name

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig

_ROUTES, _ARTIFACTS, _TELEMETRY = "routes", "artifacts", "telemetry"
_MAX_PLAN_BYTES = 1024 * 1024
_CONNECT_S, _READ_S = 3.0, 20.0
_WHOLE_S = 24 * 3600.0
"""An artifact may take as long as its bytes keep coming: the library cannot be told of no time at all."""
_ONE_ATTEMPT: "RetryConfig" = {"max_retries": 0}
_CHUNK_BYTES = 4 * 1024 * 1024
_CODE = re.compile(r"<Code>(\w+)</Code>")
_QUERY = re.compile(r"\?\S*")


def open_storage(settings: Settings, *, read_s: float = _READ_S) -> "AzureStorage":
    """Connect as the settings say. Raises InvalidInputError for a connection string or URL that is none.

    `read_s` is how long storage may send nothing in the midst of a call.
    """
    found = access(settings)
    options: ClientConfig = {
        "allow_http": found.allow_http,
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "read_timeout": timedelta(seconds=read_s),
        "timeout": timedelta(seconds=_WHOLE_S),
    }
    try:
        routes, artifacts, telemetry = (
            AzureStore(container, config=found.config, client_options=options, retry_config=_ONE_ATTEMPT)
            for container in (_ROUTES, _ARTIFACTS, _TELEMETRY)
        )
    except BaseError as error:
        setting = "SLIPWAY_BLOB_URL" if settings.storage_connection is None else "SLIPWAY_STORAGE_CONNECTION"
        raise InvalidInputError(f"{setting} cannot be used: {_sentence(error)}") from error
    return AzureStorage(routes=routes, artifacts=artifacts, telemetry=telemetry)


class AzureStorage:
    """See aks_serving.ports.Storage."""

    def __init__(self, *, routes: AzureStore, artifacts: AzureStore, telemetry: AzureStore) -> None:
        self._routes = routes
        self._artifacts = artifacts
        self._telemetry = telemetry

    def plan_etags(self) -> dict[EndpointName, str]:
        with _translated():
            # By delimiter, as no plan's name has one: the library fails over names beyond one that it cannot hold.
            blobs = obstore.list_with_delimiter(self._routes)["objects"]
        etags = {}
        for blob in blobs:
            try:
                etags[endpoint_name(blob["path"].removesuffix(".json"))] = _etag(blob["e_tag"])
            except InvalidInputError:
                continue  # no endpoint can have this name, so it is no plan of ours
        return etags

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        options: GetOptions = {} if unless_etag is None else {"if_none_match": f'"{unless_etag}"'}
        try:
            with _translated():
                found = obstore.get(self._routes, plan_blob_name(endpoint), options=options)
                data = b""
                for chunk in found.stream(min_chunk_size=_MAX_PLAN_BYTES):
                    data += chunk
                    if len(data) >= _MAX_PLAN_BYTES:
                        break  # far too long for a plan: what is there does not parse, and is refused as torn
        except (_NotModifiedError, NotFoundError):
            return None
        return StoredPlan(data=data[:_MAX_PLAN_BYTES], etag=_etag(found.meta["e_tag"]))

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        size_bytes = 0
        with _translated():
            for chunk in obstore.get(self._artifacts, artifact_blob_name(digest)).stream(min_chunk_size=_CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise InvalidInputError(f"artifact {digest} is larger than the {max_bytes} bytes it may have")
                yield bytes(chunk)

    def keep_window(self, name: str, data: bytes) -> None:
        try:
            with _translated():
                obstore.put(self._telemetry, name, data, mode="create", use_multipart=False)
        except _ExistsError:
            return


class _NotModifiedError(Exception):
    """The blob still has the ETag that the request named."""


class _ExistsError(Exception):
    """A blob of that name is there already."""


@contextmanager
def _translated() -> Iterator[None]:
    """No error keeps what caused it: the library's tell whole requests, in their second paragraph."""
    try:
        yield
    except NotModifiedError:
        raise _NotModifiedError from None
    except (AlreadyExistsError, PreconditionError) as error:
        if _code(error) == "BlobAlreadyExists":
            raise _ExistsError from None
        raise UnavailableError("blob storage", _sentence(error)) from None
    except FileNotFoundError as error:
        if _code(error) == "ContainerNotFound":
            raise UnavailableError("blob storage", "the container does not exist") from None
        raise NotFoundError("the blob", hint="") from None
    except (BaseError, OSError) as error:
        raise UnavailableError("blob storage", _sentence(error)) from None


def _etag(given: str | None) -> str:
    return (given or "").strip('"')


def _code(error: Exception) -> str:
    """Azure's own code for what went wrong, or nothing where the answer had none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _sentence(error: Exception) -> str:
    """Azure's code, where it gave one, and the library's sentence, in one line."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    code = _code(error)
    return (f"{code}: " if code else "") + _QUERY.sub("", line.partition(": <?xml")[0])[:300]
