"""Compares settings of the loader with its defaults, uncached.

A value is only worth the place of the default if its slowest measurement is above the default's fastest: the two are
measured in turn, three times.
"""

import sys
from typing import Any

from bench.gpu.loading import rate_of
from bench.gpu.part import Part, linked_images
from fastpets.loading import dali_decoding
from fastpets.utils.system import resolve_num_workers
from tests.devices import num_jpeg_engines

ROUNDS = 3


def main() -> None:
    part = Part(__doc__)
    defaults: dict[str, Any] = {
        "num_workers": resolve_num_workers(None),
        "batch_size": part.scale.batch_size,
        "hw_decoder_load": 0.0,
        "decode_ahead": dali_decoding.DECODE_AHEAD,
    }
    candidates: dict[str, list[Any]] = {
        "hw_decoder_load": [0.35, 0.65, 1.0] if num_jpeg_engines() else [],
        "num_workers": [4, 8, 16, 32],
        "decode_ahead": [3, 4],
        "batch_size": [64, 512],
    }
    with linked_images(part.scale.num_images) as folder:

        def rate(decode_ahead: int, **settings: Any) -> float:
            dali_decoding.DECODE_AHEAD = decode_ahead
            return rate_of(part, folder, **settings)["images_per_sec"]

        for name, values in candidates.items():
            for value in values[: 1 if part.dry_run else None]:
                if value == defaults[name]:
                    continue
                if part.seconds_left < 2 * ROUNDS * (part.scale.seconds + 1):
                    part.add(f"{name} {value}", "no time left")
                    continue
                pairs = [(rate(**defaults), rate(**defaults | {name: value})) for _ in range(ROUNDS)]
                usual, other = (sorted(rates) for rates in zip(*pairs, strict=True))
                part.add(
                    f"{name} {value}, {defaults[name]} by default",
                    f"{other[1] / usual[1]:.2f} of its rate",
                    advice(usual, other),
                    default=usual,
                    other=other,
                )


def advice(usual: list[float], other: list[float]) -> str:
    """What the rates of the default and of another value say about the default."""
    if min(other) > max(usual):
        return "faster: reconsider the default"
    return "slower" if max(other) < min(usual) else "within the noise"


if __name__ == "__main__":
    sys.exit(main())
