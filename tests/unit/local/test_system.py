"""The ports that a system on one machine takes."""

import socket
import threading
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from local.state import StateDir
from local.system import Ports, System, is_port_free
from shared.core.errors import ConflictError, InvalidInputError


def test_free_ports_come_once_and_are_none_that_a_connection_or_another_server_may_be_given() -> None:
    found = [port for _ in range(3) for port in astuple(Ports.free())]
    assert len(set(found)) == len(found)
    assert all(16_384 <= port < 32_768 for port in found)


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.socket() as listener:
        following = Ports.free().server + 1
        listener.bind(("127.0.0.1", following))
        listener.listen()
        assert following not in astuple(Ports.free())


def test_a_port_that_is_let_go_in_a_moment_is_free_by_then() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert not is_port_free(port)
        closing = threading.Timer(0.1, held.close)
        closing.start()
        assert is_port_free(port, within_s=60)
        closing.join()


@pytest.mark.parametrize(
    ("taken", "option"), [("table", "--storage-port"), ("functions", "--functions-port"), ("server", "--server-port")]
)
def test_a_port_that_is_taken_is_told_with_the_option_that_gives_another(
    tmp_path: Path, taken: str, option: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ports = replace(Ports.free(), **{taken: listener.getsockname()[1]})
        with pytest.raises(ConflictError, match=f"is taken: .* with {option}"):
            System(StateDir(tmp_path), ports=ports).check_ports()


def test_one_port_for_two_parts_is_refused(tmp_path: Path) -> None:
    ports = Ports.free()
    with pytest.raises(InvalidInputError, match=f"{ports.queue} is for azurite and for server"):
        System(StateDir(tmp_path), ports=replace(ports, server=ports.queue)).check_ports()
