"""Which metrics stores answer the queries of gates: a part of the functions app's settings.

Without a setting there is no such store, and a query of it is an error of its gate, which says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from shared.core.errors import InvalidInputError

PROMETHEUS_URL = "SLIPWAY_PROMETHEUS_URL"
PROMETHEUS_AUTH = "SLIPWAY_PROMETHEUS_AUTH"
LOG_ANALYTICS_WORKSPACE = "SLIPWAY_LOG_ANALYTICS_WORKSPACE"
LOG_ANALYTICS_URL = "SLIPWAY_LOG_ANALYTICS_URL"
CLIENT_ID = "SlipwayStorage__clientId"

_LOG_ANALYTICS = "https://api.loganalytics.io"
_WORKSPACE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where metrics stores are; an empty address or workspace means that there is none."""

    prometheus_url: str = ""
    prometheus_by_identity: bool = False
    """Whether it wants a token of the app's managed identity, as Azure Managed Prometheus does."""
    log_analytics_url: str = _LOG_ANALYTICS
    log_analytics_workspace: str = ""
    """Its id, not its name."""
    client_id: str | None = None
    """Of the managed identity, where it is a user-assigned one."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings; an empty value counts as absent. Raises InvalidInputError naming the setting."""
        by_identity = _by_identity(env)
        schemes = ("https",) if by_identity else ("https", "http")
        workspace = env.get(LOG_ANALYTICS_WORKSPACE, "").strip()
        if workspace and not _WORKSPACE.fullmatch(workspace):
            raise InvalidInputError(
                f"the setting {LOG_ANALYTICS_WORKSPACE} is {workspace[:80]!r}: use the workspace's id, as in "
                "00000000-0000-0000-0000-000000000000"
            )
        return cls(
            prometheus_url=_url(env, PROMETHEUS_URL, schemes),
            prometheus_by_identity=by_identity,
            log_analytics_url=_url(env, LOG_ANALYTICS_URL, ("https",)) or _LOG_ANALYTICS,
            log_analytics_workspace=workspace,
            client_id=env.get(CLIENT_ID, "").strip() or None,
        )


def _by_identity(env: Mapping[str, str]) -> bool:
    text = env.get(PROMETHEUS_AUTH, "").strip() or "none"
    if text not in {"none", "identity"}:
        raise InvalidInputError(
            f"the setting {PROMETHEUS_AUTH} is {text[:40]!r}: use none, or identity for Azure Managed Prometheus"
        )
    return text == "identity"


def _url(env: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str:
    text = env.get(name, "").strip()
    if not text:
        return ""
    form = f"use {' or '.join(f'{scheme}://<host>/' for scheme in schemes)} without user, query or fragment"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InvalidInputError(f"the setting {name} is {text!r}, not a URL ({error}): {form}") from error
    if parts.username or parts.password:
        raise InvalidInputError(f"the setting {name} holds a user or a password: {form}")
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment or not is_plain:
        raise InvalidInputError(f"the setting {name} is {text!r}: {form}")
    return text
