"""Where the storage account is and who the server is to it, from the settings and, for identities, the environment.

Guarantees that a token is sent over TLS alone, and that what other programs' variables say of a storage account
(`AZURE_STORAGE_...`) changes nothing. It opens no connection.

An identity is found as Azure's own libraries find it: a service principal's secret where `AZURE_CLIENT_SECRET` is set,
the pod's workload identity where `AZURE_FEDERATED_TOKEN_FILE` is (AKS sets it), whoever is signed in to the Azure CLI
where `AZURE_USE_AZURE_CLI` is `true`, else the machine's managed identity.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aks_serving.settings import Settings
from shared.core.errors import InvalidInputError

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_CONNECTION, _URL = "SLIPWAY_STORAGE_CONNECTION", "SLIPWAY_BLOB_URL"
_PUBLIC = "core.windows.net"
_ENDPOINT = re.compile(
    r"https?://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9-]{1,63})?"
)
_MAX_PORT = 65_535
_ACCOUNT = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The account's endpoint and a credential for it, in the words of the storage library."""

    config: "AzureConfig"
    allow_http: bool


def access(settings: Settings, env: Mapping[str, str] | None = None) -> Access:
    """Raises InvalidInputError, which names the setting and never tells a key."""
    if settings.storage_connection is not None:
        return _by_connection_string(settings.storage_connection)
    return _by_identity(settings.blob_url or "", os.environ if env is None else env)


def _by_connection_string(text: str) -> Access:
    parts = _parts(text)
    endpoint = parts.get("blobendpoint", "").rstrip("/")
    name = parts.get("accountname", "")
    if not endpoint and name:
        protocol = parts.get("defaultendpointsprotocol", "https")
        endpoint = f"{protocol}://{name}.blob.{parts.get('endpointsuffix') or _PUBLIC}"
    if not endpoint:
        raise InvalidInputError(
            f"{_CONNECTION} has neither AccountName nor BlobEndpoint: copy it whole from the portal"
        )
    config = _config(_CONNECTION, endpoint, name)
    if key := parts.get("accountkey"):
        if not name:
            raise InvalidInputError(f"{_CONNECTION} has AccountKey without AccountName: copy it whole")
        config |= {"credential_type": "access_key", "account_key": _base64(key)}
    elif signature := parts.get("sharedaccesssignature"):
        config |= {"credential_type": "sas_token", "sas_key": signature.removeprefix("?")}
    else:
        raise InvalidInputError(
            f"{_CONNECTION} has neither AccountKey nor SharedAccessSignature: add one, or name the account in {_URL} "
            "and use an identity"
        )
    return Access(config=config, allow_http=endpoint.startswith("http://"))


def _parts(text: str) -> dict[str, str]:
    """The fields of a connection string, by their names in lower case."""
    parts = {}
    for field in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = field.partition("=")
        if not equals:
            raise InvalidInputError(
                f"{_CONNECTION} is not a connection string: it is fields of the form Name=value, separated by ';'"
            )
        parts[name.strip().lower()] = value.strip()
    return parts


def _base64(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise InvalidInputError(f"{_CONNECTION} has an AccountKey that is not Base64: copy it whole") from error
    return key


def _by_identity(url: str, env: Mapping[str, str]) -> Access:
    if not url.startswith("https://"):
        raise InvalidInputError(
            f"{_URL} is {_shown(url)!r}: use https://<account>.blob.{_PUBLIC}, for tokens go over TLS"
        )
    config = _config(_URL, url.rstrip("/"), "")
    if authority := env.get("AZURE_AUTHORITY_HOST", "").strip():
        # AKS sets it with a slash at its end, to which the library would add another.
        config["authority_host"] = authority.rstrip("/")
    config["credential_type"] = _identity(env)
    return Access(config=config, allow_http=False)


def _identity(env: Mapping[str, str]) -> str:
    if env.get("AZURE_CLIENT_SECRET"):
        return "client_secret"
    if env.get("AZURE_FEDERATED_TOKEN_FILE"):
        return "workload_identity"
    if env.get("AZURE_USE_AZURE_CLI", "").strip().lower() == "true":
        return "azure_cli"
    return "managed_identity"


def _config(setting: str, endpoint: str, name: str) -> "AzureConfig":
    """What every account's has. Where the account is not named, it is the first label of the endpoint's host."""
    if name:
        _check_account(setting, name)
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None and re.search(r"[?#@&=%;]", endpoint):
        raise InvalidInputError(
            f"{setting} has an endpoint that is more than an address, and is not shown: a credential stands in "
            f"{_CONNECTION}, as AccountKey or SharedAccessSignature, or is an identity"
        )
    if found is None or int(found["port"] or 0) > _MAX_PORT:
        raise InvalidInputError(
            f"{setting} has the endpoint {_shown(endpoint)!r}, which is no URL of an account: use one like "
            f"https://<account>.blob.{_PUBLIC}"
        )
    name = name or found["host"].partition(".")[0]
    _check_account(setting, name)
    return {"account_name": name, "endpoint": endpoint, "use_emulator": False, "skip_signature": False}


def _check_account(setting: str, name: str) -> None:
    if not _ACCOUNT.fullmatch(name):
        raise InvalidInputError(f"{setting} names the account {name[:80]!r}, which none can be called: check it")


def _shown(url: str) -> str:
    """A URL that is a scheme and a host. Of any other nobody knows what in it is secret."""
    return url if re.fullmatch(r"[a-z]{2,10}://[A-Za-z0-9._-]{0,200}", url) else "..."
