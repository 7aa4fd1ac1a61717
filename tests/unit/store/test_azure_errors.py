"""What the SDK's errors become."""

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from shared.core.errors import InvalidInputError, SlipwayError, UnavailableError
from shared.store.azure_errors import azure_errors, translated
from shared.store.blobs import _met_another_state


def answered(status: int) -> HttpResponseError:
    error = HttpResponseError(message="the service's words\nRequestId:1")
    error.status_code = status
    return error


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 410, 412, 429, 449, 500, 502, 503, 504, 507])
def test_what_may_pass_is_unavailable(status: int) -> None:
    error = translated("blob storage", answered(status))
    assert isinstance(error, UnavailableError)
    assert "blob storage is unavailable: " in str(error)
    assert "the service's words" in str(error)
    assert "RequestId" not in str(error)


@pytest.mark.parametrize("status", [400, 411, 413, 414])
def test_what_will_never_pass_is_invalid_input(status: int) -> None:
    error = translated("blob storage", answered(status))
    assert isinstance(error, InvalidInputError)
    assert str(error) == "blob storage refused the request as malformed: the service's words"


@pytest.mark.parametrize("kind", [AzureError, ServiceRequestError, ServiceResponseError, ClientAuthenticationError])
def test_no_answer_is_unavailable(kind: type[AzureError]) -> None:
    with pytest.raises(UnavailableError, match="queue storage is unavailable: no route") as caught:  # noqa: SIM117
        with azure_errors("queue storage"):
            raise kind("no route")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(("status", "words"), [(401, "credential"), (403, "data role"), (404, "does not exist")])
def test_a_refusal_says_what_to_do(status: int, words: str) -> None:
    assert words in str(translated("Cosmos DB", answered(status)))


def test_an_error_without_words_has_its_name() -> None:
    assert str(translated("Cosmos DB", AzureError(""))) == "Cosmos DB is unavailable: AzureError"


def test_blocks_that_another_commit_discarded_mean_another_state() -> None:
    # Azure may check the list of blocks before the condition; Azurite does not.
    error = answered(400)
    assert not _met_another_state(error)
    error.error_code = "InvalidBlockList"  # type: ignore[attr-defined]  # as the storage SDK sets it
    assert _met_another_state(error)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), azure_errors("blob storage"):
        raise KeyError("x")
    with pytest.raises(SlipwayError, match="ours"), azure_errors("blob storage"):
        raise SlipwayError("ours")
