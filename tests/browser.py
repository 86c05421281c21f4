"""What a real browser's console says."""

from typing import Any


def complaints(driver: Any) -> list[str]:
    """What the console says, warnings and errors."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
