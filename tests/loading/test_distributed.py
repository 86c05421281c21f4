"""Real processes, by torchrun and gloo, share an epoch whose size they do not divide evenly."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastpets import Loader

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent.parent / "distributed_worker.py"
EPOCHS = 2


def run(folder: Path, tmp_path: Path, world_size: int, **settings: Any) -> list[dict[str, Any]]:
    """The results of each process: by loader, a list of epochs of batches of [id, digest of the pixels]."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    arguments = [str(WORKER), str(folder), str(tmp_path), json.dumps(settings)]
    child = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world_size)]


def alone(folder: Path, **settings: Any) -> list[dict[int, str]]:
    """The digests of the pixels by id, for the same epochs in one process."""
    from tests.distributed_worker import digests

    loader = Loader(folder, size=16, device="cpu", batch_size=4, **settings)
    return [{i: digest for batch in digests(loader) for i, digest in batch} for _ in range(EPOCHS)]


@pytest.mark.parametrize(("num_images", "world_size", "batch_size"), [(10, 2, 3), (13, 3, 4), (10, 3, 3)])
def test_processes_train_in_equal_steps_on_disjoint_parts_and_validate_each_image_once(
    make_folder: Callable[..., Path], tmp_path: Path, num_images: int, world_size: int, batch_size: int
) -> None:
    folder = make_folder(num_images)
    ranks = run(folder, tmp_path, world_size, batch_size=batch_size)
    for name, augment in (("train", True), ("valid", False)):
        expected = alone(folder, augment=augment, drop_last=False)
        for epoch in range(EPOCHS):
            shares = [[tuple(each) for batch in rank[name][epoch] for each in batch] for rank in ranks]
            together = [each for share in shares for each in share]
            assert len({i for i, _ in together}) == len(together)
            assert all(expected[epoch][i] == digest for i, digest in together)
            if augment:
                assert len({tuple(map(len, rank[name][epoch])) for rank in ranks}) == 1
                assert num_images - len(together) < batch_size * world_size
            else:
                assert len(together) == num_images
            lengths = [rank["lengths"][name] for rank in ranks]
            assert lengths == [len(rank[name][epoch]) for rank in ranks]
    first, second = (
        [i for rank in ranks for batch in rank["train"][epoch] for i, _ in batch] for epoch in range(EPOCHS)
    )
    assert first != second  # reshuffled over the whole set


def test_a_samplers_items_are_divided_among_processes_but_not_those_of_a_distributed_sampler(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(10)
    ranks = run(folder, tmp_path, 2, batch_size=3, samplers=True)
    for epoch in range(EPOCHS):
        weighted = [[each for batch in rank["weighted"][epoch] for each in batch] for rank in ranks]
        assert [len(share) for share in weighted] == [6, 6]
        digests = [digest for share in weighted for _, digest in share]
        assert len(set(digests)) == 12  # a repeated image has new random parameters, also in another process
        own = [[i for batch in rank["distributed"][epoch] for i, _ in batch] for rank in ranks]
        assert sorted(own[0] + own[1]) == list(range(10))
        assert [len(share) for share in own] == [5, 5]
    assert ranks[0]["distributed"][0] != ranks[0]["distributed"][1]
