"""Sums beyond 64 bits go from a worker to the others as they are."""

import msgspec
from aks_serving.counts import VersionTally
from aks_serving.reports import Report, counts_of

from shared.telemetry.window import ShadowCounts

GREAT = 3 * 10**40 + 7


def test_a_report_carries_sums_of_any_size() -> None:
    tally = VersionTally()
    tally.shadow = ShadowCounts(compared=1, numbers=1, difference_millionths=-GREAT, squared_millionths=GREAT)
    sent = msgspec.msgpack.encode(Report(counts=counts_of({"churn": {(1, "shadow"): tally}})))
    told = msgspec.msgpack.decode(sent, type=Report).totals()["churn"][1, "shadow"]
    assert told.shadow == tally.shadow
