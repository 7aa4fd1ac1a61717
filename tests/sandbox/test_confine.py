"""What a confined process cannot do any more, what it still can, and what holds where the kernel refuses a wall."""

import json
import os
import textwrap
from pathlib import Path

from shared.validation import seccomp
from shared.validation.process import Ended, run_child
from shared.validation.wire import Limits, ManifestTask, Request

LIMITS = Limits(memory_bytes=2 << 30, cpu_s=20, file_bytes=1 << 20, open_files=64)

WALLS = """
import ctypes, fcntl, json, os, pathlib, platform, resource, socket, struct, sys, threading
from shared.validation import seccomp
from shared.validation.confine import confine
from shared.validation.landlock import narrow_file_system
from shared.validation.seccomp import filter_system_calls
from shared.validation.wire import Limits

given, secret = map(pathlib.Path, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
beside = os.open(secret.parent, os.O_RDONLY)
limits = Limits(memory_bytes=2 << 30, cpu_s=20, file_bytes=1 << 20, open_files=64)
"""
ALL = "missing = confine(limits, os.getppid(), readable=[given], writable=[pathlib.Path.cwd()])"
SECCOMP_ALONE = "missing = filter_system_calls(libc)"
LANDLOCK_ALONE = "missing = narrow_file_system(libc, [given], [pathlib.Path.cwd()])"
ATTEMPTS = """
machine = seccomp._MACHINES[platform.machine()]

def call(name, *arguments):
    number = (seccomp._FORBIDDEN | {"prctl": seccomp._PRCTL})[name][machine.column]
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    except ValueError as error:
        return str(error)
    return "done"

def spawn():
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)

def fork():
    if os.fork() == 0:
        os._exit(0)

def connect():
    with socket.create_connection(("127.0.0.1", 9), timeout=1):
        pass

def raise_limit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

F_SETOWN_EX = 15

done = {}
"""

FORBIDDEN_CALLS = {
    "fork": "fork()",
    "start a program": "spawn()",
    "become a program": 'os.execv("/bin/true", ["true"])',
    "open a socket": "socket.socket()",
    "open a pair of sockets": "socket.socketpair()",
    "connect": "connect()",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "have a pipe signal its parent": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "have a pipe signal a group": "fcntl.fcntl(os.pipe()[0], F_SETOWN_EX, struct.pack('=ii', 2, os.getppid()))",
    "choose its parent's processor": "os.sched_setaffinity(os.getppid(), os.sched_getaffinity(os.getppid()))",
    "hold its parent": "os.pidfd_open(os.getppid())",
    "trace its parent": "call('ptrace', 16, os.getppid(), 0, 0)",
    "leave its session": "os.setsid()",
    "leave its group": "os.setpgid(0, 0)",
    "raise its limits": "raise_limit()",
    "raise its priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "make namespaces": "os.unshare(os.CLONE_NEWNS)",
    "hide memory in a file": 'os.memfd_create("x")',
    "share memory": "call('shmget', 0, 4096, 0o1600)",
    "keep room beyond a file's end": "call('fallocate', 0, 1, ctypes.c_long(0), ctypes.c_long(1))",
    "keep a key": "call('keyctl', 0, 0)",
    "ask for io_uring": "call('io_uring_setup', 8, 0)",
    "handle page faults": "call('userfaultfd', 0)",
    "outlive its parent": "libc.prctl(1, 0, 0, 0, 0) and call('prctl', 1, 0, 0, 0, 0)",
    "make a pipe": "os.mkfifo('pipe')",
    "change a file's mode": "os.chmod(given, 0o777)",
}
"""Each must be refused by seccomp alone."""

FORBIDDEN_FILES = {
    "read a file beside its own": "secret.read_text()",
    "read it by an open directory": "os.open(secret.name, os.O_RDONLY, dir_fd=beside)",
    "list the folder of its file": "os.listdir(secret.parent)",
    "read the accounts": 'pathlib.Path("/etc/passwd").read_text()',
    "read its parent's environment": 'pathlib.Path(f"/proc/{os.getppid()}/environ").read_bytes()',
    "write its file": "given.write_text('x')",
    "write outside": "(secret.parent / 'new').write_text('x')",
    "link a file out of reach": "os.link(secret, 'mine')",
    "make a link": "os.symlink('/etc/passwd', 'link')",
}

ALLOWED = {
    "read its file": "given.read_text()",
    "write in its folder": "pathlib.Path('own').write_text('x')",
    "remove what it wrote": "pathlib.Path('own').unlink()",
    "make a folder": "os.mkdir('folder')",
    "start a thread": "[thread.start() or thread.join() for thread in [threading.Thread(target=lambda: None)]]",
    "read its limits": "resource.getrlimit(resource.RLIMIT_AS)",
    "signal itself": "os.kill(os.getpid(), 0)",
    "ask for an open file's mode": "os.get_blocking(0)",
    "load numpy": "__import__('numpy').ones((300, 300)) @ __import__('numpy').ones((300, 300))",
    "load the runtime": "__import__('onnxruntime').get_available_providers()",
    "load pyarrow": "__import__('pyarrow.compute').compute.sum(__import__('pyarrow').array([1, 2]))",
}


# A link across the border of what may be written is refused as if it led to another device.
REFUSALS = {
    "Operation not permitted",
    "Permission denied",
    "Invalid cross-device link",
    "not allowed to raise maximum limit",
}


def confined(folder: Path, attempts: dict[str, str], walls: str = ALL) -> tuple[dict[str, str], Ended]:
    """What a process behind these walls says of each attempt."""
    (folder / "given").write_text("given")
    (folder / "hidden").mkdir()
    (folder / "hidden" / "secret").write_text("secret")
    (folder / "work").mkdir()
    code = (
        WALLS
        + walls
        + ATTEMPTS
        + "".join(f"done[{name!r}] = tried(lambda: {code})\n" for name, code in attempts.items())
    )
    code += "print(json.dumps(done)); print(missing, file=sys.stderr)"
    arguments = ["-c", code, str(folder / "given"), str(folder / "hidden" / "secret")]
    ended = run_child(
        arguments, b"", workdir=folder / "work", wall_s=60, max_output_bytes=100_000, max_written_bytes=1 << 30
    )
    assert ended.exit_code == 0, ended
    return json.loads(ended.output), ended


def test_a_confined_process_cannot_reach_out(tmp_path: Path) -> None:
    done, ended = confined(tmp_path, FORBIDDEN_CALLS | FORBIDDEN_FILES)
    assert {name: said for name, said in done.items() if said not in REFUSALS} == {}
    assert ended.errors == "()\n", "no wall is missing on this machine"
    assert {path.name for path in (tmp_path / "hidden").iterdir()} == {"secret"}
    assert (tmp_path / "given").read_text() == "given"


def test_seccomp_alone_takes_the_calls_away(tmp_path: Path) -> None:
    done, ended = confined(tmp_path, FORBIDDEN_CALLS, SECCOMP_ALONE)
    assert done == dict.fromkeys(FORBIDDEN_CALLS, "Operation not permitted") | {
        "raise its limits": "not allowed to raise maximum limit"
    }
    assert ended.errors == "None\n"


def test_landlock_alone_takes_the_files_away(tmp_path: Path) -> None:
    done, ended = confined(tmp_path, FORBIDDEN_FILES | {"read its file": "given.read_text()"}, LANDLOCK_ALONE)
    assert done.pop("read its file") == "done"
    assert {name: said for name, said in done.items() if said not in REFUSALS} == {}
    assert ended.errors == "None\n"


def test_no_privilege_is_left(tmp_path: Path) -> None:
    _, ended = confined(tmp_path, {"say": "print(pathlib.Path('/proc/self/status').read_text(), file=sys.stderr)"})
    for kind in ("CapInh", "CapPrm", "CapEff"):
        assert f"{kind}:\t0000000000000000\n" in ended.errors
    assert "NoNewPrivs:\t1\n" in ended.errors


def test_a_confined_process_can_do_its_work(tmp_path: Path) -> None:
    done, _ = confined(tmp_path, ALLOWED)
    assert done == dict.fromkeys(ALLOWED, "done")


def test_settings_beside_the_package_are_out_of_reach(tmp_path: Path) -> None:
    settings = Path(seccomp.__file__).parents[2] / "local.settings.sample.json"
    assert settings.is_file()
    done, _ = confined(tmp_path, {"read": f"pathlib.Path({str(settings)!r}).read_text()"})
    assert done == {"read": "Permission denied"}


WITHOUT = """
import ctypes, os, platform, struct, sys
from shared.validation import seccomp
machine = seccomp._MACHINES[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
# An older kernel, as it were: Landlock's and seccomp's own calls are answered as unknown.
unknown = [seccomp._instruction(seccomp._RETURN, seccomp._ERRNO | 38)]
program = [seccomp._instruction(seccomp._LOAD, 0), *seccomp._for_number(444, unknown)]
asked = [seccomp._argument(0), seccomp._instruction(seccomp._EQUAL, 22, otherwise=1), *unknown, seccomp._permission()]
program += [*seccomp._for_number(seccomp._PRCTL[machine.column], asked), seccomp._permission()]
code = b"".join(program)
buffer = ctypes.create_string_buffer(code, len(code))
libc.prctl(38, 1, 0, 0, 0)
header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
assert libc.prctl(22, ctypes.c_ulong(2), header, 0, 0) == 0
"""


def without_walls(folder: Path, code: str, request: bytes = b"") -> Ended:
    """Run code where the kernel knows neither Landlock nor seccomp."""
    machine = (
        "import platform\nfrom shared.validation import seccomp\nmachine = seccomp._MACHINES[platform.machine()]\n"
    )
    return run_child(
        ["-c", machine + WITHOUT + textwrap.dedent(code)],
        request,
        workdir=folder,
        wall_s=60,
        max_output_bytes=100_000,
        max_written_bytes=1 << 30,
    )


def test_where_the_kernel_refuses_a_wall_the_limits_hold_and_the_task_is_done(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text("task: regression\n")
    request = Request(
        parent_pid=os.getpid(), wall_s=60, limits=LIMITS, work=ManifestTask(path=tmp_path / "slipway.yaml")
    )
    ended = without_walls(
        tmp_path, "from shared.validation.child import main\nmain()", request.model_dump_json().encode()
    )
    assert ended.exit_code == 0
    assert b'"task":"regression"' in ended.output
    assert ended.errors == (
        "the sandbox lacks walls: no Landlock: Function not implemented; no seccomp: Function not implemented\n"
    )
    code = f"""
    from shared.validation.confine import confine
    from shared.validation.wire import Limits
    confine(Limits.model_validate({LIMITS.model_dump()!r}), os.getppid())
    bytearray(3 << 30)
    """
    ended = without_walls(tmp_path, code)
    assert (ended.exit_code, "MemoryError" in ended.errors) == (1, True)


def test_without_walls_a_process_that_left_the_session_is_killed_too(tmp_path: Path) -> None:
    """It holds the FIFO's writing end: its end tells that it is gone."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"""
    import signal
    from shared.validation.confine import confine
    from shared.validation.wire import Limits
    confine(Limits.model_validate({LIMITS.model_dump()!r}), os.getppid())
    held = os.open("alive", os.O_WRONLY)
    ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(ready[1], b"x")
            signal.alarm(60)
            signal.pause()
        os._exit(0)
    os.read(ready[0], 1)
    os._exit(0)
    """
    assert without_walls(tmp_path, code).exit_code == 0
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_every_table_of_numbers_names_each_call_once() -> None:
    for column in (0, 1):
        numbers = [pair[column] for pair in seccomp._FORBIDDEN.values() if pair[column] is not None]
        apart = (seccomp._CLONE, seccomp._CLONE3, seccomp._KILL, seccomp._TGKILL, seccomp._PRCTL, seccomp._PRLIMIT64)
        numbers += [pair[column] for pair in (*apart, seccomp._FCNTL)]
        assert len(numbers) == len(set(numbers))
        assert max(number or 0 for number in numbers) <= seccomp._NEWEST


def test_the_filter_for_the_other_architecture_is_a_program_too() -> None:
    for machine in seccomp._MACHINES.values():
        program = b"".join(seccomp._program(machine, 1234))
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4_096, "the kernel takes no longer one"
