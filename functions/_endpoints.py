"""What several calls need of the endpoints."""

from collections.abc import Iterator

from functions._services import services
from shared.rollout.endpoint import Endpoint


def all_endpoints() -> Iterator[Endpoint]:
    """Every endpoint, over all pages."""
    continuation = None
    while True:
        page = services().rollouts.endpoints(continuation)
        yield from page.items
        if page.continuation is None:
            return
        continuation = page.continuation
