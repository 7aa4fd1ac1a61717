"""Keys, folders and signature files for tests: well formed, or wrong in one way."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.signing.bundle import MEDIA_TYPE, PAYLOAD_TYPE, SIGNATURE_FILE, pre_authentication
from shared.signing.keys import TrustedKey, hash_of
from shared.signing.sign import read_private_key, sign_files

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@cache
def private_key(curve: str = "P-256", number: int = 1) -> bytes:
    """A private key in PEM, the same for the whole run."""
    del number
    return ec.generate_private_key(CURVES[curve]).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def loaded(private: bytes) -> ec.EllipticCurvePrivateKey:
    return read_private_key(private)


def public_key(private: bytes) -> TrustedKey:
    return TrustedKey.of(loaded(private).public_key())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder but its signature, with the digest of its content."""
    return {
        path.relative_to(folder).as_posix(): digest(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != SIGNATURE_FILE
    }


def signed(files: dict[str, str], private: bytes | None = None) -> bytes:
    return sign_files(files, loaded(private or private_key()), name="drop")


def statement_of(bundle: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return value


def rooted(statement: dict[str, Any]) -> dict[str, Any]:
    """A statement whose digest over all is right for the resources that it now has."""
    parts = b"".join(bytes.fromhex(resource["digest"]) for resource in statement["predicate"]["resources"])
    statement["subject"][0]["digest"]["sha256"] = digest(parts)
    return statement


def bundle_over(payload: bytes, private: bytes | None = None) -> bytes:
    """A signature file whose signature over any payload verifies."""
    key = loaded(private or private_key())
    signature = key.sign(pre_authentication(payload), ec.ECDSA(hash_of(key.public_key())))
    return json.dumps(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": TrustedKey.of(key.public_key()).hint},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    ).encode()


def resigned(statement: dict[str, Any], private: bytes | None = None) -> bytes:
    return bundle_over(json.dumps(statement).encode(), private)


def changed(data: bytes, path: str, value: Any) -> bytes:
    """A JSON object with the value at a dotted path replaced; `...` deletes it."""
    whole = json.loads(data)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    place = whole
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole).encode()


def flipped_base64(text: str, at: int) -> str:
    """base64 text with one bit of what it encodes flipped."""
    data = bytearray(base64.b64decode(text))
    data[at % len(data)] ^= 1 << (at % 8)
    return base64.b64encode(data).decode()
