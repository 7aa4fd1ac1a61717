"""Hostile and damaged archives."""

import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from shared.registry.manifest import is_drop_path
from shared.validation.archive import open_archive
from shared.validation.refusal import DropRefusedError, RefusalCode
from tests.unit.validation.drops import bundle, refusal


def opened(path: Path, content: bytes, *, max_bytes: int = 1_000_000_000) -> dict[str, bytes]:
    path.write_bytes(content)
    with open_archive(
        path, what="the bundle", damaged=RefusalCode.NOT_ZIP, max_members=8, max_bytes=max_bytes
    ) as archive:
        return {name: archive.read(name, 100_000_000) for name in archive.names}


def refused(path: Path, content: bytes, *, max_bytes: int = 1_000_000_000) -> tuple[str, str]:
    with pytest.raises(DropRefusedError) as caught:
        opened(path, content, max_bytes=max_bytes)
    return refusal(caught.value)


def test_plain_files_are_read(tmp_path: Path) -> None:
    assert opened(tmp_path / "z", bundle({"a": "1", "b": "2"})) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize(
    "name",
    ["../a", "/etc/passwd", "a/b", "a/", "..", ".", "a\\b", "C:a", "C:\\a", "..\\a", "./a", "\\\\host\\share"],
)
def test_a_name_that_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    code, said = refused(tmp_path / "z", bundle({name: "x"}))
    assert code == RefusalCode.UNSAFE_PATH
    assert repr(name) in said


def nested(path: Path, content: bytes) -> dict[str, bytes]:
    path.write_bytes(content)
    with open_archive(
        path, what="it", damaged=RefusalCode.NOT_ZIP, max_members=8, max_bytes=1_000, is_safe=is_drop_path
    ) as archive:
        return {name: archive.read(name, 1_000) for name in archive.names}


def test_files_may_lie_in_directories_where_that_is_wanted(tmp_path: Path) -> None:
    found = nested(tmp_path / "z", bundle({"a/": "", "a/b/": "", "a/b/c": "1", "d": "2"}))
    assert found == {"a/b/c": b"1", "d": b"2"}


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/a",
        "a/../b",
        "a/./b",
        "a//b",
        "a/b/c/d/e",
        "a/",
        "./a",
        ".a",
        "a/.b",
        "a\\b",
        "C:a",
        "a b",
        "..",
        "/",
        "",
    ],
)
def test_a_path_that_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DropRefusedError) as caught:
        nested(tmp_path / "z", bundle({name: "x", "good": "x"}))
    assert caught.value.code is RefusalCode.UNSAFE_PATH
    assert "nest at most three directories" in str(caught.value)


@pytest.mark.parametrize("name", ["../", "a/../", "/", "a//", ".a/", "a/b/c/d/e/"])
def test_a_directory_whose_name_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DropRefusedError) as caught:
        nested(tmp_path / "z", bundle({name: "", "good": "x"}))
    assert caught.value.code is RefusalCode.UNSAFE_PATH


def test_a_file_that_claims_to_be_a_directory_and_the_other_way_round_is_refused(tmp_path: Path) -> None:
    for name, kind in (("a/", stat.S_IFLNK), ("a/", stat.S_IFREG), ("a", stat.S_IFDIR)):
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o777) << 16
        with pytest.raises(DropRefusedError, match="a link or special file named"):
            nested(tmp_path / "z", bundle([(info, "")]))


def test_digests_are_those_of_the_members(tmp_path: Path) -> None:
    members = {"a": b"x" * 3_000_000, "b": b""}
    (tmp_path / "z").write_bytes(bundle(members))
    with open_archive(
        tmp_path / "z", what="it", damaged=RefusalCode.NOT_ZIP, max_members=2, max_bytes=3_000_000
    ) as archive:
        for name, content in members.items():
            wanted = hashlib.sha256(content).hexdigest()
            assert archive.digest(name) == wanted
            assert archive.unpack(name, tmp_path / f"unpacked-{name}", max_bytes=3_000_000) == wanted
            assert (tmp_path / f"unpacked-{name}").read_bytes() == content


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    content = bundle({"model.onnxZ.txt": "x"}).replace(b"model.onnxZ.txt", b"model.onnx\0.txt")
    assert refused(tmp_path / "z", content)[0] == RefusalCode.UNSAFE_PATH


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("model.onnx")
    info.external_attr = (kind | 0o777) << 16
    code, said = refused(tmp_path / "z", bundle([(info, "/etc/passwd")]))
    assert code == RefusalCode.UNSAFE_PATH
    assert "link or special file" in said


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    content = bundle({"a": "1", "b": "2"}).replace(b"b", b"a")
    assert refused(tmp_path / "z", content)[0] == RefusalCode.DUPLICATE_FILE


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(bundle({"a": "secret"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert refused(tmp_path / "z", bytes(content))[0] == RefusalCode.ENCRYPTED


def test_a_compression_that_is_not_deflate_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "x" * 100)
    code, said = refused(tmp_path / "z", buffer.getvalue())
    assert code == RefusalCode.NOT_ZIP
    assert "another method" in said


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "z", bundle({f"f{i}": "" for i in range(9)}))
    assert code == RefusalCode.TOO_LARGE
    assert "9 members" in said


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    content = bundle({"a": bytes(50_000_000)})
    assert len(content) < 100_000
    assert "more than 200 times" in refused(tmp_path / "z", content)[1]
    assert "at most 1000000" in refused(tmp_path / "z", content, max_bytes=1_000_000)[1]


def test_a_bomb_that_declares_a_small_size_is_cut_at_it_and_refused(tmp_path: Path) -> None:
    content = bytearray(bundle({"a": bytes(50_000_000)}))
    for start in (14 + 8, content.index(b"PK\x01\x02") + 24):
        assert struct.unpack_from("<I", content, start)[0] == 50_000_000
        struct.pack_into("<I", content, start, 1_000)
    code, said = refused(tmp_path / "z", bytes(content))
    assert code == RefusalCode.NOT_ZIP
    assert "CRC" in said


def test_a_member_that_holds_less_than_it_declares_is_refused(tmp_path: Path) -> None:
    """Its checksum is right, so that only the sizes tell."""
    content = bytearray(bundle({"a": b"x" * 100}))
    for start in (14 + 8, content.index(b"PK\x01\x02") + 24):
        assert struct.unpack_from("<I", content, start)[0] == 100
        struct.pack_into("<I", content, start, 105)
    (tmp_path / "z").write_bytes(content)
    with (
        open_archive(tmp_path / "z", what="it", damaged=RefusalCode.NOT_ZIP, max_members=1, max_bytes=1_000) as archive,
        pytest.raises(DropRefusedError, match="'a' holds 100 bytes and declares 105"),
    ):
        archive.unpack("a", tmp_path / "a", max_bytes=1_000)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """The bomb in which many members share one run of compressed bytes."""
    content = bytearray(bundle({"a": bytes(1_000), "b": bytes(1_000)}))
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    struct.pack_into("<I", content, second + 42, 0)
    assert refused(tmp_path / "z", bytes(content))[0] == RefusalCode.NOT_ZIP


def test_an_archive_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = bundle({"a": bytes(range(200)), "b": b"x"})
    for length in range(len(content)):
        assert refused(tmp_path / "z", content[:length])[0] == RefusalCode.NOT_ZIP


def test_an_archive_with_any_byte_changed_is_refused_or_gives_nothing_else(tmp_path: Path) -> None:
    """Some bytes (dates, versions) say nothing that is looked at; one can hide a member, which is then missed."""
    members = {"a": bytes(range(100)), "b": b"x" * 20}
    content = bundle(members)
    refusals = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        try:
            read = opened(tmp_path / "z", bytes(changed))
        except DropRefusedError:
            refusals += 1
        else:
            assert read.items() <= members.items()
    assert refusals > len(content) / 2


def test_unpacking_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(bundle({"a": "new"}))
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    with (
        open_archive(tmp_path / "z", what="it", damaged=RefusalCode.NOT_ZIP, max_members=1, max_bytes=100) as archive,
        pytest.raises(OSError, match="symbolic links"),
    ):
        archive.unpack("a", tmp_path / "target", max_bytes=100)
    assert (tmp_path / "elsewhere").read_text() == "old"
