"""The demo as a user of the system: drops files, asks the admin API, and waits with a deadline, never for ever."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from local.demo.errors import DemoError
from local.system import FUNCTIONS, System
from shared.registry.policy import Policy
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

DEADLINE_S = 600.0

_POLL_S = 0.15
_TIMEOUT_S = 30.0


class Admin:
    """The system's admin API and its incoming container, for one model. Use it as a context manager."""

    def __init__(self, system: System, model: str) -> None:
        """The system must run."""
        self._system = system
        self._model = model
        self._blobs = AzureBlobs.from_connection_string(system.storage_connection)
        self._client = httpx.Client(
            base_url=f"{system.url(FUNCTIONS)}/api/",
            headers={"x-functions-key": system.key},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._blobs.close()

    def drop(self, path: Path) -> str:
        """Upload a file into the model's folder of the incoming container; its blob's name. A name serves once."""
        name = f"{self._model}/{path.name}"
        if not self._blobs.create(BlobContainer.INCOMING, name, path):
            raise DemoError(f"{name} was dropped before: give the demo a state directory of its own")
        return name

    def put_policy(self, policy: Policy) -> None:
        """Set the model's policy."""
        self._answered(self._client.put(f"models/{self._model}/policy", content=policy.model_dump_json()))

    def version_of(self, drop: str) -> dict[str, Any] | None:
        """The version that came of a drop, or None so far. Raises DemoError where the drop was refused."""
        for version in self._items(f"models/{self._model}/versions"):
            if version["drop"] == drop:
                return version
        for found in self._items(f"models/{self._model}/drops"):
            if found["blob"] == drop and found["state"] == "refused":
                raise DemoError(f"the drop {drop} was refused: {found['reason']}")
        return None

    def versions(self) -> list[dict[str, Any]]:
        """The model's versions."""
        return self._items(f"models/{self._model}/versions")

    def rollouts(self) -> list[dict[str, Any]]:
        """The model's rollouts, oldest first; none before the first one."""
        return self._items(f"endpoints/{self._model}/rollouts")

    def rollout_of(self, version: int) -> dict[str, Any] | None:
        """The rollout of a version, or None so far."""
        return next((rollout for rollout in self.rollouts() if rollout["version"] == version), None)

    def report_drift(self) -> dict[str, Any]:
        """Have a drift report made of the model's stable version as of now."""
        items = self._answered(self._client.post(f"models/{self._model}/drift", json={}))["items"]
        found: dict[str, Any] = next(item for item in items if item["role"] == "stable")
        return found

    def drift_details(self, report_id: str) -> dict[str, Any]:
        """A drift report with the figures of each feature."""
        found: dict[str, Any] = self._answered(self._client.get(f"models/{self._model}/drift/{report_id}"))["details"]
        return found

    def retraining_requests(self) -> list[dict[str, Any]]:
        """The requests for retraining of the model, oldest first."""
        return self._items(f"models/{self._model}/retraining")

    def alerts(self, rule: str) -> list[dict[str, Any]]:
        """The alerts of a rule about the model."""
        return [one for one in self._items("alerts") if one["rule"] == rule and one["model"] == self._model]

    def endpoint_events(self) -> list[dict[str, Any]]:
        """The audit events of the model's endpoint."""
        return self._items(f"audit/events?stream=endpoint:{self._model}")

    def generation(self) -> int:
        """The generation of the plan in force."""
        found: int = self._answered(self._client.get(f"endpoints/{self._model}"))["generation"]
        return found

    def audit(self) -> dict[str, Any]:
        """What the verification of the whole audit trail says."""
        found: dict[str, Any] = self._answered(self._client.get("audit/verify"))
        return found

    def wait_for[T](self, what: str, condition: Callable[[], T | None], *, meanwhile: Callable[[], object]) -> T:
        """Ask a condition until it gives something, and return that; `meanwhile` is called between two tries.

        Raises DemoError naming what was waited for, at the deadline or once a part of the system has ended.
        """
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = condition()
            except httpx.TransportError as error:
                found = None
                self._check_parts(f"{what} ({type(error).__name__})")
            if found is not None:
                return found
            self._check_parts(what)
            if time.monotonic() > deadline_s:
                raise DemoError(f"waited {DEADLINE_S:.0f} s in vain for {what}")
            meanwhile()
            time.sleep(_POLL_S)

    def _check_parts(self, what: str) -> None:
        if fallen := self._system.fallen():
            raise DemoError(f"{', '.join(fallen)} ended while the demo waited for {what}")

    def _items(self, path: str) -> list[dict[str, Any]]:
        response = self._client.get(path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return []
        body: dict[str, Any] = self._answered(response)
        items: list[dict[str, Any]] = body["items"]
        if body["continuation"] is not None:
            raise DemoError(f"{path} has more items than the demo makes: give it a state directory of its own")
        return items

    def _answered(self, response: httpx.Response) -> Any:  # noqa: ANN401 - JSON
        if not response.is_success:
            request = response.request
            raise DemoError(f"{request.method} {request.url.path}: {response.status_code} {response.text[:300]}")
        return response.json()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
