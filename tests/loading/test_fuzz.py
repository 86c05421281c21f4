"""A short run of tests/fuzz.py: every damaged file is loaded or listed, and no process crashes."""

from pathlib import Path

import numpy as np

from tests import fuzz, fuzz_metadata


def test_a_seed_gives_the_same_damaged_files_again_and_no_two_are_equal() -> None:
    files = fuzz.originals()
    one, other = ([fuzz.damaged(np.random.default_rng(seed), files) for seed in range(50)] for _ in range(2))
    assert one == other
    assert len(set(one)) == 50
    assert not set(one) & set(files)


def test_the_check_completes_on_damaged_files_and_counts_all(tmp_path: Path) -> None:
    assert 50 < fuzz.fuzz_check(tmp_path, 300, seed=0) < 300


def test_a_loader_skips_damaged_files_and_loses_no_good_one(tmp_path: Path) -> None:
    assert 5 < fuzz.fuzz_loader(tmp_path, 30, seed=1) < 30


def test_a_gif_a_text_and_an_empty_file_do_not_affect_their_batch(tmp_path: Path) -> None:
    fuzz.fuzz_strays(tmp_path, times=2)


def test_damaged_metadata_change_no_pixels() -> None:
    assert 0 < fuzz_metadata.fuzz(400, seed=1) < 200
