"""The admin API: health and audit. docs/api.md describes the whole of it."""

import logging
from typing import Any

import azure.functions as func

from functions._http import answering, listing
from functions._services import MisconfiguredError, services
from shared.core.errors import SlipwayError, UnavailableError
from shared.registration.documents import NO_MODEL
from shared.store.ports import BlobContainer, Container

bp = func.Blueprint()

_SEE_LOG = "the functions app's log has the details"

_log = logging.getLogger(__name__)


@bp.function_name("health")
@bp.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@answering
def health(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - the binding gives it
    """Whether documents and blobs can be reached. Anybody may ask, so what is wrong stands in the log alone."""
    try:
        services().documents.get(Container.MODELS, NO_MODEL, "health")
        services().blobs.info(BlobContainer.ROUTES, "health")
    except MisconfiguredError:
        raise MisconfiguredError(f"a setting of the functions app is absent or wrong: {_SEE_LOG}") from None
    except SlipwayError as error:
        _log.warning("not healthy: %s", error)
        raise UnavailableError("storage or the database", _SEE_LOG) from None
    return {"status": "ok"}


@bp.function_name("list_audit_events")
@bp.route("audit/events", methods=["GET"])
@answering
def list_audit_events(req: func.HttpRequest) -> dict[str, Any]:
    """The events of the stream named by `?stream=`."""
    events = services().audit.events(req.params.get("stream", ""))
    return listing(event.model_dump(mode="json") for event in events)


@bp.function_name("verify_audit")
@bp.route("audit/verify", methods=["GET"])
@answering
def verify_audit(req: func.HttpRequest) -> dict[str, Any]:
    """Verify the stream named by `?stream=`, or all."""
    return services().audit.verify(req.params.get("stream")).model_dump(mode="json")
