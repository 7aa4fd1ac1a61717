"""What gives way: its niceness, and the slices of time that it asks for."""

import ctypes
import os
import platform
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from aks_serving import priority, server
from aks_serving.priority import give_way

from tests.serving.conftest import Start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
_GETATTR = {"x86_64": 315, "aarch64": 275}.get(platform.machine())
_KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])
_SIZE, _SLICE_AT = 48, 24


def _slice_ns() -> int:
    assert _GETATTR is not None
    found = ctypes.create_string_buffer(_SIZE)
    assert ctypes.CDLL(None).syscall(_GETATTR, 0, found, _SIZE, 0) == 0
    value: int = struct.unpack_from("=Q", found.raw, _SLICE_AT)[0]
    return value


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def _of_a_thread_that_gives_way() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, initializer=give_way)


def test_it_is_of_the_lowest_priority_and_the_threads_beside_it_are_not() -> None:
    own = _niceness()
    with _of_a_thread_that_gives_way() as threads:
        assert threads.submit(_niceness).result() == 19
        assert threads.submit(os.sched_getscheduler, 0).result() == os.SCHED_OTHER
    assert _niceness() == own


@pytest.mark.skipif(_GETATTR is None or _KERNEL < (6, 12), reason="slices are asked for from Linux 6.12 on")
def test_it_takes_long_slices_so_that_who_wakes_need_not_wait_for_the_end_of_one() -> None:
    own = _slice_ns()
    with _of_a_thread_that_gives_way() as threads:
        assert threads.submit(_slice_ns).result() == 10_000_000 > own
    assert _slice_ns() == own


def test_who_runs_while_nothing_else_does_is_not_raised_above_that() -> None:
    def begin() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        give_way()

    with ThreadPoolExecutor(max_workers=1, initializer=begin) as threads:
        assert threads.submit(os.sched_getscheduler, 0).result() == os.SCHED_IDLE


@pytest.mark.parametrize("numbers", [{}, {platform.machine(): 99_999}], ids=["unknown", "refused"])
def test_where_slices_cannot_be_asked_for_niceness_is_what_there_is(
    monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int]
) -> None:
    monkeypatch.setattr(priority, "_SCHED_SETATTR", numbers)
    with _of_a_thread_that_gives_way() as threads:
        assert threads.submit(_niceness).result() == 19


@pytest.mark.anyio
async def test_what_loads_versions_gives_way_to_requests(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "give_way", give_way)  # which servers of other tests do without
    async with start() as running:
        assert running.server._threads.submit(_niceness).result() == 19
        assert running.server._seeking.submit(_niceness).result() == 19
