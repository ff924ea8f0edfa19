"""`now`: the date and the time."""

from __future__ import annotations

import datetime
import zoneinfo

from corral.errors import ToolError
from corral.tools.function import tool

__all__ = ["now"]


@tool
def now(time_zone: str | None = None) -> dict[str, str]:
    """Tell the date and the time.

    Args:
        time_zone: Such as Europe/Oslo; by default the user's own.
    """
    try:
        zone = zoneinfo.ZoneInfo(time_zone) if time_zone else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(
            f"There is no time zone {time_zone!r}. Write it like Europe/Oslo, or UTC."
        ) from error
    moment = datetime.datetime.now(datetime.UTC).astimezone(zone)
    return {
        "date": f"{moment:%Y-%m-%d}",
        "time": f"{moment:%H:%M:%S}",
        "weekday": f"{moment:%A}",
        "time_zone": time_zone or str(moment.tzname()),
        "utc_offset": f"{moment:%z}",
    }
