"""The fuzzing of tests/fuzz.py in short: every damaged file is loaded or listed, and no process dies of one."""

from pathlib import Path

import numpy as np

from tests import fuzz


def test_damage_is_of_all_degrees_and_the_same_for_a_seed() -> None:
    files = fuzz.originals()
    one, other = ([fuzz.damaged(np.random.default_rng(seed), files) for seed in range(50)] for _ in range(2))
    assert one == other
    assert len(set(one)) == 50
    assert not set(one) & set(files)


def test_the_check_survives_damaged_files_and_counts_all(tmp_path: Path) -> None:
    assert 50 < fuzz.fuzz_check(tmp_path, 300, seed=0) < 300


def test_a_loader_survives_damaged_files_among_good_ones_and_loses_none_of_those(tmp_path: Path) -> None:
    assert 5 < fuzz.fuzz_loader(tmp_path, 30, seed=1) < 30


def test_a_gif_a_text_and_an_empty_file_cost_a_batch_nothing_else(tmp_path: Path) -> None:
    fuzz.fuzz_strays(tmp_path, times=2)
