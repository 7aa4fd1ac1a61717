"""Cosmos DB out of reach: every call says so, and none lets a vendor's error out."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local.processes import free_port
from shared.core.errors import UnavailableError
from shared.store.cosmos import CosmosDocuments
from shared.store.ports import Container
from tests.emulators.cosmos import EMULATOR_KEY, cosmos_emulator

pytestmark = pytest.mark.cosmos
MODELS = Container.MODELS
BODY = {"id": "a", "model": "m"}


@pytest.fixture(scope="module")
def orphaned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CosmosDocuments]:
    """A store that was opened, and whose database then went away."""
    with cosmos_emulator(tmp_path_factory.mktemp("cosmos")) as emulator:
        store = CosmosDocuments(
            emulator.url, database="gone", credential=EMULATOR_KEY, certificates=emulator.certificates
        )
    with closing(store):
        yield store


@pytest.mark.parametrize(
    "call",
    [
        lambda documents: documents.get(MODELS, "m", "a"),
        lambda documents: documents.create(MODELS, BODY),
        lambda documents: documents.replace(MODELS, BODY, etag="x"),
        lambda documents: documents.query(MODELS, partition="m"),
        lambda documents: documents.query(MODELS),
    ],
    ids=["get", "create", "replace", "query", "query-all"],
)
def test_a_call_that_nobody_answers_is_unavailable(
    orphaned: CosmosDocuments, call: Callable[[CosmosDocuments], object]
) -> None:
    with pytest.raises(UnavailableError, match="Cosmos DB is unavailable: "):
        call(orphaned)


def test_opening_without_an_answer_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="Cosmos DB is unavailable: "):
        CosmosDocuments(f"https://127.0.0.1:{free_port()}/", database="gone", credential=EMULATOR_KEY)


def test_another_certificate_than_the_trusted_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with (
        cosmos_emulator(tmp_path / "one") as one,
        cosmos_emulator(tmp_path / "other") as other,
        pytest.raises(UnavailableError, match="certificate"),
    ):
        CosmosDocuments(one.url, database="x", credential=EMULATOR_KEY, certificates=other.certificates)
