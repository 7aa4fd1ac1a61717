"""The Cosmos DB emulator as a child process, with a certificate made for it."""

import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ROOT = Path(__file__).parents[2]
EMULATOR_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
"""The key that every Cosmos DB emulator has; it is public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmosEmulator:
    """Where the emulator listens, and the certificate to check it against."""

    url: str
    certificates: str


@contextmanager
def cosmos_emulator(directory: Path) -> Iterator[CosmosEmulator]:
    """Run the emulator on a free port; it is gone on the way out, and also when this process dies."""
    certificate, key = _self_signed(directory)
    modules = os.environ.get("SLIPWAY_NODE_MODULES") or str(_ROOT / "node_modules")
    script = Path(__file__).with_name("cosmos_start.js")
    with (
        (directory / "emulator.log").open("wb") as log,
        subprocess.Popen(
            ["node", script, modules, certificate, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError((directory / "emulator.log").read_text())
            yield CosmosEmulator(url=json.loads(line)["url"], certificates=str(certificate))
        finally:
            process.terminate()
            process.wait(timeout=20)


def _self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cosmos-emulator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path
