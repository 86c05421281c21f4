"""Memory does not grow with the epochs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastpets import Loader  # noqa: F401  the tests run with each decoder

pytestmark = pytest.mark.slow

EPOCHS = 20
LOOP = f"""
import sys
from fastpets import Loader
from fastpets.data.sources import from_folder
settings = {{"cache": sys.argv[2], "decoder": sys.argv[3], "device": "cpu"}}
loader = Loader(from_folder(sys.argv[1]), augment=True, batch_size=16, **settings)
for _ in range({EPOCHS}):
    for batch in loader:
        pass
    del batch
    with open("/proc/self/statm") as file:
        print(int(file.read().split()[1]))  # resident pages
"""


@pytest.mark.parametrize("cache", ["none", "host"])
def test_resident_memory_is_flat_over_twenty_epochs(pets: Path, cache: str, decoder: str) -> None:
    command = [sys.executable, "-c", LOOP, str(pets), cache, decoder]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    resident = np.array(child.stdout.split(), float)
    assert len(resident) == EPOCHS
    # Now and then DALI has a batch in hand still when an epoch ends: of 16 images, that is 1% of it all.
    assert np.median(resident[-6:]) < 1.03 * np.median(resident[2:8])
