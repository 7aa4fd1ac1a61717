"""What is in use: which versions endpoints and aliases stand on, and which stored bytes versions stand on.

Read anew each time: what is in use is decided elsewhere, and only looked at here.
"""

from collections.abc import Mapping

from shared.registry.aliases import Alias
from shared.registry.documents import ModelVersion
from shared.rollout.documents import Target
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.repository import Repository

type UsesOf = Mapping[int, tuple[str, ...]]
"""By the number of a version, what uses it, in words. A version that nothing uses is not in it."""


class Uses:
    """Finds what uses a model's versions."""

    def __init__(self, *, endpoints: Repository[Endpoint], aliases: Repository[Alias]) -> None:
        self._endpoints = endpoints
        self._aliases = aliases

    def of(self, model: str) -> UsesOf:
        """What uses each version of a model now."""
        found: dict[int, list[str]] = {}
        endpoint = self._endpoints.find(model, ENDPOINT_ID)
        for version, use in _uses_by(endpoint) if endpoint else ():
            found.setdefault(version, []).append(use)
        for alias in self._aliases.where(partition=model):
            if alias.version is not None:
                found.setdefault(alias.version, []).append(f"the alias {alias.alias} names it")
        return {version: tuple(uses) for version, uses in found.items()}

    def models(self) -> list[str]:
        """The models of which any version may be in use, those among them whose uses cannot be read."""
        unread: set[str] = set()
        endpoints = {endpoint.endpoint for endpoint in self._endpoints.readable(left_out=unread)}
        return sorted(endpoints | {alias.model for alias in self._aliases.readable(left_out=unread)} | unread)


def digests_of(version: ModelVersion) -> dict[str, str]:
    """The stored bytes that a version stands on: what each is, by its SHA-256."""
    named: dict[str | None, str] = {
        version.artifact_digest: version.model_file,
        version.validation_digest: "the validation data",
        version.reference_digest: "the reference data",
        version.golden_digest: "the golden rows",
        version.profile_digest: "the reference profile",
        version.performance_digest: "the estimate of performance",
        version.signing.digest if version.signing else None: "the cryptographic signature",
        **{file.digest: file.name for file in version.external},
    }
    return {digest: name for digest, name in named.items() if digest}


def sizes_of(version: ModelVersion) -> dict[str, int]:
    """How many bytes of them were registered, by SHA-256, where the version knows."""
    external = {file.digest: file.size_bytes for file in version.external}
    return {version.artifact_digest: version.artifact_size_bytes, **external}


def _uses_by(endpoint: Endpoint) -> list[tuple[int, str]]:
    rollout, active = endpoint.rollout, endpoint.active

    def use(target: Target | None, words: str) -> list[tuple[int, str]]:
        return [(target.version, words)] if target else []

    uses = use(endpoint.stable, "its endpoint serves it")
    if active:
        uses += use(active.candidate, "it is being rolled out")
        uses += [(shadow.version, "it is a shadow of the rollout under way") for shadow in active.shadows]
    elif rollout:
        uses += use(rollout.stable, "its endpoint served it before the latest rollout")
    named = {version for version, _ in uses}
    if endpoint.fallback and endpoint.fallback.version not in named:
        uses += use(endpoint.fallback, "a rollback would go back to it")
    if endpoint.queued_version is not None:
        uses.append((endpoint.queued_version, "its rollout is queued"))
    return uses
