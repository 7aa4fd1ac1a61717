"""Which version a new one is compared with: the model's champion."""

from shared.core.ids import EndpointName
from shared.registry.aliases import CHAMPION, Alias, alias_id
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.repository import Repository


class Champions:
    """Finds champions."""

    def __init__(self, *, aliases: Repository[Alias], endpoints: Repository[Endpoint]) -> None:
        self._aliases = aliases
        self._endpoints = endpoints

    def champion(self, model: str) -> int | None:
        """The version that has the alias `champion`, else the one that is stable on the model's endpoint, or None."""
        alias = self._aliases.find(model, alias_id(CHAMPION))
        if alias is not None and alias.version is not None:
            return alias.version
        endpoint = self._endpoints.find(EndpointName(model), ENDPOINT_ID)
        return endpoint.stable.version if endpoint is not None and endpoint.stable is not None else None
