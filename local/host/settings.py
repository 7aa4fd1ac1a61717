"""Settings of the host and of the app: environment variables, as Azure hands app settings to an app.

The host's own settings, all optional:

- `AzureFunctionsWebHost__hostid`: the host's id; else it is derived from the app's directory and the storage account.
- `SLIPWAY_HOST_BLOB_SCAN_S`: seconds between two scans for new blobs (10, as in Azure).
- `SLIPWAY_HOST_BLOB_RECEIPT_S`: age at which a receipt without its message is taken up again (30).
- `SLIPWAY_HOST_MESSAGE_LEASE_S`: how long a received message stays invisible unless renewed (600, as in Azure).
- `SLIPWAY_HOST_TIMER_LEASE_S`: how long a claim on a timer's occurrence holds unless renewed (15).
- `SLIPWAY_HOST_GRACE_S`: how long running invocations may go on after SIGTERM (30).

The leases bound how long work that a SIGKILL interrupted waits for its next try.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from local.host.errors import HostStartError

HOST_STORAGE = "AzureWebJobsStorage"

_PERCENT = re.compile(r"%([^%]+)%")
_HOST_ID = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{0,30}[a-z0-9]")
_DEVELOPMENT = "UseDevelopmentStorage=true"
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The host's own settings; the module's docstring tells of each."""

    host_id: str
    blob_scan_s: float
    blob_receipt_s: float
    message_lease_s: int
    timer_lease_s: float
    grace_s: float

    @classmethod
    def from_env(cls, environment: Mapping[str, str], app_dir: Path) -> Self:
        """Read the settings. Raises HostStartError, naming the setting."""
        return cls(
            host_id=_host_id(environment, app_dir),
            blob_scan_s=_number(environment, "SLIPWAY_HOST_BLOB_SCAN_S", 10.0, 0.05, 3600.0),
            blob_receipt_s=_number(environment, "SLIPWAY_HOST_BLOB_RECEIPT_S", 30.0, 1.0, 3600.0),
            message_lease_s=int(_number(environment, "SLIPWAY_HOST_MESSAGE_LEASE_S", 600.0, 1.0, 604_800.0)),
            timer_lease_s=_number(environment, "SLIPWAY_HOST_TIMER_LEASE_S", 15.0, 1.0, 3600.0),
            grace_s=_number(environment, "SLIPWAY_HOST_GRACE_S", 30.0, 0.0, 3600.0),
        )


class AppSettings:
    """What the app's declarations refer to: `%Setting%` in texts, and connections by the name of their setting."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def resolve(self, text: str, *, function: str) -> str:
        """Fill in each `%Setting%`. Raises HostStartError naming the function and the setting."""

        def value(match: re.Match[str]) -> str:
            found = self._environment.get(match[1])
            if not found:
                raise HostStartError.in_function(
                    function, f"{text!r} names the setting {match[1]}, which is not set: set it in the environment"
                )
            return found

        return _PERCENT.sub(value, text)

    def connection(self, name: str, *, function: str) -> str:
        """The connection string under a setting's name. Raises HostStartError naming the function and the setting."""
        try:
            return connection_string(self._environment, name)
        except HostStartError as error:
            raise HostStartError.in_function(function, str(error)) from None


def connection_string(environment: Mapping[str, str], name: str) -> str:
    """The storage connection string under a setting's name. Raises HostStartError naming the setting."""
    found = environment.get(name)
    if not found:
        if any(key.startswith(f"{name}__") for key in environment):
            raise HostStartError(
                f"connection {name} is set up for a managed identity, which exists in Azure alone: "
                f"set {name} to a connection string"
            )
        raise HostStartError(f"connection {name} is not set: set it to a storage connection string")
    if found.strip().rstrip(";") == _DEVELOPMENT:
        return _DEVELOPMENT_STORAGE
    if "AccountName=" not in found:
        raise HostStartError(f"connection {name} is not a storage connection string: it has no AccountName=")
    return found


def _host_id(environment: Mapping[str, str], app_dir: Path) -> str:
    given = environment.get("AzureFunctionsWebHost__hostid")
    if given:
        if not _HOST_ID.fullmatch(given):
            raise HostStartError(
                f"AzureFunctionsWebHost__hostid is {given!r}: use 2 to 32 lower-case letters, digits and single hyphens"
            )
        return given
    account = re.search(r"AccountName=([^;]+)", connection_string(environment, HOST_STORAGE))
    seed = f"{app_dir}\n{account[1] if account else ''}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


def _number(environment: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise HostStartError(f"{name} is {text!r}: use a number of seconds from {low:g} to {high:g}")
    return value
