"""Windows on their way to storage."""

import threading

import pytest
from aks_serving.uplink import Uplink

from shared.core.errors import UnavailableError


class _Store:
    def __init__(self) -> None:
        self.down = threading.Event()
        self.tried = threading.Event()
        self.kept: list[str] = []

    def send(self, name: str, data: bytes) -> None:
        self.tried.set()
        if self.down.is_set():
            raise UnavailableError("storage", "down")
        if data == b"broken":
            raise ValueError("this cannot be sent")
        self.kept.append(name)


def test_windows_arrive_in_order_and_the_close_waits_for_them() -> None:
    store = _Store()
    uplink = Uplink(store.send)
    for number in range(200):
        uplink.put(str(number), b"")
    uplink.close(within_s=10)
    assert store.kept == [str(number) for number in range(200)]
    assert uplink.lost == 0


def test_an_outage_loses_nothing_within_the_bound() -> None:
    store = _Store()
    store.down.set()
    uplink = Uplink(store.send)
    for number in range(50):
        uplink.put(str(number), b"")
    assert store.tried.wait(10)
    store.down.clear()
    uplink.close(within_s=10)
    assert store.kept == [str(number) for number in range(50)]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failure_is_told_where_the_next_try_fails_too(caplog: pytest.LogCaptureFixture, failures: int) -> None:
    tries: list[str] = []

    def send(name: str, _: bytes) -> None:
        tries.append(name)
        if len(tries) <= failures:
            raise UnavailableError("storage", "the connection was reset")

    uplink = Uplink(send)
    uplink.put("a", b"")
    uplink.close(within_s=10)
    assert tries == ["a"] * (failures + 1)
    told = ["telemetry cannot be sent, it is kept for now", "telemetry can be sent again"]
    assert [message.partition(":")[0] for message in caplog.messages] == (told if failures == 2 else [])


def test_beyond_the_bound_the_oldest_are_lost_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    store = _Store()
    store.down.set()
    uplink = Uplink(store.send, max_waiting=10)
    for number in range(25):
        uplink.put(str(number), b"")
    assert store.tried.wait(10)
    store.down.clear()
    uplink.close(within_s=10)
    assert store.kept == [str(number) for number in range(15, 25)]
    assert uplink.lost == 15
    assert "15 telemetry windows were lost" in caplog.text


def test_a_window_that_cannot_be_sent_holds_up_no_other() -> None:
    store = _Store()
    uplink = Uplink(store.send)
    uplink.put("a", b"")
    uplink.put("b", b"broken")
    uplink.put("c", b"")
    uplink.close(within_s=10)
    assert (store.kept, uplink.lost) == (["a", "c"], 1)


def test_a_stop_during_an_outage_ends_in_time_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    store = _Store()
    store.down.set()
    uplink = Uplink(store.send)
    uplink.put("a", b"")
    uplink.close(within_s=0.2)
    assert "1 telemetry windows could not be sent" in caplog.text
    assert not uplink._thread.is_alive()
