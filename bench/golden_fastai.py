"""Golden values of fastai's `aug_transforms(size, min_scale=0.75)`, for tests that run without fastai.

    python -m bench.golden_fastai

writes `tests/golden/fastai_transforms.json`: for some random parameters, named as in `RandomParameters`, where on the
canvas 5 x 5 points of the crop come from, and the lookup table of brightness and contrast. All of it is computed by
fastai's own code, in float64 instead of its float32, so that the file shows its formulas and not their rounding.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import fastai
import torch
from fastai.vision.all import IntToFloatTensor, Pipeline, TensorImage, aug_transforms

FILE = Path(__file__).parent.parent / "tests" / "golden" / "fastai_transforms.json"
DECIMALS = 12
SIDE = 400  # of the canvas, in pixels: crops of 348, 360 and 380 px have corners, and quarters, at whole pixels
NEUTRAL = {
    **{"flip": False, "rotate": 0.0, "zoom": 1.0, "zoom_x": 0.5, "zoom_y": 0.5, "warp_x": 0.0, "warp_y": 0.0},
    **{"crop_scale": 1.0, "crop_x": 0.0, "crop_y": 0.0, "aspect": 1.0},
}
SMALLEST = (348 / SIDE) ** 2  # the smallest such crop above 0.75 of the area
GEOMETRY: dict[str, dict[str, Any]] = {
    "identity": {},
    "flip": {"flip": True},
    "turn clockwise": {"rotate": 10.0},
    "turn counterclockwise": {"rotate": -7.0},
    "zoom": {"zoom": 1.1, "zoom_x": 0.2, "zoom_y": 0.9},
    "warp x": {"warp_x": 0.2},
    "warp y": {"warp_y": -0.15},
    "warp both": {"warp_x": -0.1, "warp_y": 0.18},
    "crop": {"crop_scale": 0.95**2, "crop_x": 0.25, "crop_y": 0.6},
    "flip, turn": {"flip": True, "rotate": 9.0},
    "turn, zoom": {"rotate": 9.0, "zoom": 1.08, "zoom_x": 0.8, "zoom_y": 0.1},
    "all": {
        **{"flip": True, "rotate": -6.0, "zoom": 1.05, "zoom_x": 0.7, "zoom_y": 0.3, "warp_x": 0.12, "warp_y": -0.07},
        **{"crop_scale": 0.9**2, "crop_x": 0.75, "crop_y": 0.1},
    },
    "all at their limits": {
        **{"flip": True, "rotate": 10.0, "zoom": 1.1, "zoom_x": 0.0, "zoom_y": 1.0, "warp_x": 0.2, "warp_y": 0.2},
        **{"crop_scale": SMALLEST, "crop_x": 1.0, "crop_y": 0.0},
    },
    "all far beyond": {
        **{"rotate": -150.0, "zoom": 3.0, "zoom_x": 0.9, "zoom_y": 0.4, "warp_x": -0.35, "warp_y": 0.3},
        **{"crop_scale": SMALLEST, "crop_x": 0.5, "crop_y": 0.25},
    },
    "wide canvas": {"aspect": 2.0, "flip": True, "rotate": 10.0, "warp_x": 0.2, "warp_y": -0.1},
}
LIGHTING = ((0.5, 1.0), (0.4, 1.0), (0.6, 1.0), (0.5, 0.8), (0.5, 1.25), (0.43, 1.12))  # brightness, contrast


def transforms_with(parameters: Mapping[str, Any]) -> list:
    """fastai's three transforms, in the order in which it applies them, with fixed random parameters."""
    affine, crop, lighting = Pipeline(aug_transforms(size=5, min_scale=0.75)).fs
    fixed = {
        "flip_mat": {"draw": float(parameters["flip"])},
        "rotate_mat": {"draw": parameters["rotate"]},
        "zoom_mat": {"draw": parameters["zoom"], "draw_x": parameters["zoom_x"], "draw_y": parameters["zoom_y"]},
    }
    affine.aff_fs = [partial(matrix, p=1.0, **fixed[matrix.func.__name__]) for matrix in affine.aff_fs]
    (warp,) = affine.coord_fs
    warp.p, warp.draw_x, warp.draw_y = 1.0, parameters["warp_x"], parameters["warp_y"]
    brightness, contrast = lighting.fs
    brightness.p, brightness.draw = 1.0, parameters.get("brightness", 0.5)
    contrast.p, contrast.draw = 1.0, parameters.get("contrast", 1.0)
    crop.min_scale = crop.max_scale = parameters["crop_scale"]
    return [affine, crop, lighting]


def canvas_points(parameters: Mapping[str, Any]) -> torch.Tensor:
    """Where 5 x 5 points of the crop, from corner to corner, come from on the canvas: (5, 5, 2) x, y from -1 to 1.

    With align_corners=True, as here, fastai's coordinates -1 and 1 are the centres of the outermost of n pixels. Its n
    equidistant centres are taken as the edges of n - 1 pixels here, since -1 and 1 are the outer edges of our canvas;
    corners of its crop, a box of whole pixels, are such edges.
    """
    height, width = round(SIDE / parameters["aspect"]), SIDE
    affine, crop, _ = transforms_with(parameters)
    edges = TensorImage(torch.zeros(1, 3, height + 1, width + 1, dtype=torch.float64))
    edges.img_size = height, width  # the aspect ratio that a rotation preserves
    with mock.patch("fastai.vision.augment._grid_sample") as sample:
        sample.side_effect = lambda pixels, *_, **__: pixels
        affine(edges, split_idx=0)
    coordinates = sample.call_args.args[1][0]
    box = (0, 0), (height, width)
    if height == width:  # fastai's crops are square on any canvas: wide ones are not cropped here
        room = SIDE - round(parameters["crop_scale"] ** 0.5 * SIDE)
        with mock.patch(
            "random.randint", side_effect=[round(parameters[axis] * room) for axis in ("crop_y", "crop_x")]
        ):
            crop.before_call(torch.zeros(1, 3, height, width), split_idx=0)
        box = crop.tl, crop.cp_size
    rows, columns = (torch.arange(5) * length // 4 + start for start, length in zip(*box, strict=True))
    return torch.Tensor(coordinates)[rows][:, columns]


def lighting_lut(brightness: float, contrast: float) -> torch.Tensor:
    """The lookup table of a brightness and a contrast: (256,) float64, 0-1."""
    image = TensorImage(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    _, _, lighting = transforms_with({**NEUTRAL, "brightness": brightness, "contrast": contrast})
    return torch.Tensor(lighting(IntToFloatTensor()(image), split_idx=0)).flatten()


def rounded(numbers: torch.Tensor) -> list:
    return (numbers.round(decimals=DECIMALS) + 0.0).tolist()  # + 0.0: no negative zeros


def golden() -> dict[str, Any]:
    geometry = []
    for name, changed in GEOMETRY.items():
        parameters = NEUTRAL | changed
        x, y = canvas_points(parameters).unbind(-1)
        geometry.append({"name": name, "parameters": parameters, "canvas_x": rounded(x), "canvas_y": rounded(y)})
    lighting = [
        {"parameters": {"brightness": brightness, "contrast": contrast},
         "lut": rounded(lighting_lut(brightness, contrast).view(64, 4))}
        for brightness, contrast in LIGHTING
    ]  # fmt: skip
    return {"fastai": fastai.__version__, "geometry": geometry, "lighting": lighting}


if __name__ == "__main__":
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        text = json.dumps(golden(), indent=1)
    innermost = re.compile(r"[\[{][^\[\]{}]*[\]}]")  # a row of numbers, or parameters: on one line
    FILE.write_text(innermost.sub(lambda found: " ".join(found[0].split()), text) + "\n")
