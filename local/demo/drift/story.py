"""The story of the demo of drift: a model of winter's flights, asked about winter's, and then about July's.

Four windows of traffic, a drift report after each. What happens is told from what the admin API, the model server and
the receiver of alerts show, never from what was meant to happen.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from local.demo.admin import Admin
from local.demo.drift.asking import ask
from local.demo.drift.flights import COLUMNS, LATE_MIN, Flights
from local.demo.drift.receiver import Receiver
from local.demo.drift.result import Drifted, Window
from local.demo.drift.training import BUNDLE_FILE, TRAFFIC_FILE, windows_of
from local.demo.errors import DemoError
from local.demo.screen import Screen
from local.demo.workshop import Workshop
from shared.registry.drift_policy import DriftPolicy, RetrainingPolicy
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy

MODEL = "late-flights"
RULE = "data_drift"
POLICY = Policy(
    rollout=RolloutPolicy(watch_s=0, tick_s=1, load_timeout_s=600),
    drift=DriftPolicy(span_h=1, retraining=RetrainingPolicy(enabled=True)),
)
SWEEP_S = 5
"""How often the timers look."""

_SHOWN = 5


class Story:
    """Tells the story on a running system. `windows` holds what has been found so far."""

    def __init__(
        self, *, admin: Admin, screen: Screen, workshop: Workshop, receiver: Receiver, server_url: str
    ) -> None:
        self.windows: list[Window] = []
        self.asked_to_alert_s = 0.0
        self._admin = admin
        self._screen = screen
        self._workshop = workshop
        self._receiver = receiver
        self._server_url = server_url
        self._rows = 0

    def tell(self) -> None:
        """Tell it all. Raises DemoError where it cannot go on."""
        self._admin.put_policy(POLICY)
        self._screen.say(
            f"policy of {MODEL}: drift is a PSI of {POLICY.drift.psi:g} with evidence; then retraining is asked for"
        )
        self._first()
        windows = windows_of(self._wait("the traffic", lambda: self._workshop.finished(TRAFFIC_FILE)))
        self._screen.step("Healthy traffic: other days of that winter, days that the model has not seen")
        self._healthy("winter, first half", windows["winter_1"])
        self._healthy("winter, second half", windows["winter_2"])
        self._screen.step("Real drift: the flights of July")
        self._drifted("July, first half", windows["july_1"])
        self._screen.step("The drift goes on")
        self._goes_on("July, second half", windows["july_2"])

    def _first(self) -> None:
        self._screen.step(f"A model that says which flights will be more than {LATE_MIN} minutes late, of one winter")
        path = self._wait("the model to be trained", lambda: self._workshop.finished(BUNDLE_FILE))
        name = self._admin.drop(path)
        self._screen.say(
            f"dropped incoming/{name} ({path.stat().st_size / 1_000:.0f} kB), a model of {', '.join(COLUMNS)}"
        )

        def decided() -> dict[str, Any] | None:
            version = self._admin.version_of(name)
            return None if version is None or version["state"] in {"registered", "validating"} else version

        version = self._wait("its validation", decided)
        if version["state"] != "validated":
            sentences = (one["sentence"] for one in version["validation"]["verdicts"] if one["outcome"] != "pass")
            raise DemoError(f"the version is {version['state']} and should be validated. {'; '.join(sentences)}")
        self._screen.good(f"validated: accuracy {version['validation']['metrics']['accuracy']:.1%}")
        for verdict in version["validation"]["verdicts"]:
            if verdict["check"] == "profile":
                self._screen.detail(f"  {verdict['sentence']}")

        def ended() -> dict[str, Any] | None:
            rollout = self._admin.rollout_of(version["version"])
            return rollout if rollout is not None and rollout["ended_at"] is not None else None

        rollout = self._wait("its rollout", ended)
        if rollout["state"] != "promoted":
            raise DemoError(f"the rollout ended as {rollout['state']}: {rollout['reason']}")
        self._wait("the model server to answer", self._is_ready)
        self._screen.good(f"version {rollout['version']} is promoted and answers")

    def _healthy(self, name: str, flights: Flights) -> None:
        window = self._window(name, flights, is_drift=False, until=lambda: True)
        self._judge(window, "quiet: no alarm, no alert, no request for retraining")

    def _drifted(self, name: str, flights: Flights) -> None:
        began_s = time.monotonic()
        # The report is made at once; the alert follows from it by queue.
        window = self._window(name, flights, is_drift=True, until=lambda: bool(self._receiver.received(RULE)))
        self.asked_to_alert_s = time.monotonic() - began_s
        if not self._judge(window, "the drift is found, and the right features are named"):
            return
        self._screen.good(f"the alert is sent, {self.asked_to_alert_s:.1f} s after July's first request; it is signed:")
        for line in json.dumps(self._receiver.received(RULE)[0], indent=2, ensure_ascii=False).splitlines():
            self._screen.detail(f"  {line}")
        for request in self._admin.retraining_requests():
            self._screen.good(f"retraining is asked for: {request['request_id']}, {request['state']}")
            features = ", ".join(request["features"])
            self._screen.detail(f"  because of {request['alarm']} of version {request['version']}: {features}")

    def _goes_on(self, name: str, flights: Flights) -> None:
        looked_s = 0.0

        def have_looked() -> bool:
            nonlocal looked_s
            looked_s = looked_s or time.monotonic() + 2 * SWEEP_S + 1
            return time.monotonic() > looked_s

        window = self._window(name, flights, is_drift=True, until=have_looked)
        self._judge(window, "the alarm stands: nobody is told again, and nothing more is asked for")

    def _window(self, name: str, flights: Flights, *, is_drift: bool, until: Callable[[], bool]) -> Window:
        """Ask about a window's flights, have a report made once all are counted, and tell of it.

        Where it says drift, wait `until` what follows has happened.
        """
        asked = ask(self._server_url, MODEL, flights)
        self._rows += asked.rows
        self._screen.say(
            f"{name}: {asked.rows} flights in {asked.requests} requests; {asked.late_share:.1%} were late, "
            f"and the model was right about {asked.accuracy:.1%}"
        )
        report = self._wait(f"{self._rows} rows to be counted", self._report)
        (finding,) = (one for one in report["findings"] if one["against"] == "reference")
        has_drifted = finding["outcome"] == "fail"
        tell = self._screen.bad if has_drifted else self._screen.good
        tell(f"report of {report['rows']} rows, {finding['outcome']}: {finding['sentence']}")
        shown = ", ".join(f"{one['name']} {one['psi']:.2f}" for one in report["most_to_blame"][:_SHOWN])
        self._screen.detail(f"  farthest from the reference, by PSI: {shown}")
        if has_drifted:
            self._wait("the alert of drift", lambda: True if until() else None)
        window = Window(
            name=name,
            is_drift=is_drift,
            rows=asked.rows,
            late_share=round(asked.late_share, 4),
            accuracy=round(asked.accuracy, 4),
            report_rows=report["rows"],
            outcome=finding["outcome"],
            sentence=finding["sentence"],
            drifted=tuple(
                Drifted(name=one["name"], psi=round(one["psi"], 3), q_value=one["q_value"])
                for one in finding["features"]
            ),
            to_blame=tuple(one["name"] for one in report["most_to_blame"]),
            alarms=len(report["alarms"]),
            alerts=len(self._receiver.received(RULE)),
            retraining_requests=len(self._admin.retraining_requests()),
        )
        self.windows.append(window)
        return window

    def _judge(self, window: Window, said: str) -> bool:
        """Tell whether a window is as it should be."""
        problems = window.problems()
        for problem in problems:
            self._screen.bad(problem)
        if not problems:
            self._screen.good(said)
        return not problems

    def _report(self) -> dict[str, Any] | None:
        """A report as of now, once every row that was asked about is in it."""
        report = self._admin.report_drift()
        return report if report["report_id"] and report["rows"] >= self._rows else None

    def _is_ready(self) -> bool | None:
        url = f"{self._server_url}/v2/models/{MODEL}/ready"
        return True if httpx.get(url, timeout=5, trust_env=False).is_success else None

    def _wait[T](self, what: str, condition: Callable[[], T | None]) -> T:
        return self._admin.wait_for(what, condition, meanwhile=lambda: self._screen.live(f"waiting for {what}"))
