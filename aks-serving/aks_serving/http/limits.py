"""What one client may ask of the server's memory and time. Each bound has an answer, or a close, of its own."""

from dataclasses import dataclass

_KIB = 1024
_MIB = 1024 * _KIB
_BUFFERED_BYTES = 256 * _MIB
_LONGEST_BODIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the HTTP transport. Times are held to within a sweep, one second."""

    max_connections: int = 4096
    """Open at once. A few more may ask for health and readiness, once; all else is answered with 503 and closed. And so
    many may be in their TLS handshakes; beyond, the oldest of these are closed."""
    max_pipelined: int = 32
    """Requests of one connection that wait for their answers. At the bound its reading pauses."""
    max_line_bytes: int = 8 * _KIB
    """Request line, which is the target in the main; 414 beyond."""
    max_head_bytes: int = 32 * _KIB
    """Request line and headers; 431 beyond."""
    max_headers: int = 100
    """431 beyond."""
    max_body_bytes: int = 16 * _MIB
    """413 beyond, as soon as it is known."""
    max_buffered_bytes: int | None = None
    """Bodies of all connections that are not whole yet, 503 for what would exceed it; None: `buffered_bytes` says."""
    max_unsent_bytes: int | None = None
    """Answers of all connections that wait to be sent; beyond, who holds most is cut off; None: `unsent_bytes`."""
    head_s: float = 10.0
    """From a request's first byte until its head is whole; 408 beyond."""
    idle_s: float = 75.0
    """Without a request, and without anything to answer: the connection is closed."""
    progress_s: float = 10.0
    """A body, or a client that reads its answers, must move `min_bytes_per_s` in every such span."""
    min_bytes_per_s: int = 240
    """408 for a body below it; a client that reads more slowly is cut off."""
    linger_s: float = 2.0
    """How long a connection that was closed in mid-request is read on, so that its answer is not lost to a reset."""

    @property
    def buffered_bytes(self) -> int:
        """The bound of all bodies that are not whole: room for four of the longest in any case."""
        if self.max_buffered_bytes is not None:
            return self.max_buffered_bytes
        return max(_BUFFERED_BYTES, _LONGEST_BODIES * self.max_body_bytes)

    @property
    def unsent_bytes(self) -> int:
        """The bound of all answers that wait to be sent, as large as that of bodies."""
        return self.buffered_bytes if self.max_unsent_bytes is None else self.max_unsent_bytes
