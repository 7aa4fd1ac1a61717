"""The ports that a system on one machine takes."""

import socket
import threading
from dataclasses import astuple

from local.system import Ports, is_port_free


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
