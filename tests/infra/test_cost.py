"""The guide to cost says what the templates choose, and its sums follow from the prices."""

import copy
from typing import Any

import pytest

from tests.infra.bicep_duties import parameters_of
from tests.infra.cost import (
    ENVIRONMENTS,
    FREE,
    GUIDE,
    PRICED,
    ROOT,
    Line,
    filled,
    lines,
    month_usd,
    prices,
    resources_of,
    total_usd,
)

CORES = {"Standard_D2ds_v5": 2, "Standard_D4ds_v5": 4, "Standard_D8ds_v5": 8}


def by_name(environment: str) -> dict[str, Line]:
    """The lines of an environment."""
    return {line.what: line for line in lines(environment, resources_of(environment), prices())}


def test_the_guide_holds_the_tables_as_they_are_now() -> None:
    guide = GUIDE.read_text()
    assert filled(guide) == guide, "the tables are stale: python -m tests.infra.cost"


def test_a_stale_table_is_found() -> None:
    guide = GUIDE.read_text()
    stale = guide.replace("x Standard_", "x Larger_", 1)
    assert stale != guide
    assert filled(stale) == guide


def test_a_guide_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table months"):
        filled("# What it costs\n")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_type_of_resource_is_priced_or_said_to_be_free(environment: str) -> None:
    types = {one.type for one in resources_of(environment)}
    assert types <= PRICED | FREE
    assert not PRICED & FREE


def test_each_price_is_of_something_that_can_be_chosen() -> None:
    known = prices()
    used = {line.price for environment in ENVIRONMENTS for line in by_name(environment).values()}
    chosen = {"cluster Premium", "storage Standard_LRS", "storage Standard_ZRS", "storage Standard_GZRS"}
    chosen |= {"registry Standard", "registry Premium", *(f"node {size}" for size in CORES)}
    assert known["prices"].keys() - used <= chosen
    assert used <= known["prices"].keys()
    assert "nverified" in known["about"]


def test_what_is_paid_by_the_hour_is_multiplied_by_the_hours_of_a_month() -> None:
    known = prices()
    known["prices"]["x"] = {"usd": 0.5, "per": "hour", "of": "x"}
    known["prices"]["y"] = {"usd": 3, "per": "month", "of": "y"}
    hourly, monthly = Line(what="x", price="x", least=1, most=4), Line(what="y", price="y", least=2, most=2)
    assert month_usd(hourly, known) == (365, 1460)
    assert month_usd(monthly, known) == (6, 6)
    assert total_usd([hourly, monthly], known) == (371, 1466)


def test_lines_follow_the_parameters() -> None:
    dev, production = by_name("dev"), by_name("production")
    given = parameters_of(ROOT / "infra" / "bicep", "production")
    nodes = production["nodes, serving"]
    assert (nodes.least, nodes.most) == (given["minServingNodes"], given["maxServingNodes"])
    assert dev["the cluster's control plane"].price == "cluster Free"
    assert production["registry"].price == "registry Premium"
    units = given["cosmosMaxThroughput"] / 100 * 1.25
    assert production["documents, autoscale"].most == units
    assert production["documents, autoscale"].least == units / 10
    assert dev["documents, autoscale"].most == 0
    assert dev["functions, always ready"].most == 0
    assert production["functions, always ready"].most == given["functionsAlwaysReady"] * 2
    kept_days = given["logRetentionDays"] - 31
    assert production["logs, kept longer"].most == pytest.approx(60 * kept_days / 30)
    assert dev["logs, kept longer"].most == 0


def test_timers_are_paid_for_a_second_each_minute_at_least_whatever_they_do() -> None:
    known = prices()
    sources = (ROOT / "functions").glob("*.py")
    timers = sum(
        path.read_text().count('timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")')
        for path in sources
    )
    used = known["use_a_month"]["dev"]["functions"] - known["functions_free_million_gb_s"]
    assert timers > 10
    taken = timers * 730 * 60 * 2 / 1e6
    assert by_name("dev")["functions, on demand"].most == pytest.approx(used + taken)
    assert f"That is {taken:.1f} million GB-seconds a month" in GUIDE.read_text()


def test_the_free_grant_of_functions_is_no_gift_back() -> None:
    known: dict[str, Any] = copy.deepcopy(prices())
    known["functions_free_million_gb_s"] = 10
    found = {line.what: line for line in lines("dev", resources_of("dev"), known)}
    assert found["functions, on demand"].most == 0


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_budget_is_above_what_a_quiet_month_costs(environment: str) -> None:
    least, _ = total_usd(lines(environment, resources_of(environment), prices()), prices())
    budget = parameters_of(ROOT / "infra" / "bicep", environment)["budgetAmount"]
    assert budget * 0.8 > least, "its first notice would come each month"
