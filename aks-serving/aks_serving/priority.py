"""Threads that run only while nothing else of the server would: loading and shadows wait, requests do not."""

import contextlib
import os
import sys
import threading

_LOWEST = 19


def give_way() -> None:
    """Have this thread run where no other of the process wants its processor, if the system lets it.

    By niceness, not by the idle policy: requests are not answered sooner under that (measured), and where they take all
    of a processor it would leave a load next to nothing of it.
    """
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
