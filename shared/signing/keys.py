"""Public keys that may sign: elliptic curve keys in PEM, on the curves that OpenSSF model signing takes.

A key has two names. Its fingerprint, the SHA-256 of the DER form (SubjectPublicKeyInfo), is what Slipway shows. Its
hint, the SHA-256 of the PEM form, is what a signature names it by.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from shared.core.errors import InvalidInputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

_FORM = "use a key on one of the curves P-256, P-384 and P-521, in PEM (BEGIN PUBLIC KEY)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key. Two are equal where their fingerprints are."""

    fingerprint: str
    hint: str = field(compare=False)
    pem: str = field(compare=False, repr=False)
    _key: "EllipticCurvePublicKey" = field(compare=False, repr=False)

    @classmethod
    def from_pem(cls, pem: str) -> Self:
        """Read a key. Raises InvalidInputError."""
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - heavy: only where keys are used
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            reason = " ".join(str(error).split())[:100]
            raise InvalidInputError(f"the public key cannot be read ({reason}): {_FORM}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidInputError(f"the public key is a {type(key).__name__.removeprefix('_')}: {_FORM}")
        hash_of(key)
        return cls.of(key)

    @classmethod
    def of(cls, key: "EllipticCurvePublicKey") -> Self:
        """A key that is loaded already."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        pem, der = (key.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER))
        return cls(
            fingerprint=hashlib.sha256(der).hexdigest(),
            hint=hashlib.sha256(pem).hexdigest(),
            pem=pem.decode(),
            _key=key,
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made an ECDSA signature (DER) over a message, with the hash that goes with its curve."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415

        try:
            self._key.verify(signature, message, ECDSA(hash_of(self._key)))
        except InvalidSignature:
            return False
        return True


def hash_of(key: "EllipticCurvePublicKey") -> "HashAlgorithm":
    """The hash that goes with a key's curve. Raises InvalidInputError for a curve that is not taken."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    by_curve: dict[str, HashAlgorithm] = {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }
    if key.curve.name not in by_curve:
        raise InvalidInputError(f"the key lies on the curve {key.curve.name}: {_FORM}")
    return by_curve[key.curve.name]


def read_keys(pems: Sequence[str]) -> tuple[list[TrustedKey], list[str]]:
    """The keys that can be used, and why each of the others cannot."""
    keys: list[TrustedKey] = []
    unusable: list[str] = []
    for number, pem in enumerate(pems, start=1):
        try:
            keys.append(TrustedKey.from_pem(pem))
        except InvalidInputError as error:
            unusable.append(f"trusted key {number}: {error}")
    return keys, unusable


def split_pems(text: str) -> list[str]:
    """The public keys of a file in PEM that may hold several."""
    end = "-----END PUBLIC KEY-----"
    parts = text.split(end)[:-1]
    return [part[part.find("-----BEGIN") :].strip() + end + "\n" for part in parts]
