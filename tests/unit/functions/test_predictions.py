"""The call for a prediction's lineage, in this process: what becomes of ids that lead nowhere."""

import pytest

from functions._services import Services
from shared.rollout.endpoint import Endpoint
from shared.store.ports import Container
from tests.unit.functions.conftest import Call


@pytest.fixture(autouse=True)
def _an_endpoint(app: Services) -> None:
    app.documents.create(Container.ENDPOINTS, Endpoint(endpoint="m", generation=3).to_body())


@pytest.mark.parametrize(
    ("prediction_id", "status", "code", "message"),
    [
        ("nonsense", 400, "invalid_input", "is not a prediction id"),
        ("m.1.1.sa.k3qx7m2p.fffffffffff.1", 400, "invalid_input", "is not a prediction id"),
        ("nothing.1.1.sa.k3qx7m2p.6740a1f2.1", 404, "not_found", "endpoint nothing does not exist"),
        (
            "m.1.4.sa.k3qx7m2p.6740a1f2.1",
            404,
            "not_found",
            "generation 4 of endpoint m does not exist: the latest is 3",
        ),
        ("m.1.3.sa.k3qx7m2p.6740a1f2.1", 404, "not_found", "version 1 of model 'm' does not exist"),
    ],
)
def test_an_id_that_leads_nowhere_is_an_error_that_says_why(
    call: Call, prediction_id: str, status: int, code: str, message: str
) -> None:
    found, body = call("get_prediction", prediction_id=prediction_id)
    assert (found, body["error"]["code"]) == (status, code)
    assert message in body["error"]["message"]
