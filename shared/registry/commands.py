"""What callers ask of the registry. Each command is carried out once under its `command_id`."""

from dataclasses import dataclass
from typing import Literal

from shared.core.ids import ModelName, VersionNumber
from shared.registry.aliases import AliasName


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAlias:
    """Somebody wants an alias to name a version, or nothing."""

    model: ModelName
    alias: AliasName
    version: VersionNumber | None
    expected_version: int | Literal["any"] | None = "any"
    """What the alias must name before."""
    by: str
    reason: str
    command_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Somebody approves a version's rollout. `by` is what the caller claims."""

    model: ModelName
    version: VersionNumber
    by: str
    reason: str
    command_id: str
