"""One text for one value: canonical JSON, and the digest over it.

Equal values give equal bytes on every machine: keys sorted, no spaces, no NaN, UTF-8, and 1.0 written as 1, since a
database may hand back either for the other. The hashes of the audit chain stand on this.
"""

import hashlib
import json
from typing import Any

from shared.core.ids import Digest


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Encode a JSON value. Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold."""
    return json.dumps(
        _normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_of(value: Any) -> Digest:  # noqa: ANN401 - any JSON value
    """SHA-256 over the canonical JSON of a value."""
    return digest_of_bytes(canonical_json(value))


def digest_of_bytes(data: bytes) -> Digest:
    """SHA-256 over bytes."""
    return Digest(hashlib.sha256(data).hexdigest())


def _normal(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _normal(item) for key, item in value.items()}
        case list() | tuple():
            return [_normal(item) for item in value]
        case _:
            return value
