"""The HTTP edge: every error of the domain has a status, one that nobody gave a status too."""

import json
from typing import Any

import azure.functions as func
import pytest

from functions import _services
from functions._http import answering, status_of
from shared.approvals import links
from shared.core import errors
from shared.core.errors import SlipwayError


class UnknownError(SlipwayError):
    """One that the table of statuses does not hold."""


def kinds(kind: type[SlipwayError] = SlipwayError) -> set[type[SlipwayError]]:
    """Every class of error that is loaded here."""
    return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))


def test_every_error_of_the_domain_has_a_status() -> None:
    found = {kind: status_of(kind) for kind in kinds()}
    assert all(400 <= status < 600 and code for status, code in found.values())
    # Those of other modules are told of where they occur, and are a fault here.
    edge = {errors.__name__, _services.__name__}
    told = [code for kind, (_, code) in found.items() if kind.__module__ in edge and kind is not SlipwayError]
    assert len(told) > 6
    assert "failed" not in told
    assert found[UnknownError] == (500, "failed")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.AlreadyExistsError("it"), 409, "conflict"),
        (errors.IntegrityError("other bytes"), 500, "integrity"),
        (UnknownError("a sentence"), 500, "failed"),
        (links.LinkExpiredError("late"), 500, "failed"),
    ],
)
def test_an_error_is_answered_with_its_status_and_sentence(error: SlipwayError, status: int, code: str) -> None:
    def fails(_: func.HttpRequest) -> dict[str, Any]:
        raise error

    answer = answering(fails)(func.HttpRequest(method="GET", url="/api/x", body=b""))
    assert answer.status_code == status
    assert json.loads(answer.get_body())["error"] == {"code": code, "message": str(error)}
