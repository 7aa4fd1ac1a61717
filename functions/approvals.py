"""Approval links: made with the app's key; opened and answered by whoever holds one, without a key."""

import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import azure.functions as func
from pydantic import BaseModel, ConfigDict, StringConstraints

from functions._http import answering, body_of
from functions._requests import Reason
from functions._services import services
from shared.approvals.links import MAX_APPROVER, LinkAlteredError, LinkExpiredError
from shared.approvals.page import answered_html, asked_html, message_html
from shared.core.errors import (
    ChangedMeanwhileError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SlipwayError,
    UnavailableError,
)
from shared.core.ids import endpoint_name
from shared.rollout.approvers import LinkUsedError, OtherStageError

bp = func.Blueprint()

_log = logging.getLogger(__name__)

_MAX_FORM_BYTES = 10_000
_MAX_REASON = 500
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
"""The token in the address is all that it takes to answer: it must go nowhere else."""

_SAID: tuple[tuple[type[SlipwayError], int, str], ...] = (
    (LinkAlteredError, 403, "This link is not good"),
    (LinkExpiredError, 410, "This link has expired"),
    (LinkUsedError, 409, "This link was used"),
    (OtherStageError, 412, "Nothing waits for this answer any more"),
    (NotFoundError, 404, "This rollout is not the latest any more"),
    (ChangedMeanwhileError, 503, "Not carried out: try again"),
    (ConflictError, 422, "This cannot be done now"),
    (InvalidInputError, 400, "Not understood"),
    (UnavailableError, 503, "Not carried out: try again"),
)

type Page = Callable[[func.HttpRequest], str]


class LinkBody(BaseModel):
    """The body of a call for a link. `approver` is who may answer; `by` is who asks for it, as the caller claims."""

    model_config = ConfigDict(extra="forbid")

    approver: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_APPROVER)]
    by: Reason = "api"


def paged(page: Page) -> Callable[[func.HttpRequest], func.HttpResponse]:
    """Make a function's page a response, and its errors pages too."""

    @functools.wraps(page)
    def handle(req: func.HttpRequest) -> func.HttpResponse:
        try:
            return _html(page(req), 200)
        except SlipwayError as error:
            found = next(((status, said) for kind, status, said in _SAID if isinstance(error, kind)), None)
            if found:
                return _html(message_html(found[1], f"{error}."), found[0])
            _log.exception("an approval link failed")
        except Exception:  # noqa: BLE001 - whatever it is, the reader gets a page without its details
            _log.exception("an approval link failed")
        return _html(message_html("This failed", "The functions app's log has the details."), 500)

    # The worker resolves a wrapped function's own annotations, which differ.
    handle.__annotations__ = {"req": func.HttpRequest, "return": func.HttpResponse}
    return handle


@bp.function_name("make_approval_link")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}/approval-links", methods=["POST"])
@answering
def make_approval_link(req: func.HttpRequest) -> dict[str, Any]:
    """Make a link with which one person answers for the stage that waits."""
    body = body_of(req, LinkBody)
    made = services().approvals.make(
        endpoint_name(req.route_params["endpoint"]),
        req.route_params["rollout_id"],
        approver=body.approver,
        by=body.by,
    )
    path = f"/api/approvals/{made.token}"
    asked = urlsplit(req.url)
    return {**made.link.model_dump(mode="json"), "path": path, "url": f"{asked.scheme}://{asked.netloc}{path}"}


@bp.function_name("show_approval")
@bp.route("approvals/{token}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@paged
def show_approval(req: func.HttpRequest) -> str:
    """What a link asks. Changes nothing."""
    return asked_html(services().approvals.asked(req.route_params["token"]))


@bp.function_name("answer_approval")
@bp.route("approvals/{token}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@paged
def answer_approval(req: func.HttpRequest) -> str:
    """Carry an answer out, once."""
    approve, reason = _form(req)
    asked = services().approvals.asked(req.route_params["token"])
    rollout = services().approvals.answer(req.route_params["token"], approve=approve, reason=reason)
    return answered_html(rollout, asked.link.endpoint)


def _form(req: func.HttpRequest) -> tuple[bool, str]:
    """The form's decision and reason. Raises InvalidInputError."""
    data = req.get_body()
    if len(data) > _MAX_FORM_BYTES:
        raise InvalidInputError(f"the answer has {len(data)} bytes: at most {_MAX_FORM_BYTES} are taken")
    try:
        fields = parse_qs(data.decode(), strict_parsing=True, keep_blank_values=True, max_num_fields=10)
    except ValueError as error:
        raise InvalidInputError("the answer is no form: open the link again, and use its buttons") from error
    decision, reason = (" ".join(fields.get(name, [""])) for name in ("decision", "reason"))
    if decision not in {"approve", "reject"}:
        raise InvalidInputError("the answer is neither approve nor reject: open the link again, and use its buttons")
    if len(reason) > _MAX_REASON:
        raise InvalidInputError(f"the reason has {len(reason)} characters: at most {_MAX_REASON} are taken")
    return decision == "approve", reason


def _html(page: str, status: int) -> func.HttpResponse:
    return func.HttpResponse(page, status_code=status, mimetype="text/html", charset="utf-8", headers=_HEADERS)
