"""Prediction ids of this process: see shared.routing.prediction. Costs a fraction of a microsecond each."""

import itertools
import secrets
import time

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_MARK_LENGTH = 10


class Numbering:
    """Gives out numbers that no other process gives under its own mark. Used from the event loop alone."""

    def __init__(self) -> None:
        self.mark = "".join(secrets.choice(_LETTERS) for _ in range(_MARK_LENGTH))
        """Names this process in ids: new at each start, and the same in no two, but for one chance in 10^14."""
        self._count = itertools.count(1)

    def next(self) -> bytes:
        """The rest of an id, after its prefix: the second and a count."""
        return b"%x.%x" % (int(time.time()), next(self._count))

    def several(self, count: int) -> list[bytes]:
        """As `next`, for answers that are given together."""
        second = b"%x." % int(time.time())
        return [b"%b%x" % (second, number) for number in itertools.islice(self._count, count)]
