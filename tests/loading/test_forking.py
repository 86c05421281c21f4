"""A forked child loads after its parent has used torch's threads, which the child does not have.

A torch operation in the child that divides its work among OpenMP's threads would wait for them for ever.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from fastpets import Loader  # noqa: F401  the tests run with each decoder
from tests.images import drawing

NUM_IMAGES = 256
# Exits with a message if a forked child cannot load with one of some loaders, which the parent has used after OpenMP.
PROGRAM = """
import faulthandler, gc, multiprocessing, os, sys, warnings
import torch
from fastpets import Loader

folder, decoder = sys.argv[1:]
warnings.simplefilter("ignore")
settings = {"size": 32, "augment": True, "device": "cpu", "num_workers": 2, "decoder": decoder, "drop_last": False}

def load(loader, answer):
    faulthandler.dump_traceback_later(20, exit=True)  # shows where the child waits
    num_images = sum(len(batch.labels) for batch in loader)
    gc.collect()  # what the parent has left
    answer.send(num_images)

torch.set_num_threads(2)
torch.rand(1000, 1000).exp().sum()  # starts OpenMP's threads
for batch_size in (64, 256):
    for changes in (
        {},
        {"cache": "host"},
        {"cache": "host", "dtype": torch.float16},
        {"on_bad_file": "skip"},
        {"sampler": "balanced"},
    ):
        bad = [(os.path.join(folder, "cut.jpg"), "kind0")] if "on_bad_file" in changes else []
        good = [(entry.path, entry.name.split("_")[0]) for entry in os.scandir(folder) if entry.name != "cut.jpg"]
        loader = Loader(sorted(good) + bad, batch_size, **settings | changes)
        before = sum(len(batch.labels) for batch in loader)
        if bad:
            loader = Loader(loader.dataset, batch_size, **settings | changes)  # which has not met the bad file yet
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(target=load, args=(loader, theirs))
        child.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(60) else "nothing"
        except EOFError:
            found = "nothing"
        child.join()
        if (found, child.exitcode) != (before, 0):
            sys.exit(f"batches of {batch_size}, {changes}: {found} of {before} images, exit status {child.exitcode}")
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of NUM_IMAGES images, and one that ends early."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_IMAGES):
        drawing(40, 50, seed=number).save(folder / f"kind{number % 2}_{number}.jpg")
    (folder / "cut.jpg").write_bytes((folder / "kind0_0.jpg").read_bytes()[:700])
    return folder


@pytest.mark.slow
def test_a_forked_child_loads_whatever_the_parent_did(photos: Path, decoder: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(photos), decoder]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert child.returncode == 0, child.stderr
