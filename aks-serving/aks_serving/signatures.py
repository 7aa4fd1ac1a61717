"""Is a route's version signed by someone whom this server trusts? Asked before any of its bytes reach the runtime.

The signature file is verified anew, whatever the control plane found; then the digests that were signed are held
against those that the route names for what this server loads: the model and its external data. Other files of the drop,
as data, are signed too and never fetched here, so they are not compared.

Trusted are the keys that the route names, as its model's policy has them. A server with keys of its own goes by those
alone, and takes nothing unsigned: who can write plans and artifacts still cannot have a model of theirs served then.
"""

from collections.abc import Callable

from aks_serving.errors import LoadCode, LoadError
from shared.routing.plan import Route
from shared.signing.errors import SigningCode, SigningError
from shared.signing.verify import Signed, read_signed


def check_signature(route: Route, *, pinned_keys: tuple[str, ...], fetch: Callable[[str], bytes]) -> str:
    """The fingerprint of the key that signed a route's version; empty where it is not signed and need not be.

    `pinned_keys` are this server's own (PEM), `fetch` gives the signature file by its digest. Raises LoadError.
    """
    if route.signing is None:
        if pinned_keys:
            raise LoadError(
                LoadCode.UNSIGNED,
                f"version {route.version} has no signature, and this server has keys of its own "
                "(SLIPWAY_TRUSTED_KEYS): sign it with one of them",
            )
        return ""
    try:
        signed = read_signed(fetch(route.signing.digest), pinned_keys or route.signing.trusted_keys)
    except SigningError as error:
        code = LoadCode.UNKNOWN_KEY if error.code is SigningCode.UNKNOWN_KEY else LoadCode.BAD_SIGNATURE
        raise LoadError(code, str(error)) from error
    _compare(signed, route)
    return signed.fingerprint


def _compare(signed: Signed, route: Route) -> None:
    wanted = {route.model_file: route.artifact_digest} | {file.name: file.digest for file in route.external}
    for name, digest in wanted.items():
        found = signed.files.get(name)
        if found != digest:
            said = f"has {found} for {name[:100]!r}" if found else f"does not cover {name[:100]!r}"
            raise LoadError(
                LoadCode.SIGNATURE_MISMATCH,
                f"the signature verifies and {said}, which is {digest} in the plan: it is of other files",
            )
