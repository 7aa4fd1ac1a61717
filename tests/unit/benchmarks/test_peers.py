"""Each peer has a server, a list of packages and a lock that holds them with hashes and names no place."""

import re

import pytest

from benchmarks.serving.catalogue import PEERS, Peer
from benchmarks.serving.environments import PEER_FOLDER, lock_of

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
BY_NAME = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)


def locked(peer: Peer) -> dict[str, str]:
    lines = lock_of(peer).read_text("utf-8").replace("\\\n", " ").splitlines()
    found = {}
    for line in lines:
        pin = PIN.match(line)
        assert pin, line
        assert "--hash=sha256:" in line, line
        found[pin[1].lower()] = pin[2]
    return found


@BY_NAME
def test_a_lock_holds_what_the_peer_needs_with_hashes(peer: Peer) -> None:
    wanted = (PEER_FOLDER / f"{peer.name}.in").read_text("utf-8").split()
    assert set(wanted) <= locked(peer).keys()
    assert {peer.package, "onnxruntime"} <= set(wanted)


@BY_NAME
def test_a_lock_names_no_place_to_fetch_from(peer: Peer) -> None:
    text = lock_of(peer).read_text("utf-8")
    assert "://" not in text
    assert "--index-url" not in text


def test_every_peer_runs_the_same_onnx_runtime() -> None:
    assert len({locked(peer)["onnxruntime"] for peer in PEERS}) == 1


@BY_NAME
def test_a_peer_has_a_server_and_reads_the_settings_of_its_variants(peer: Peer) -> None:
    script = (PEER_FOLDER / f"{peer.name}_server.py").read_text("utf-8")
    for variant in peer.variants:
        for name in variant.settings:
            assert f'"{name}"' in script, name


def test_the_peers_are_those_that_were_promised() -> None:
    assert [peer.name for peer in PEERS] == ["fastapi", "mlserver", "kserve", "bentoml", "litserve", "pytriton"]
