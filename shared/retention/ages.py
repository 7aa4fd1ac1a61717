"""How long what is counted is kept, in days, and for how long it is needed at least.

Windows are deleted by storage itself, by their age (a lifecycle rule of the telemetry container, which holds nothing
else), and beside it by `shared.retention.reports`, as far as a call comes. Roll-ups lie in the reports container, and
are deleted by the latter alone.
"""

WINDOW_DAYS_NEEDED = 32
"""Late windows are rolled up for 30 days, by whole days, and a roll-up that is damaged is made anew of them. Feedback,
budgets and the ticks of rollouts look back a few hours."""
WINDOW_DAYS = 35
HOURLY_DAYS_NEEDED = 33
"""The longest span of a report is 31 days; what is usual is learned from 14, and days are added up for 30, late."""
HOURLY_DAYS = 45
DAILY_DAYS_NEEDED = 280
"""What is usual is learned from 30 days or, of a report's longest span, from the eight such spans before it."""
DAILY_DAYS = 300
