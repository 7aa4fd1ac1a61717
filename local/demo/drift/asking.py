"""Asks the model server for predictions, a batch of flights a request, and keeps how often it was right."""

from dataclasses import dataclass

import httpx

from local.demo.drift.flights import Flights
from local.demo.errors import DemoError

BATCH_ROWS = 100
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What became of a window's requests."""

    requests: int
    rows: int
    right: int
    late: int

    @property
    def accuracy(self) -> float:
        """The share of flights that were rightly said to be late or not."""
        return self.right / self.rows

    @property
    def late_share(self) -> float:
        """The share of flights that were late."""
        return self.late / self.rows


def ask(url: str, model: str, flights: Flights) -> Asked:
    """Ask about all of them, in their order. Raises DemoError where one request is not answered in full."""
    right = requests = 0
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
        for start in range(0, len(flights), BATCH_ROWS):
            columns, late = flights.columns[start : start + BATCH_ROWS], flights.late[start : start + BATCH_ROWS]
            # No user: which version answers is then drawn for each request.
            body = {"model": model, "features": columns.tolist()}
            response = client.post("/predict", json=body)
            if response.status_code != httpx.codes.OK:
                raise DemoError(f"a request was answered with {response.status_code}: {response.text[:200]}")
            found = response.json()["predictions"]
            if len(found) != len(late):
                raise DemoError(f"{len(found)} predictions came for {len(late)} flights")
            right += sum(int(one) == int(other) for one, other in zip(found, late, strict=True))
            requests += 1
    return Asked(requests=requests, rows=len(flights), right=right, late=int(flights.late.sum()))
