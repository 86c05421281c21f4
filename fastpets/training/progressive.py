"""Progressive resizing: small images first, which train faster, and the full size last."""

MULTIPLE = 32  # px: sides that a network halves five times


def progressive_size(smallest: tuple[int, int], largest: tuple[int, int], share: float) -> tuple[int, int]:
    """Height and width after a `share` of the way, 0-1, from `smallest` to `largest`, in steps of MULTIPLE pixels."""
    if share >= 1:
        return largest
    height, width = (
        min(high, low + round((high - low) * share / MULTIPLE) * MULTIPLE)
        for low, high in zip(smallest, largest, strict=True)
    )
    return height, width
