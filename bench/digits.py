"""Draws the handwritten digits that scikit-learn ships: 1,797 images of ten classes, which are unlike ImageNet's.

    python -m bench.digits FOLDER
    fastpets train FOLDER --recipe strong --folds 5 --size 96 --augment none

FOLDER gets a folder of PNG files, 96 x 96 pixels, for each digit. Augmentation is off, since a digit has no mirror
image.
"""

import argparse
from pathlib import Path

from PIL import Image

SIDE = 96


def draw(folder: Path) -> None:
    """Writes the images below `folder`, which is made."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (levels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / str(digit) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((levels * (255 / 16)).astype("uint8"))
        image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB").save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    draw(parser.parse_args().folder)


if __name__ == "__main__":
    main()
