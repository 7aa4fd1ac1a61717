"""Verifies that a drop's files are those that a trusted key's holder signed, in OpenSSF model signing's form.

Guarantees: what comes back was signed by one of the trusted keys, and not a byte of the statement is read before its
signature verified. Every file is covered: paths that the signer chose to ignore are unsigned files here. It reads no
file, no clock and no network, and trusts no key that a signature brings along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.signing.bundle import SIGNATURE_FILE, Envelope, read_bundle, read_statement
from shared.signing.errors import SigningCode, SigningError
from shared.signing.keys import TrustedKey, read_keys

_MANIFESTS = ("slipway.yaml", "MLmodel")
"""The files that say what a drop is, the decisive one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a trusted key's holder signed: the SHA-256 of each file by its name, and the key's fingerprint."""

    files: Mapping[str, str]
    fingerprint: str


def verify_drop(signing: bytes, files: Mapping[str, str], trusted_keys: Sequence[str]) -> str:
    """The fingerprint of the trusted key (PEM) that signed exactly these files; `signing` is the signature file.

    `files` has the SHA-256 (hexadecimal) of every file of the drop but the signature file, by its name in the drop.
    Raises SigningError.
    """
    signed = read_signed(signing, trusted_keys)
    _compare(signed.files, files)
    return signed.fingerprint


def read_signed(signing: bytes, trusted_keys: Sequence[str]) -> Signed:
    """Verify a signature file against the trusted keys (PEM), whatever it is about. Raises SigningError."""
    envelope = read_bundle(signing)
    key = _signer(envelope, trusted_keys)
    return Signed(files=read_statement(envelope.payload), fingerprint=key.fingerprint)


def _signer(envelope: Envelope, trusted_keys: Sequence[str]) -> TrustedKey:
    keys, unusable = read_keys(trusted_keys)
    named = [key for key in keys if envelope.hint in (None, key.hint)]
    for key in named:
        if key.verifies(envelope.signature, envelope.signed_bytes):
            return key
    if envelope.hint is not None and named:
        raise SigningError(
            SigningCode.BAD_SIGNATURE,
            f"the signature names the trusted key {named[0].fingerprint} and does not verify under it: "
            "it was altered, or that key did not make it",
        )
    trusted = ", ".join(key.fingerprint for key in keys[:3]) or "none"
    made_by = "an unnamed key" if envelope.hint is None else f"the key with the hint {envelope.hint[:64]!r}"
    more = f" (unusable: {'; '.join(unusable)[:150]})" if unusable else ""
    raise SigningError(
        SigningCode.UNKNOWN_KEY,
        f"the signature is by {made_by}, which is not trusted; trusted are {trusted}{more}",
    )


def _compare(signed: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises SigningError where two lists of files differ."""
    if signed == found:
        return
    differing = sorted(name for name in signed.keys() & found.keys() if signed[name] != found[name])
    missing = sorted(signed.keys() - found.keys())
    added = sorted(found.keys() - signed.keys())
    if _is_about_others(signed, found, differing):
        raise SigningError(SigningCode.SIGNATURE_MISMATCH, _mismatch(signed, found))
    if differing:
        name = differing[0]
        raise SigningError(
            SigningCode.ALTERED_FILE,
            f"{name[:100]!r} was altered since it was signed: its SHA-256 is {found[name]}, "
            f"signed was {signed[name]}{_more(differing)}",
        )
    if added:
        raise SigningError(
            SigningCode.UNSIGNED_FILE,
            f"{added[0][:100]!r} is not covered by the signature{_more(added)}: sign all files, or remove it",
        )
    hint = f": sign again and ignore {SIGNATURE_FILE} itself" if missing[0] == SIGNATURE_FILE else ""
    raise SigningError(
        SigningCode.MISSING_FILE, f"{missing[0][:100]!r} was signed and is not there{_more(missing)}{hint}"
    )


def _is_about_others(signed: Mapping[str, str], found: Mapping[str, str], differing: list[str]) -> bool:
    """Whether the signature was made for another drop: it has another manifest, and that is not all that differs."""
    manifest = next((name for name in _MANIFESTS if name in found), None)
    if manifest is None or manifest not in signed:
        return not any(signed.get(name) == digest for name, digest in found.items())
    if signed[manifest] == found[manifest]:
        return False
    return differing != [manifest] or signed.keys() != found.keys()


def _mismatch(signed: Mapping[str, str], found: Mapping[str, str]) -> str:
    name = next((name for name in (*_MANIFESTS, *found) if name in found and signed.get(name) != found[name]), "")
    about = (
        f"{signed[name]} for {name[:100]!r}, which is" if name in signed else f"nothing for {name[:100]!r}, which is"
    )
    if list(signed) == ["."]:
        about = f"a single file alone, and {name[:100]!r} is"
    return (
        f"the signature verifies and was made for other files: it has {about} {found.get(name, 'not there')} here; "
        "sign this folder and put its own signature into it"
    )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
