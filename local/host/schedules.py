"""Timer schedules: NCRONTAB expressions of six fields, in UTC.

`{second} {minute} {hour} {day} {month} {day-of-week}`, day-of-week 0 = Sunday; months and days also by their English
names of three letters. Where both day and day-of-week are restricted, both must match, as in NCRONTAB and unlike cron.
"""

import re
from datetime import UTC, datetime

from croniter import croniter
from croniter.croniter import CroniterError

from local.host.errors import HostStartError

_ITEM = r"(?:\*|[A-Za-z]{3}|\d{1,2})(?:-(?:[A-Za-z]{3}|\d{1,2}))?(?:/\d{1,2})?"
_FIELD = re.compile(rf"{_ITEM}(?:,{_ITEM})*")
_FIELDS = 6


class Schedule:
    """A parsed schedule."""

    def __init__(self, expression: str, *, function: str) -> None:
        """Parse a schedule. Raises HostStartError naming the function."""
        self._expression = " ".join(expression.split())
        fields = self._expression.split(" ")
        if len(fields) != _FIELDS or not all(_FIELD.fullmatch(field) for field in fields):
            raise HostStartError.in_function(
                function,
                f"its schedule {expression!r} is not one of six fields: "
                "{second} {minute} {hour} {day} {month} {day-of-week}, such as '0 */5 * * * *'",
            )
        try:
            self.after(datetime.now(UTC))
        except (CroniterError, ValueError) as error:
            raise HostStartError.in_function(
                function, f"its schedule {expression!r} cannot be followed: {error}"
            ) from None

    def after(self, moment: datetime) -> datetime:
        """The first occurrence after a moment."""
        found = croniter(self._expression, moment, second_at_beginning=True, day_or=False).get_next(datetime)
        assert isinstance(found, datetime)  # noqa: S101 - asked for just above
        return found

    def __str__(self) -> str:
        return self._expression
