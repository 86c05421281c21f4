"""A fastai Learner."""

from pathlib import Path

import pytest
import torch

from fastpets.data.splits import train_valid_datasets
from tests.clients.batch_recorder import BatchRecorder, MakeLoaders, check_passes, mean_loss

pytest.importorskip("fastai", reason="fastai is not installed; it comes with the extra clients")


def test_a_fit_has_each_batch_of_each_epoch_once(
    make_loaders: MakeLoaders, model: torch.nn.Module, tmp_path: Path
) -> None:
    from fastai.vision.all import DataLoaders, Learner

    train, valid = make_loaders()
    criterion = BatchRecorder(model)
    learner = Learner(DataLoaders(train, valid), model, loss_func=criterion, path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(2, 1e-2)
    passes = criterion.passes()
    check_passes(passes, *make_loaders())
    criterion.check_learning()
    assert learner.recorder.values[-1][1] == pytest.approx(mean_loss(passes[-1]), rel=1e-4)


@pytest.mark.parametrize("seed", [42, 7])
def test_the_split_fastai_has_the_validation_images_of_its_random_splitter(
    pets: Path, seed: int, tmp_path: Path
) -> None:
    from fastai.vision.all import RandomSplitter, get_image_files

    nested = tmp_path / "nested"  # folders and names as fastai takes and leaves them
    for number, path in enumerate(sorted(pets.iterdir())):
        link = nested / ("", "a", ".b", "c/d")[number % 4] / (f".{path.name}" if number % 7 == 0 else path.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    (nested / "notes.txt").touch()
    for folder in (pets, nested):
        files = get_image_files(folder)
        expected = [{str(files[i]) for i in part} for part in RandomSplitter(valid_pct=0.2, seed=seed)(files)]
        for source in (folder, list(files)):
            label = {"label_from": "name"}
            train, valid = train_valid_datasets(source, split="fastai", split_seed=seed, on_bad_file="skip", **label)
            assert [set(train.paths), set(valid.paths)] == expected


def test_the_split_fastai_of_a_table_is_that_of_its_data_frame(tmp_path: Path) -> None:
    from fastai.vision.all import RandomSplitter

    path = tmp_path / "labels.csv"
    path.write_text("file,label\n" + "".join(f"{n}.jpg,{'cat' if n % 3 else 'dog'}\n" for n in range(100)))
    _, valid = train_valid_datasets(path, split="fastai", valid_share=0.3, on_bad_file="skip")
    expected = RandomSplitter(valid_pct=0.3, seed=42)(list(range(100)))[1]
    assert [int(Path(path).stem) for path in valid.paths] == sorted(map(int, expected))
