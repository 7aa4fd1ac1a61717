"""Signs a drop's files with a private key, in OpenSSF model signing's form: what `model_signing sign key` writes.

Nothing that runs as a service imports this module: private keys stay with those who drop models.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared.core.errors import InvalidInputError
from shared.signing.bundle import (
    MEDIA_TYPE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    SIGNATURE_FILE,
    STATEMENT_TYPE,
    pre_authentication,
)
from shared.signing.keys import TrustedKey, hash_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def sign_files(files: Mapping[str, str], key: "EllipticCurvePrivateKey", *, name: str) -> bytes:
    """The signature file for files, given as the SHA-256 (hexadecimal) of each by its name in the drop.

    `name` is what the drop is called, which nobody checks.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415 - heavy: only where keys are used

    public = key.public_key()
    payload = _statement(files, name)
    signature = key.sign(pre_authentication(payload), ECDSA(hash_of(public)))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": TrustedKey.of(public).hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def new_key() -> tuple[bytes, bytes]:
    """A new private key on the curve P-256 and its public key, both in PEM, the private one not encrypted."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, TrustedKey.of(key.public_key()).pem.encode()


def read_private_key(pem: bytes, *, password: bytes | None = None) -> "EllipticCurvePrivateKey":
    """A private key in PEM on the curve P-256, P-384 or P-521. Raises InvalidInputError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    form = "use a private key on one of the curves P-256, P-384 and P-521 in PEM (BEGIN PRIVATE KEY)"
    try:
        key = load_pem_private_key(pem, password)
    except TypeError as error:
        raise InvalidInputError(f"the private key and its password do not go together: {error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = " ".join(str(error).split())[:100]
        raise InvalidInputError(f"the private key cannot be read ({reason}): {form}") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InvalidInputError(f"the private key is a {type(key).__name__.removeprefix('_')}: {form}")
    hash_of(key.public_key())
    return key


def _statement(files: Mapping[str, str], name: str) -> bytes:
    ordered = sorted(files.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered)).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE],
            },
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in ordered],
        },
    }
    return json.dumps(statement, separators=(",", ":")).encode()
