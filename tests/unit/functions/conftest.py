"""Calls the app's HTTP functions in this process, over documents in SQLite and storage that does not answer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

from functions import (
    admin,
    admin_aliases,
    admin_models,
    admin_rollbacks,
    admin_rollouts,
    alerts,
    dead_letters,
    metrics,
    predictions,
    replays,
    watching,
)
from functions._services import Services, services

NOWHERE = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;QueueEndpoint=http://127.0.0.1:1/a"

type Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def call() -> Call:
    """Calls a function of the app by its name: a body, a query, and the route's parts."""
    app = func.FunctionApp()
    for module in (
        admin,
        admin_models,
        admin_aliases,
        admin_rollouts,
        admin_rollbacks,
        alerts,
        dead_letters,
        predictions,
        metrics,
        replays,
        watching,
    ):
        app.register_functions(module.bp)
    functions = {found.get_function_name(): found.get_user_function() for found in app.get_functions()}

    def called(
        name: str, body: Any = None, *, query: dict[str, str] | None = None, **route: str
    ) -> tuple[int, dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        request = func.HttpRequest(method="GET", url=f"/api/{name}", params=query, body=data, route_params=route)
        answer = functions[name](request)
        text = answer.get_body().decode()
        return answer.status_code, json.loads(text) if answer.mimetype == "application/json" else {"text": text}

    return called


@pytest.fixture(autouse=True)
def _composed_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test says what the environment holds, and leaves nothing composed from it."""
    monkeypatch.setenv("SlipwayStorage", NOWHERE)
    services.cache_clear()
    yield
    services.cache_clear()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Services]:
    """The app's services over documents in SQLite."""
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", f"sqlite:{tmp_path}/documents.db")
    composed = services()
    yield composed
    composed.documents.close()  # type: ignore[attr-defined]
