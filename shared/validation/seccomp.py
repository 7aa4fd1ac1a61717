"""Takes system calls away from this process for good, by a seccomp filter in classic BPF that is assembled here.

What is taken answers EPERM; calls newer than the table answer ENOSYS, as on an older kernel, so that libraries fall
back; and so does `clone3`, whose flags a filter cannot see, while `clone` is left for threads alone. A call by another
architecture's numbers ends the process. The filter holds for every thread started after it and cannot be lifted.

A list of what is forbidden rather than of what is allowed: the numeric libraries' needs differ from one release to the
next, and a forgotten call would fail a model that is good.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD = 0x0001_0000
_F_SETOWN, _F_SETOWN_EX = 8, 15

_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_KILL_PROCESS = 0x8000_0000

_LOAD, _EQUAL, _GREATER, _HAS_BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_NEWEST = 450
"""The last call that the table was made with in view: set_mempolicy_home_node, on both architectures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    column: int
    audit_architecture: int


_MACHINES = {
    "x86_64": _Machine(column=0, audit_architecture=0xC000_003E),
    "aarch64": _Machine(column=1, audit_architecture=0xC000_00B7),
}

_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # sockets
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "perf_event_open": (298, 241),
    # the file system's shape
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # namespaces and privileges
    "unshare": (272, 97),
    "setns": (308, 268),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "personality": (135, 92),
    # limits
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # the kernel itself
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "vhangup": (153, 58),
    "uselib": (134, None),
    "seccomp": (317, 277),
    # room on the disk that no file's size tells
    "fallocate": (285, 47),
    # files' owners, modes and times
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""By name, the number on x86_64 and on aarch64; None where the architecture has no such call."""

_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRCTL, _PRLIMIT64, _FCNTL = (157, 167), (302, 261), (72, 25)


def filter_system_calls(libc: ctypes.CDLL) -> str | None:
    """Install the filter. None, or why the kernel would not.

    Privileges must be given up first (PR_SET_NO_NEW_PRIVS).
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return f"no table of system calls for {platform.machine()}"
    program = b"".join(_program(machine, os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), header, 0, 0) != 0:
        return os.strerror(ctypes.get_errno())
    return None


def _program(machine: _Machine, pid: int) -> Iterator[bytes]:
    """The filter's instructions: a decision for each number in turn."""
    yield _instruction(_LOAD, _ARCHITECTURE_AT)
    yield from _answer_unless_equal(machine.audit_architecture, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER_AT)
    yield _instruction(_GREATER, _NEWEST, otherwise=1)
    yield _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    yield from _for_number(_CLONE3[machine.column], [_instruction(_RETURN, _ERRNO | errno.ENOSYS)])
    for numbers in _FORBIDDEN.values():
        if (number := numbers[machine.column]) is not None:
            yield from _for_number(number, [_refusal()])
    threads_only = [_argument(0), _instruction(_HAS_BITS, _CLONE_THREAD, then=1), _refusal(), _permission()]
    yield from _for_number(_CLONE[machine.column], threads_only)
    own_only = [_argument(0), _instruction(_EQUAL, pid, then=1), _refusal(), _permission()]
    yield from _for_number(_KILL[machine.column], own_only)
    yield from _for_number(_TGKILL[machine.column], own_only)
    keep_dying = [_argument(0), _instruction(_EQUAL, _PR_SET_PDEATHSIG, otherwise=1), _refusal(), _permission()]
    yield from _for_number(_PRCTL[machine.column], keep_dying)
    # A descriptor's owner gets a signal when there is something to read: any signal, any process of the same user.
    disown = [_argument(1), _instruction(_EQUAL, _F_SETOWN, then=1), _instruction(_EQUAL, _F_SETOWN_EX, otherwise=1)]
    yield from _for_number(_FCNTL[machine.column], [*disown, _refusal(), _permission()])
    # Limits may be read; a pointer to new ones must be null, in both its halves.
    reading_only = [
        *(_argument(2), _instruction(_EQUAL, 0, then=1), _refusal()),
        *(_argument(2, half=1), _instruction(_EQUAL, 0, then=1), _refusal()),
        _permission(),
    ]
    yield from _for_number(_PRLIMIT64[machine.column], reading_only)
    yield _permission()


def _for_number(number: int, decision: list[bytes]) -> Iterator[bytes]:
    """A decision that returns, for the call of this number. The accumulator holds the call's number."""
    yield _instruction(_EQUAL, number, otherwise=len(decision))
    yield from decision


def _answer_unless_equal(value: int, answer: int) -> Iterator[bytes]:
    yield _instruction(_EQUAL, value, then=1)
    yield _instruction(_RETURN, answer)


def _argument(index: int, *, half: int = 0) -> bytes:
    """Loads 32 bits of an argument, the lower half first: both architectures are little-endian."""
    return _instruction(_LOAD, _ARGUMENTS_AT + 8 * index + 4 * half)


def _refusal() -> bytes:
    return _instruction(_RETURN, _ERRNO | errno.EPERM)


def _permission() -> bytes:
    return _instruction(_RETURN, _ALLOW)


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """`struct sock_filter`: how many instructions to skip where a comparison holds, and where it does not."""
    return struct.pack("=HBBI", code, then, otherwise, value)
