"""The signature file as OpenSSF model signing writes it: a Sigstore bundle around a DSSE envelope around a statement.

    bundle (JSON)     mediaType, verificationMaterial.publicKey.hint, dsseEnvelope
    envelope          payload (base64), payloadType, signatures[0].sig (base64, over `pre_authentication`)
    statement (JSON)  an in-toto statement: every signed file with its digest, and how they were hashed

The bundle is hostile until its signature verified: it is read within limits on size and depth, and by a strict model.
The statement is read only afterwards, and refused where it is of another form. Nothing here knows a key.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from shared.signing.errors import SigningCode, SigningError

SIGNATURE_FILE = "model.sig"
"""The name of a drop's signature file."""
MAX_SIGNATURE_BYTES = 1024 * 1024
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_MAX_DEPTH = 16
# Possessive, and happy without the closing quote: it looks at no character of a hostile text twice.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[{}\]]")
_AGAIN = "sign again with model-signing 1.0 or later and its defaults (a SHA-256 for each file)"

type _Text = Annotated[str, Meta(max_length=1_000)]
type _Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Lenient(msgspec.Struct, frozen=True):
    """Further keys are passed over, as the form asks of its readers."""


class _KeyName(_Strict, frozen=True):
    hint: _Text | None = None
    rawBytes: Any = None  # noqa: N815 - older signatures carry the key itself, which proves nothing
    keyDetails: Any = None  # noqa: N815


class _Material(_Strict, frozen=True):
    publicKey: _KeyName  # noqa: N815 - the form's own names
    tlogEntries: tuple[Any, ...] = ()  # noqa: N815


class _Signature(_Strict, frozen=True):
    sig: Annotated[str, Meta(min_length=1, max_length=1_000)]
    keyid: _Text | None = None


class _Envelope(_Strict, frozen=True):
    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: Annotated[tuple[_Signature, ...], Meta(min_length=1, max_length=1)]


class _Bundle(_Strict, frozen=True):
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]  # noqa: N815
    verificationMaterial: _Material  # noqa: N815
    dsseEnvelope: _Envelope  # noqa: N815


class _Digests(_Lenient, frozen=True):
    sha256: _Sha256


class _Subject(_Lenient, frozen=True):
    name: str
    digest: _Digests


class _Serialization(_Lenient, frozen=True):
    method: str
    hash_type: str


class _Resource(_Lenient, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=1_000)]
    algorithm: Literal["sha256"]
    digest: _Sha256


class _Predicate(_Lenient, frozen=True):
    serialization: _Serialization
    resources: Annotated[tuple[_Resource, ...], Meta(min_length=1, max_length=2_000)]


class _Statement(_Lenient, frozen=True):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], Meta(min_length=1, max_length=1)]
    predicateType: Literal["https://model_signing/signature/v1.0"]  # noqa: N815
    predicate: _Predicate


class Envelope(_Strict, frozen=True):
    """What a signature file holds: the signed bytes, the signature over them, and the hint at the key, if any."""

    payload: bytes
    signature: bytes
    hint: str | None

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return pre_authentication(self.payload)


def pre_authentication(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (PAE) of a payload of our type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def read_bundle(data: bytes) -> Envelope:
    """Read a signature file that nobody vouches for yet. Raises SigningError (BAD_SIGNATURE)."""
    if len(data) > MAX_SIGNATURE_BYTES:
        _refuse(f"the signature file has {len(data)} bytes: at most {MAX_SIGNATURE_BYTES} are read")
    value = _parsed(data, "the signature file")
    material = value.get("verificationMaterial")
    if isinstance(material, dict) and "publicKey" not in material:
        # Signatures by certificate and by Sigstore's own identity service are bundles too.
        _refuse("the signature was not made with a key: sign with a key, as in `model_signing sign key`")
    try:
        bundle = msgspec.convert(value, _Bundle)
    except msgspec.ValidationError as error:
        _refuse(f"the signature file is no Sigstore bundle of the form that model-signing writes: {_said(error)}")
    envelope = bundle.dsseEnvelope
    return Envelope(
        payload=_decoded(envelope.payload, "payload"),
        signature=_decoded(envelope.signatures[0].sig, "signature"),
        hint=bundle.verificationMaterial.publicKey.hint or None,
    )


def read_statement(payload: bytes) -> Mapping[str, str]:
    """The signed files and their SHA-256 digests. Raises SigningError (BAD_SIGNATURE) where it is of another form."""
    value = _parsed(payload, "what was signed")
    found = value.get("predicateType")
    if found != PREDICATE_TYPE:
        _refuse(f"what was signed is a {str(found)[:100]!r}, not a {PREDICATE_TYPE!r}: {_AGAIN}")
    predicate = value.get("predicate")
    method = predicate.get("serialization") if isinstance(predicate, dict) else None
    if isinstance(method, dict) and (method.get("method"), method.get("hash_type")) != ("files", "sha256"):
        by, algorithm = (str(method.get(key))[:40] for key in ("method", "hash_type"))
        _refuse(f"the signature hashes by {by!r} with {algorithm!r}: {_AGAIN}")
    try:
        statement = msgspec.convert(value, _Statement)
    except msgspec.ValidationError as error:
        _refuse(f"what was signed is not a model's list of files: {_said(error)}")
    resources = statement.predicate.resources
    files = {resource.name: resource.digest for resource in resources}
    if len(files) != len(resources):
        _refuse("what was signed names a file twice")
    root = hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources)).hexdigest()
    if root != statement.subject[0].digest.sha256:
        _refuse("what was signed contradicts itself: its files do not hash to the digest that it gives for all")
    return files


def _parsed(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no key stands twice and nothing nests deep."""
    try:
        text = data.decode()
        _refuse_depth(text, what)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"{what} is no JSON object: {' '.join(str(error).split())[:100]}")
    if not isinstance(value, dict):
        _refuse(f"{what} is no JSON object")
    return value


def _refuse_depth(text: str, what: str) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_DEPTH:
            _refuse(f"{what} nests more than {_MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        _refuse(f"the {what} in the signature file is not base64: {error}")


def _said(error: msgspec.ValidationError) -> str:
    """What was wanted and where, without what is not for a terminal."""
    return ascii(str(error))[1:-1][:250]


def _refuse(message: str) -> NoReturn:
    raise SigningError(SigningCode.BAD_SIGNATURE, message)
