"""timm's model, optimizer and scheduler, in a loop like that of its train.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastpets import Loader
from fastpets.data.sources import as_dataset
from fastpets.errors import InvalidArgumentError
from tests.clients.batch_recorder import NUM_CLASSES, BatchRecorder, MakeLoaders, check_passes, evaluate
from tests.images import drawing

timm = pytest.importorskip("timm", reason="timm is not installed; it comes with the extra clients")


def test_timms_loop_has_each_batch_of_each_epoch_once(make_loaders: MakeLoaders) -> None:
    from timm.data import resolve_model_data_config
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    model = timm.create_model("test_resnet", num_classes=NUM_CLASSES)
    data = resolve_model_data_config(model)
    train, valid = make_loaders(mean=data["mean"], std=data["std"])
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2)
    scheduler, num_epochs = create_scheduler_v2(
        optimizer, num_epochs=2, updates_per_epoch=len(train), step_on_epochs=False
    )
    rates = []
    criterion = BatchRecorder(model)
    for epoch in range(num_epochs):
        train.sampler.set_epoch(epoch)
        model.train()
        for step, (images, labels) in enumerate(train, start=1):
            rates.append(optimizer.param_groups[0]["lr"])
            criterion(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(epoch * len(train) + step)
        evaluate(model, criterion, valid)
        scheduler.step(epoch + 1)
    check_passes(criterion.passes(), *make_loaders(mean=data["mean"], std=data["std"]))
    criterion.check_learning()
    whole_epochs = torch.linspace(0, torch.pi, 2 * len(train) + 1)[:-1]
    assert rates == pytest.approx((1e-2 * (1 + whole_epochs.cos()) / 2).tolist(), rel=1e-4)


@pytest.mark.parametrize("class_map", [None, {"kind0": 4, "kind1": 0, "kind2": 2}])
def test_create_dataset_has_the_images_and_labels_of_its_reader(
    make_folder: Callable[..., Path], tmp_path: Path, class_map: dict[str, int] | None
) -> None:
    from timm.data import create_dataset

    for path in sorted(make_folder(12, num_classes=3).iterdir()):
        target = tmp_path / "train" / path.name.partition("_")[0] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    source = create_dataset("", root=str(tmp_path), split="train", class_map=class_map or "")
    loader = Loader(source, 4, size=32, num_workers=2, device="cpu")
    assert loader.dataset.labels.tolist() == [source[i][1] for i in range(len(source))]
    assert list(loader.dataset.paths) == [source.filename(i, absolute=True) for i in range(len(source))]
    assert {loader.classes[label] for label in loader.dataset.labels} == {"kind0", "kind1", "kind2"}
    names = [Path(path).parent.name for path in loader.dataset.paths]
    assert [loader.classes[label] for label in loader.dataset.labels] == names
    images = torch.cat([images for images, _ in loader])
    plain = Loader(list(loader.dataset.paths), 4, size=32, num_workers=2, device="cpu")
    assert torch.equal(images, torch.cat([images for images, _ in plain]))
    source.transform = len
    with pytest.warns(UserWarning, match="the transform of this ImageDataset is not used"):
        as_dataset(source)


def test_create_dataset_of_hugging_face_is_read_by_row(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets", reason="datasets is not installed; it comes with the extra clients")
    from timm.data import create_dataset

    paths = sorted(make_folder(12, num_classes=3).iterdir())
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["kind0", "kind1", "kind2"])})
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "label": [path.name.partition("_")[0] for path in paths],
    }
    (tmp_path / "data").mkdir()
    hf.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data" / "train-00000.parquet")
    source = create_dataset(f"hfds/{tmp_path / 'data'}", root=str(tmp_path / "hf_cache"), split="train")
    loader = Loader(source, 4, size=32, num_workers=2, device="cpu")
    assert loader.classes == ("kind0", "kind1", "kind2")
    assert loader.dataset.labels.tolist() == [source[i][1] for i in range(len(source))]
    plain = Loader(paths, 4, size=32, num_workers=2, device="cpu")
    found, expected = (torch.cat([images for images, _ in each]) for each in (loader, plain))
    assert torch.equal(found, expected)


def test_a_reader_of_tar_files_is_refused_in_one_line(tmp_path: Path) -> None:
    import tarfile

    from timm.data import create_dataset

    drawing(40, 50, seed=0).save(tmp_path / "1.jpg")
    with tarfile.open(tmp_path / "kind.tar", "w") as tar:
        tar.add(tmp_path / "1.jpg", "1.jpg")
    (tmp_path / "1.jpg").unlink()
    source = create_dataset("", root=str(tmp_path / "kind.tar"))
    with pytest.raises(InvalidArgumentError, match=r"^source: timm's ReaderImageInTar, expected a folder or"):
        as_dataset(source)
