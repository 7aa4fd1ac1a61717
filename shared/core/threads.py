"""Many calls that wait for storage side by side, on threads that the process keeps.

No look makes threads of its own: Azure's SDK numbers its requests by `uuid1`, for which libuuid opens a file in each
thread, and closes none when the thread ends. A process that begins threads all day comes to have no file left to open.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

AT_ONCE = 16
"""Calls under way at once in the process as a whole: a tick of a hundred pods reads some hundreds of blobs."""


def side_by_side[T, R](call: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """What `call` gives of each item, in their order. All are begun at the first one asked for.

    Raises what the first call that failed raised. Where the caller stops before the end, what has not begun is not
    begun, and what is under way is waited for. `call` must not come here itself: it could wait for its own thread.
    """
    under_way = [_threads().submit(call, item) for item in items]
    try:
        for one in under_way:
            yield one.result()
    finally:
        for one in under_way:
            one.cancel()
        wait(under_way)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="side-by-side")
