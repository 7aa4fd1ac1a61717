"""`slipway keygen` and `slipway sign`: a signature that intake and the server take, made without a running system."""

import ctypes
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from cli.outcome import ExitCode
from cli.sign import PASSWORD
from shared.signing.verify import verify_drop
from tests.unit.cli.conftest import Slipway
from tests.unit.signing import made


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    (folder / "data").mkdir(parents=True)
    for name in ("slipway.yaml", "model.onnx", "data/weights.bin"):
        (folder / name).write_text(name)
    return folder


def test_a_made_key_signs_a_folder_that_then_verifies(bare: Slipway, drop: Path, tmp_path: Path) -> None:
    made_key = bare("keygen", str(tmp_path / "release"), "--json").json
    signed = bare("sign", str(drop), "--key", made_key["private_key"], "--json").json
    public = Path(made_key["public_key"]).read_text()
    assert verify_drop((drop / "model.sig").read_bytes(), made.digests(drop), [public]) == made_key["fingerprint"]
    assert (signed["key"], signed["files"]) == (made_key["fingerprint"], made.digests(drop))


def test_the_private_key_is_its_owners_alone_and_no_key_is_overwritten(bare: Slipway, tmp_path: Path) -> None:
    key = tmp_path / "release"
    assert bare("keygen", str(key)).code == ExitCode.OK
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    again = bare("keygen", str(key))
    assert (again.code, "exists already" in again.err) == (ExitCode.USAGE, True)
    assert key.read_bytes() == before
    key.unlink()
    assert "release.pub exists already" in bare("keygen", str(key)).err
    assert not key.exists()


def test_signing_again_replaces_the_signature_and_leaves_hidden_files_out(
    bare: Slipway, drop: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(made.private_key())
    (drop / ".DS_Store").write_text("hidden, and not pushed")
    for content in ("first", "second"):
        (drop / "model.onnx").write_text(content)
        told = bare("sign", str(drop), "--key", str(tmp_path / "key.pem"))
        assert "3 files signed with the key" in told.out
    (drop / ".DS_Store").unlink()
    key = made.public_key(made.private_key())
    assert verify_drop((drop / "model.sig").read_bytes(), made.digests(drop), [key.pem]) == key.fingerprint
    assert sorted(path.name for path in drop.iterdir()) == ["data", "model.onnx", "model.sig", "slipway.yaml"]


def test_a_key_with_a_password_takes_it_from_the_environment(
    bare: Slipway, drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made.loaded(made.private_key())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
    (tmp_path / "key.pem").write_bytes(pem)
    refused = bare("sign", str(drop), "--key", str(tmp_path / "key.pem"))
    assert (refused.code, "password" in refused.err) == (ExitCode.USAGE, True)
    monkeypatch.setenv(PASSWORD, "open")
    assert bare("sign", str(drop), "--key", str(tmp_path / "key.pem")).code == ExitCode.OK


@pytest.mark.parametrize(
    ("folder", "key", "said"),
    [
        ("drop", "no-such.pem", "no-such.pem cannot be read"),
        ("drop", "drop/slipway.yaml", "the private key cannot be read"),
        ("empty", "key.pem", "holds no slipway.yaml and no MLmodel"),
        ("no-such-folder", "key.pem", "holds no slipway.yaml and no MLmodel"),
    ],
)
def test_what_cannot_be_signed_is_one_sentence_and_leaves_nothing(
    bare: Slipway, drop: Path, tmp_path: Path, folder: str, key: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "key.pem").write_bytes(made.private_key())
    ran = bare("sign", str(tmp_path / folder), "--key", str(tmp_path / key))
    assert (ran.code, said in ran.err) == (ExitCode.USAGE, True)
    assert not (drop / "model.sig").exists()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _vanished(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pipe, "is a pipe"),
        (_socket, "is a socket"),
        (_device, "is a device"),
        (_vanished, "cannot be read or written: No such file"),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(
    bare: Slipway, drop: Path, tmp_path: Path, make: Callable[[Path], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's path is short.
    (tmp_path / "key.pem").write_bytes(made.private_key())
    make(Path("drop/data/odd"))
    ran = bare("sign", "drop", "--key", "key.pem")
    assert (ran.code, f"drop/data/odd {said}" in ran.err) == (ExitCode.USAGE, True), ran.err
    assert not (drop / "model.sig").exists()


def test_a_key_may_come_by_a_shells_pipe_and_not_by_one_that_nobody_writes_to(
    bare: Slipway, drop: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "key.pem")
    for words in (("sign", str(drop)), ("override", "m", "--version", "1", "--for", "1h")):
        ran = bare(*words, "--key", str(tmp_path / "key.pem"))
        assert (ran.code, "key.pem is a pipe" in ran.err) == (ExitCode.USAGE, True), ran.err
    read, write = os.pipe()
    os.write(write, made.private_key())
    os.close(write)
    assert bare("sign", str(drop), "--key", f"/dev/fd/{read}").code == ExitCode.OK
    os.close(read)


@pytest.mark.parametrize("place", ["data", "model.onnx"])
def test_what_may_not_be_read_is_told_and_not_left_out(bare: Slipway, drop: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "key.pem").write_bytes(made.private_key())
    (drop / place).chmod(0)
    with _bound_by_modes():
        ran = bare("sign", str(drop), "--key", str(tmp_path / "key.pem"))
    (drop / place).chmod(0o700)
    assert (ran.code, f"{place} cannot be read or written: Permission denied" in ran.err) == (ExitCode.USAGE, True)


@contextmanager
def _bound_by_modes() -> Iterator[None]:
    """Root may read all there is: for the while, its thread gives up what lets it (CAP_DAC_OVERRIDE and its like)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~0b110
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0
