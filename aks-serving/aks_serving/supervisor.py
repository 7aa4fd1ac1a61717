"""The parent of the workers: starts them, starts others in place of those that die or hang, and stops them.

It has one thread and forks, so that what it imported is in memory once. It answers nothing itself and knows no plan. A
listening socket stays with its place and is the parent's as well: connections that come while a place has no worker
wait for the next one there. A worker that asks for a successor goes on until that one listens; one that ends is
followed at once, or, where it ended soon after its start, after a pause that doubles. A worker that stops beating, in
whatever code it may be, is killed: beats are counted by the parent's own ticks, so that a machine that slept kills
nobody. When the parent is gone, its workers see their end of the channel close, and stop.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import NoReturn

from aks_serving.board import SEATS_A_PLACE, Board, State

log = logging.getLogger(__name__)

BEAT, LISTENING, REPLACE, POLL, LEAVE = b".", b"L", b"R", b"P", b"X"
"""What goes over a channel, a byte each. From a worker: it is alive; it listens; it wants a successor; the plans are to
be polled. To a worker: the plans are to be polled; its successor listens, it may go.
"""
EXIT_UNUSABLE, EXIT_HUNG = 2, 75
"""How a worker ends: for settings that cannot be used; for a run that hangs. 0: as it was told."""

FINISH_S = 20.0
"""How long what is in flight may take once the port is closed."""

_TICK_S = 0.25
_STEADY_S = 20.0
_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a worker is told when it is forked: its place, its number in the order of all starts, and its channel.

    `seat` is where it writes on the board: no living worker of its place has it.
    `follows`: the server was serving before, so this worker listens once it is ready and not before.
    """

    place: int
    number: int
    seat: int
    channel: socket.socket
    follows: bool


type Run = Callable[[Post], int]
"""The worker, in the forked process: its exit code."""


@dataclass(slots=True, kw_only=True)
class _Worker:
    place: int
    number: int
    seat: int
    pid: int
    channel: socket.socket
    started_s: float
    missed: int = 0
    """Ticks since its last beat."""
    listening: bool = False
    leaves_since_s: float | None = None
    """When it was told to go, since its successor serves."""


@dataclass(slots=True, kw_only=True)
class _Place:
    workers: list[_Worker] = field(default_factory=list)
    """The one that serves, and its successor where one is starting; those that leave."""
    failures: int = 0
    due_s: float | None = 0.0
    """When the next worker is to be started, once a seat is free; None: none is."""

    def free_seat(self) -> int | None:
        """A seat that no living worker has."""
        taken = {worker.seat for worker in self.workers}
        return next((seat for seat in range(SEATS_A_PLACE) if seat not in taken), None)

    def pause_s(self) -> float:
        """How long to wait after so many failures."""
        return min(_BACKOFF_S * 2 ** min(self.failures - 1, 10), _MAX_BACKOFF_S) if self.failures else 0.0


class Supervisor:
    """Runs workers until a signal. Made and run in a process that has one thread."""

    def __init__(self, run: Run, board: Board, *, hang_s: float, stop_s: float, all_listen: Callable[[], None]) -> None:
        """`run` is the worker, called in the forked process. One that does not beat for half as long again as `hang_s`
        is killed, and one that has not ended `stop_s` after it was told to. `all_listen` is called once, when each
        place has a worker that listens.
        """
        self._run = run
        self._board = board
        self._places = [_Place() for _ in range(board.places)]
        self._max_missed = int((hang_s * 1.5 + 1.0) / _TICK_S)
        self._stop_s = stop_s
        self._all_listen: Callable[[], None] | None = all_listen
        self._number = 0
        self._stopping_since_s: float | None = None
        self._code = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Until SIGTERM or SIGINT: the exit code. 0 where every worker ended as it was told to."""
        with self._signals():
            ticked_s = monotonic()
            while not self._done():
                for key, _ in self._selector.select(_TICK_S):
                    if isinstance(key.data, _Worker):
                        self._heard(key.data)
                    else:
                        self._signalled(key.fileobj)
                self._reap()
                if monotonic() - ticked_s >= _TICK_S:
                    ticked_s = monotonic()
                    self._tick()
                self._start_due()
        return self._code

    def _done(self) -> bool:
        return self._stopping_since_s is not None and not any(place.workers for place in self._places)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals wake the selector, which gets their numbers."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        theirs.setblocking(False)
        before = {number: signal.signal(number, _heed) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._selector.register(mine, selectors.EVENT_READ)
        self._wakeup = mine, theirs
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            mine.close()
            theirs.close()

    def _signalled(self, wakeup: object) -> None:
        assert isinstance(wakeup, socket.socket)  # noqa: S101 - for the type alone
        with contextlib.suppress(BlockingIOError):
            if set(wakeup.recv(4096)) & {signal.SIGTERM, signal.SIGINT}:
                self._stop()

    def _stop(self) -> None:
        if self._stopping_since_s is not None:
            return
        self._stopping_since_s = monotonic()
        for worker in self._all():
            _kill(worker, signal.SIGTERM)

    def _all(self) -> list[_Worker]:
        return [worker for place in self._places for worker in place.workers]

    def _start_due(self) -> None:
        if self._stopping_since_s is not None:
            return
        for number, place in enumerate(self._places):
            seat = place.free_seat()
            if place.due_s is None or monotonic() < place.due_s or seat is None:
                continue
            try:
                self._start(number, seat)
            except OSError as error:  # of files, processes or memory there are too few
                place.failures += 1
                pause_s = place.pause_s()
                place.due_s = monotonic() + pause_s
                log.warning("no worker can be started: %s; it is tried again in %.2f s", error, pause_s)
            else:
                place.due_s = None

    def _start(self, place: int, seat: int) -> None:
        """Raises OSError, and has started nothing then."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            worker = _Worker(place=place, number=self._number, seat=seat, pid=0, channel=ours, started_s=monotonic())
            try:
                self._selector.register(ours, selectors.EVENT_READ, worker)
                worker.pid = self._forked(worker, theirs)
            except OSError:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(ours)
                ours.close()
                raise
        self._number += 1
        self._places[place].workers.append(worker)

    def _forked(self, worker: _Worker, theirs: socket.socket) -> int:
        post = Post(
            place=worker.place,
            number=worker.number,
            seat=worker.seat,
            channel=theirs,
            follows=self._all_listen is None,
        )
        # What is told between the fork and the worker's own handlers waits: no signal is lost, and none is ours there.
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(post, worker.channel)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return pid

    def _become(self, post: Post, other_end: socket.socket) -> NoReturn:
        """Be the worker. What is the parent's alone is closed: the others' channels above all."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            other_end.close()
            for worker in self._all():
                worker.channel.close()
            for end in self._wakeup:
                end.close()
            self._selector.close()
            code = self._run(post)
        except BaseException:
            log.exception("a worker went wrong")
        finally:
            logging.shutdown()
            # A load or a model run that hangs must not keep the process: what had to be kept is kept by now.
            os._exit(code)

    def _heard(self, worker: _Worker) -> None:
        try:
            said = worker.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._selector.unregister(worker.channel)  # it is ending; its end is heard of by SIGCHLD
            return
        worker.missed = 0
        if LISTENING in said:
            self._listens(worker)
        if REPLACE in said:
            self._asks_for_another(worker)
        if POLL in said:
            for other in self._all():
                if other is not worker:
                    _tell(other, POLL)

    def _asks_for_another(self, worker: _Worker) -> None:
        place = self._places[worker.place]
        if place.due_s is None and worker is place.workers[-1]:
            log.warning("worker %d asks for another in its place", worker.pid)
            place.due_s = 0.0

    def _listens(self, worker: _Worker) -> None:
        worker.listening = True
        for other in self._places[worker.place].workers:
            if other.number < worker.number and other.leaves_since_s is None:
                other.leaves_since_s = monotonic()
                _tell(other, LEAVE)
        if self._all_listen is not None and all(any(w.listening for w in p.workers) for p in self._places):
            tell, self._all_listen = self._all_listen, None
            tell()

    def _tick(self) -> None:
        for worker in self._all():
            told_s = [since for since in (self._stopping_since_s, worker.leaves_since_s) if since is not None]
            worker.missed += 1
            if worker.missed > self._max_missed:
                log.error("worker %d hangs and is killed", worker.pid)
                _kill(worker, signal.SIGKILL)
            elif told_s and monotonic() - min(told_s) > self._stop_s:
                log.error("worker %d did not end in %.0f s and is killed", worker.pid, self._stop_s)
                _kill(worker, signal.SIGKILL)

    def _reap(self) -> None:
        for place in self._places:
            for worker in tuple(place.workers):
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._ended(place, worker, os.waitstatus_to_exitcode(status))

    def _ended(self, place: _Place, worker: _Worker, code: int) -> None:
        place.workers.remove(worker)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(worker.channel)
        worker.channel.close()
        self._board.seat(worker.place, worker.seat).state = State.GONE
        if self._stopping_since_s is not None:
            if code:
                self._code = 1
            return
        if code == EXIT_UNUSABLE and self._all_listen is not None:
            self._code = code  # it said why; to start it again would not help
            self._stop()
            return
        if worker.leaves_since_s is not None:
            log.info("worker %d is gone, another serves in its place (it ended with %d)", worker.pid, code)
            return
        if any(other.number > worker.number for other in place.workers):
            return  # its successor is starting already
        self._again(place, worker, code)

    def _again(self, place: _Place, worker: _Worker, code: int) -> None:
        soon = monotonic() - worker.started_s < _STEADY_S and code != EXIT_HUNG
        place.failures = place.failures + 1 if soon else 0
        pause_s = place.pause_s()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        log.error("worker %d %s; another is started in its place in %.2f s", worker.pid, how, pause_s)
        place.due_s = monotonic() + pause_s


def _heed(_number: int, _frame: object) -> None:
    """A signal's handler: that it woke the selector is enough."""


def _kill(worker: _Worker, number: signal.Signals) -> None:
    # Not reaped yet, so the id is still its own.
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, number)


def _tell(worker: _Worker, what: bytes) -> None:
    with contextlib.suppress(OSError):
        worker.channel.send(what)
