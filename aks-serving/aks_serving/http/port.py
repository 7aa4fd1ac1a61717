"""Closing a port without breaking a connection that was made to it a moment before.

A listening socket that is closed resets what it has not accepted yet. So before that it takes no more: a filter on it
drops the packets that would open connections, while those that are half open come to be accepted. A client whose packet
was dropped sends it again a second later, by when the port refuses it. Only Linux can do this; nothing fails elsewhere.
"""

import ctypes
import socket
import struct
import sys

_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_INSTRUCTION = struct.Struct("@HBBI")
_LOAD_BYTE, _JUMP_IF_SET, _RETURN = 0x30, 0x45, 0x06
_TCP_FLAGS, _SYN = 13, 0x02
_DROP_OPENING = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
        (_JUMP_IF_SET, 0, 1, _SYN),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFF_FFFF),
    )
)


def hold_off(sock: socket.socket) -> bool:
    """Have a listening socket take no more connections but those that are opening. Whether the system can."""
    if sys.platform != "linux" or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    program = ctypes.create_string_buffer(_DROP_OPENING, len(_DROP_OPENING))
    count = len(_DROP_OPENING) // _INSTRUCTION.size
    try:
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(program)))
    except OSError:
        return False
    return True


def take_on(sock: socket.socket) -> None:
    """Undo `hold_off`, where an earlier process that had the socket did it."""
    if sys.platform == "linux":
        try:
            sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        except OSError:
            return  # there was none
