"""The lines that tell a Llama of its environment: its interpreter, its built-in tools, the date."""

from __future__ import annotations

import datetime

__all__ = ["date_lines", "long_date", "short_date"]

_KNOWLEDGE_CUTOFF = "December 2023"

# English whatever the locale, which strftime would follow.
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def date_lines(date: str) -> str:
    """Two lines: how far the model's knowledge goes, and what day it is."""
    return f"Cutting Knowledge Date: {_KNOWLEDGE_CUTOFF}\nToday Date: {date}"


def long_date(date: datetime.date) -> str:
    """`24 September 2024`, as Meta's documents write it."""
    return f"{date.day:02d} {_MONTHS[date.month - 1]} {date.year}"


def short_date(date: datetime.date) -> str:
    """`24 Sep 2024`, as Hugging Face's templates write it."""
    return f"{date.day:02d} {_MONTHS[date.month - 1][:3]} {date.year}"
