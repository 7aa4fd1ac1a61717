"""The server's settings, read once from the environment and never changed.

Every absent or bad setting is an InvalidInputError that names the setting, what was found and what is wanted.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aks_serving.override import OverrideKeys, Pinning
from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName, endpoint_name
from shared.core.slots import Slot
from shared.telemetry.names import IDLE

_POD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,99})")
_MIB = 1024 * 1024
_MAX_WORKERS = 256
_LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server is told at its start.

    Exactly one of `storage_connection` and `blob_url` is set. `endpoints` is empty where all that have a plan are
    served. `pod` names this process in its windows: the given name and a random suffix, since a container that
    restarts under its old pod name counts its windows from zero again.
    """

    storage_connection: str | None
    blob_url: str | None
    cache_dir: Path
    endpoints: tuple[EndpointName, ...] = ()
    slot: Slot | None = None
    """Which of the only endpoint's own pods this is; None: one of those that endpoints share."""
    pod: str
    bind: str = _LOCAL
    port: int = 8080
    poll_s: float = 2.0
    window_s: float = 5.0
    feature_window_s: float = 60.0
    """How long a feature window is."""
    feature_share: float = 1.0
    """The share of the rows whose features are counted; 0: none."""
    drain_s: float = 0.5
    """How long the server goes on accepting connections, not ready, after SIGTERM."""
    max_body_bytes: int = 16 * _MIB
    max_queue: int = 1024
    """Requests that may wait or run at once in one process."""
    max_queue_bytes: int = 256 * _MIB
    """What they may take together; one alone may take more."""
    timeout_s: float = 30.0
    """How long a request may wait for its run that names no time of its own."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """Files in PEM; both or none. They are read again when they change."""
    tokens: Path | None = None
    """A file of bearer tokens, one a line, of which a request must show one."""
    grpc_port: int | None = None
    """Where gRPC listens; None: nowhere."""
    workers: int = 1
    """Processes that answer, each on a core of its own where there are as many."""
    hang_s: float = 30.0
    """A run that takes longer hangs, and so does a process whose event loop does not turn for so long."""
    memory_limit_bytes: int | None = None
    """What all processes may take together; None: what the control group allows, where it limits anything."""
    override_keys: OverrideKeys = field(default_factory=OverrideKeys)
    """Keys that sign override headers: alone of all settings they change, with their file."""
    pinning: Pinning = Pinning.OPEN
    """Who may name the version that answers."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys in PEM. Where there are any, this server trusts no others, and loads nothing that is not signed."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read the settings. Raises InvalidInputError naming the setting that is absent or bad."""
        env = os.environ if env is None else env
        connection = env.get("SLIPWAY_STORAGE_CONNECTION", "").strip() or None
        blob_url = env.get("SLIPWAY_BLOB_URL", "").strip() or None
        if (connection is None) == (blob_url is None):
            found = "neither" if connection is None else "both"
            raise InvalidInputError(
                f"{found} of SLIPWAY_STORAGE_CONNECTION and SLIPWAY_BLOB_URL are set: set exactly one, a connection "
                "string or https://<account>.blob.core.windows.net"
            )
        cache_dir = env.get("SLIPWAY_CACHE_DIR", "").strip()
        if not cache_dir:
            raise InvalidInputError("SLIPWAY_CACHE_DIR is not set: name a directory that the server may write to")
        return cls(
            storage_connection=connection,
            blob_url=blob_url,
            cache_dir=Path(cache_dir),
            endpoints=(endpoints := _endpoints(env.get("SLIPWAY_ENDPOINTS", ""))),
            slot=_slot(env.get("SLIPWAY_SLOT", "").strip(), endpoints),
            pod=_pod(env.get("SLIPWAY_POD", "").strip()),
            bind=env.get("SLIPWAY_BIND", "").strip() or _LOCAL,
            port=_whole(env, "SLIPWAY_PORT", default=8080, low=0, high=65_535),
            poll_s=_seconds(env, "SLIPWAY_POLL_S", default=2.0, low=0.05),
            window_s=_seconds(env, "SLIPWAY_WINDOW_S", default=5.0, low=0.05, high=IDLE.total_seconds()),
            feature_window_s=_seconds(env, "SLIPWAY_FEATURE_WINDOW_S", default=60.0, low=0.05),
            feature_share=_number(env, "SLIPWAY_FEATURE_SHARE", "a number", default=1.0, low=0.0, high=1.0),
            drain_s=_seconds(env, "SLIPWAY_DRAIN_S", default=0.5, low=0.0),
            max_body_bytes=_whole(env, "SLIPWAY_MAX_BODY_BYTES", default=16 * _MIB, low=1, high=2**31),
            max_queue=_whole(env, "SLIPWAY_MAX_QUEUE", default=1024, low=1, high=1_000_000),
            max_queue_bytes=_whole(env, "SLIPWAY_MAX_QUEUE_BYTES", default=256 * _MIB, low=1, high=2**39),
            timeout_s=_seconds(env, "SLIPWAY_TIMEOUT_S", default=30.0, low=0.001),
            tls_certificate=(tls := _tls(env))[0],
            tls_key=tls[1],
            tokens=_file(env, "SLIPWAY_TOKENS"),
            grpc_port=None if (port := _whole(env, "SLIPWAY_GRPC_PORT", default=-1, low=0, high=65_535)) < 0 else port,
            workers=_workers(env),
            hang_s=_seconds(env, "SLIPWAY_HANG_S", default=30.0, low=0.5),
            memory_limit_bytes=_whole(env, "SLIPWAY_MEMORY_LIMIT_BYTES", default=0, low=_MIB, high=2**39) or None,
            override_keys=OverrideKeys(_file(env, "SLIPWAY_OVERRIDE_KEYS")),
            pinning=_pinning(env.get("SLIPWAY_PINNING", "").strip()),
            trusted_keys=_trusted_keys(env.get("SLIPWAY_TRUSTED_KEYS", "").strip()),
        )


def _endpoints(text: str) -> tuple[EndpointName, ...]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(dict.fromkeys(endpoint_name(name) for name in names))
    except InvalidInputError as error:
        raise InvalidInputError(f"SLIPWAY_ENDPOINTS: {error}") from error


def _slot(text: str, endpoints: tuple[EndpointName, ...]) -> Slot | None:
    """A slot is one endpoint's: without it nobody could say which version's pod this is."""
    if not text:
        return None
    try:
        slot = Slot(text)
    except ValueError as error:
        raise InvalidInputError(
            f"SLIPWAY_SLOT is {text[:40]!r}: use {' or '.join(Slot)}, or leave it out where the pod is shared"
        ) from error
    if len(endpoints) != 1:
        found = "none" if not endpoints else f"{len(endpoints)} ({', '.join(endpoints)[:200]})"
        raise InvalidInputError(
            f"SLIPWAY_SLOT is {text!r} and SLIPWAY_ENDPOINTS names {found}: a slot is of one endpoint's own pods, "
            "so name that one"
        )
    return slot


def _pod(given: str) -> str:
    name = given or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._")[:80] or "pod"
    if not _POD.fullmatch(name):
        raise InvalidInputError(
            f"SLIPWAY_POD is {name[:120]!r}: use 1 to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    return f"{name}-{os.urandom(3).hex()}"


def _workers(env: Mapping[str, str]) -> int:
    """0 stands for one on each core that this process may use."""
    return _whole(env, "SLIPWAY_WORKERS", default=1, low=0, high=_MAX_WORKERS) or min(
        len(os.sched_getaffinity(0)), _MAX_WORKERS
    )


def _trusted_keys(name: str) -> tuple[str, ...]:
    """The keys of a PEM file, or of the `.pem` files of a folder. Fails where a single one cannot be used."""
    if not name:
        return ()
    from shared.signing.keys import TrustedKey  # noqa: PLC0415 - only where there are keys

    path = Path(name)
    keys: dict[str, TrustedKey] = {}
    try:
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        for file in files:
            for pem in _pems(file):
                key = TrustedKey.from_pem(pem)
                keys[key.fingerprint] = key
    except (OSError, ValueError, InvalidInputError) as error:
        raise InvalidInputError(f"SLIPWAY_TRUSTED_KEYS is {name[:200]!r}, and cannot be used: {error}") from error
    if not keys:
        raise InvalidInputError(
            f"SLIPWAY_TRUSTED_KEYS is {name[:200]!r}, a folder without .pem files: name a PEM file, or a folder of them"
        )
    return tuple(key.pem for key in keys.values())


def _pems(file: Path) -> list[str]:
    from shared.signing.keys import split_pems  # noqa: PLC0415 - only where there are keys

    pems = split_pems(file.read_text("ascii"))
    if not pems:
        raise InvalidInputError(f"{file} holds no public key in PEM (BEGIN PUBLIC KEY)")
    return pems


def _file(env: Mapping[str, str], name: str) -> Path | None:
    """A file that can be read, or None where the setting is absent."""
    text = env.get(name, "").strip()
    if not text:
        return None
    path = Path(text)
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidInputError(f"{name} is {text[:200]!r}, and cannot be read: {error}") from error
    return path


def _tls(env: Mapping[str, str]) -> tuple[Path | None, Path | None]:
    certificate, key = _file(env, "SLIPWAY_TLS_CERTIFICATE"), _file(env, "SLIPWAY_TLS_KEY")
    if (certificate is None) != (key is None):
        raise InvalidInputError("only one of SLIPWAY_TLS_CERTIFICATE and SLIPWAY_TLS_KEY is set: set both, or none")
    return certificate, key


def _pinning(text: str) -> Pinning:
    try:
        return Pinning(text) if text else Pinning.OPEN
    except ValueError as error:
        raise InvalidInputError(f"SLIPWAY_PINNING is {text[:40]!r}: use {' or '.join(Pinning)}") from error


def _whole(env: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and low <= int(text) <= high):
        raise InvalidInputError(f"{name} is {text[:40]!r}: use a whole number from {low} to {high}")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, *, default: float, low: float, high: float = 86_400.0) -> float:
    return _number(env, name, "a number of seconds", default=default, low=low, high=high)


def _number(env: Mapping[str, str], name: str, what: str, *, default: float, low: float, high: float) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise InvalidInputError(f"{name} is {text[:40]!r}: use {what} from {low:g} to {high:g}")
    return value
