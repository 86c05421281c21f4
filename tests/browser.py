"""Messages in a browser's console."""

from typing import Any


def complaints(driver: Any) -> list[str]:
    """Warnings and errors in the console."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
