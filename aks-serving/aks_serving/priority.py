"""Threads that run only while nothing else of the server would: loading and shadows wait, requests do not."""

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading

_LOWEST = 19
_SLICE_NS = 10_000_000
"""Longer than others' slices of 3 ms or less, and no longer: at worst somebody who wakes waits for the end of one."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""Linux's sched_attr: size, policy, flags, niceness, priority, slice, deadline, period."""


def give_way() -> None:
    """Have this thread run where no other of the process wants its processor, if the system lets it.

    By niceness, and by asking for long slices of time (Linux from 6.12 on): a thread that wakes and is content with
    shorter ones may take the processor over at once, where of threads with equal slices it may have to wait for the end
    of one, whatever their niceness. Not by the idle policy, which where requests take all of a processor would leave a
    load next to nothing of it; who has that policy keeps it.
    """
    if sys.platform != "linux":  # elsewhere a priority is the whole process's
        return
    number = _SCHED_SETATTR.get(platform.machine())
    if number is not None and os.sched_getscheduler(0) == os.SCHED_OTHER:
        wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, _LOWEST, 0, _SLICE_NS, 0, 0)
        if ctypes.CDLL(None).syscall(number, 0, wanted, 0) == 0:
            return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
