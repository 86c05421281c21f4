"""Data sets of Hugging Face, in memory, on disk and as Parquet files, as sources; their bytes are read per batch."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import fastpets
from fastpets import Loader
from fastpets.cli import main
from fastpets.data.hf_datasets import Rows
from fastpets.data.parquet import _in_use
from fastpets.data.sources import as_dataset
from fastpets.errors import FastpetsError

hf = pytest.importorskip("datasets", reason="datasets is not installed; it comes with the extra clients")
SETTINGS: dict[str, Any] = {"size": 32, "batch_size": 4, "num_workers": 2, "device": "cpu"}
NAMES = ["kind0", "kind1", "kind2"]


@pytest.fixture
def files(make_folder: Callable[..., Path]) -> list[Path]:
    """18 files of the classes in turn."""
    return sorted(make_folder(18, num_classes=3).iterdir(), key=lambda path: int(path.stem.partition("_")[2]))


def rows(files: list[Path], **others: Any) -> Any:
    """A data set in memory, with the bytes of the files."""
    labels = [path.name.partition("_")[0] for path in files]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    features = {"image": hf.Image(), "label": hf.ClassLabel(names=NAMES)}
    return hf.Dataset.from_dict({"image": images, "label": labels, **others}, features=hf.Features(features))


def pixels(loader: Loader) -> list[torch.Tensor]:
    """The images of all batches."""
    return [images for images, _ in loader]


def check_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert [len(images) for images in found] == [len(images) for images in expected]
    assert all(map(torch.equal, found, expected))


def expected(files: list[Path]) -> list[torch.Tensor]:
    return pixels(Loader([(path, path.name.partition("_")[0]) for path in files], **SETTINGS))


def test_batches_are_those_of_the_files_in_memory_on_disk_and_after_a_shuffle(
    files: list[Path], tmp_path: Path
) -> None:
    memory = rows(files)
    memory.save_to_disk(tmp_path / "saved")
    disk = hf.load_from_disk(tmp_path / "saved")
    undecoded = disk.cast_column("image", hf.Image(decode=False))
    for source in (memory, disk, undecoded, disk.with_format("torch")):
        found = Loader(source, **SETTINGS)
        assert found.classes == tuple(NAMES)
        assert found.dataset.labels.tolist() == [int(path.name[4]) for path in files]
        check_same(pixels(found), expected(files))
    shuffled = disk.shuffle(seed=3).select(range(2, 12))
    order = [
        files.index(files[0].parent / row["path"])
        for row in shuffled.cast_column("image", hf.Image(decode=False))["image"]
    ]
    check_same(pixels(Loader(shuffled, **SETTINGS)), expected([files[i] for i in order]))


def test_images_that_are_files_are_read_as_files_and_without_labels_there_are_none(files: list[Path]) -> None:
    source = hf.Dataset.from_dict({"image": list(map(str, files))}).cast_column("image", hf.Image())
    dataset = as_dataset(source)
    assert list(dataset.paths) == list(map(str, files))
    assert dataset.labels.tolist() == [-1] * len(files)
    assert as_dataset(rows(files), label_from="none").classes == ()


def test_only_the_rows_of_the_batches_are_read(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loader, read = Loader(rows(files), **SETTINGS), list[int]()
    original = Rows.read
    monkeypatch.setattr(Rows, "read", lambda self, index: (read.append(index), original(self, index))[1])
    for _ in loader:
        break
    assert set(read) < set(range(len(files)))  # two batches ahead, not all


def test_a_loader_works_in_another_process_and_when_its_data_set_is_gone(files: list[Path], tmp_path: Path) -> None:
    rows(files).save_to_disk(tmp_path / "saved")
    for source in (rows(files), hf.load_from_disk(tmp_path / "saved")):
        loader = Loader(source, **SETTINGS)
        del source
        (tmp_path / "loader.pickle").write_bytes(pickle.dumps(loader))
        copy = pickle.loads((tmp_path / "loader.pickle").read_bytes())
        del loader
        check_same(pixels(copy), expected(files))
        code = (
            "import pickle, sys, torch; loader = pickle.load(open(sys.argv[1], 'rb'));"
            "torch.save([images for images, _ in loader], sys.argv[2])"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "loader.pickle"), str(tmp_path / "batches.pt")]
        subprocess.run(command, check=True)
        check_same(torch.load(tmp_path / "batches.pt"), expected(files))


def test_a_dict_of_data_sets_is_the_split(files: list[Path]) -> None:
    parts = hf.DatasetDict(train=rows(files[:10]), validation=rows(files[10:14]), test=rows(files[14:]))
    for source in (parts, dict(parts)):
        train, valid = fastpets.loaders(source, **SETTINGS)
        assert (len(train.dataset), len(valid.dataset)) == (10, 4)
        check_same(pixels(valid), expected(files[10:14]))
    train, valid = fastpets.loaders(rows(files), valid_share=0.4, **SETTINGS)
    assert (len(train.dataset), len(valid.dataset)) == (11, 7)
    for kind, source in {"DatasetDict": parts, "dict": dict(parts)}.items():
        with pytest.raises(FastpetsError, match=f"^source: {kind} of train, validation, test, expected one of them"):
            Loader(source, **SETTINGS)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_parquet_files_are_unpacked_once_and_their_names_are_the_split(
    files: list[Path], scheme: str, tmp_path: Path
) -> None:
    folder = f"{scheme}{tmp_path}/data"
    parts = {"train-00000-of-00002": files[:6], "train-00001-of-00002": files[6:12], "validation": files[12:]}
    for name, part in parts.items():
        rows(part).to_parquet(tmp_path / "one.parquet")
        with fsspec.open(f"{folder}/{name}.parquet", "wb", auto_mkdir=True) as target:
            target.write((tmp_path / "one.parquet").read_bytes())
    train, valid = fastpets.loaders(f"{folder}/*.parquet", **SETTINGS)
    assert (len(train.dataset), len(valid.dataset)) == (12, 6)
    assert train.classes == valid.classes == tuple(NAMES)
    assert train.dataset.labels.tolist() == [int(path.name[4]) for path in files[:12]]
    check_same(pixels(valid), expected(files[12:]))
    whole = f"{folder}/train-{{00000..00001}}-of-00002.parquet"
    check_same(pixels(Loader(whole, **SETTINGS)), expected(files[:12]))
    unpacked = valid.dataset.paths[0].partition("::")[0]
    before = Path(unpacked).stat().st_ino
    assert Path(unpacked).read_bytes() == b"".join(path.read_bytes() for path in files[12:])
    fastpets.loaders(f"{folder}/*.parquet", **SETTINGS)
    assert Path(unpacked).stat().st_ino == before
    rows(files[13:]).to_parquet(tmp_path / "one.parquet")  # another file in its place is another data set
    with fsspec.open(f"{folder}/validation.parquet", "wb") as target:
        target.write((tmp_path / "one.parquet").read_bytes())
    check_same(pixels(fastpets.loaders(f"{folder}/*.parquet", **SETTINGS)[1]), expected(files[13:]))


def test_unpacked_files_are_listed_and_cleared_unless_a_process_uses_them(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows(files).to_parquet(tmp_path / "all.parquet")
    unpacked = Loader(tmp_path / "all.parquet", **SETTINGS).dataset.paths[0].partition("::")[0]
    assert main(["cache", "list"]) == 0
    assert f"  {'unpacked Parquet':>18}      0.00 GB  {unpacked}\n" in capsys.readouterr().out
    assert main(["cache", "clear", unpacked]) == 1
    assert f"{unpacked}  in use by a process: not removed\n" in capsys.readouterr().out
    other = [sys.executable, "-m", "fastpets", "cache", "clear", unpacked]
    assert subprocess.run(other, check=False).returncode == 1
    os.close(_in_use.pop(Path(unpacked).parent))  # as when the process ends
    assert subprocess.run(other, check=False).returncode == 0
    assert not Path(unpacked).exists()
    assert not Path(unpacked).with_suffix(".parquet").exists()


def test_parquet_files_in_folders_named_train_and_test_are_the_split(files: list[Path], tmp_path: Path) -> None:
    for name, part in {"train": files[:9], "validation": files[9:14], "test": files[14:]}.items():
        rows(part).to_parquet(tmp_path / name / "0000.parquet")
    train, valid = fastpets.loaders(f"{tmp_path}/*/*.parquet", **SETTINGS)
    assert (len(train.dataset), len(valid.dataset)) == (9, 5)
    check_same(pixels(valid), expected(files[9:14]))


def test_parquet_of_others_has_bytes_and_names(files: list[Path], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = [path.name.partition("_")[0] for path in files]
    pq.write_table(pa.table({"img": [path.read_bytes() for path in files], "class": labels}), tmp_path / "a.parquet")
    found = Loader(tmp_path / "a.parquet", **SETTINGS)
    assert found.classes == tuple(NAMES)
    check_same(pixels(found), expected(files))


def test_a_row_without_an_image_is_one_bad_file(files: list[Path], tmp_path: Path) -> None:
    images = [None if i == 1 else {"bytes": path.read_bytes(), "path": None} for i, path in enumerate(files)]
    source = hf.Dataset.from_dict({"image": images}, features=hf.Features({"image": hf.Image()}))
    source.to_parquet(tmp_path / "a.parquet")
    for problem, rows_of in {"row 1 has no image": source, "0 bytes": tmp_path / "a.parquet"}.items():
        with pytest.warns(UserWarning, match=f"left out: .*{problem}"):
            loader = Loader(rows_of, on_bad_file="skip", **SETTINGS)
        check_same([torch.cat(pixels(loader))], [torch.cat(expected([files[0], *files[2:]]))])
        (path,) = loader.bad_files
        assert path.endswith("row-1")


def test_missing_and_blank_names_are_no_label(files: list[Path]) -> None:
    source = rows(files[:6]).remove_columns("label").add_column("label", ["b", None, "a", "", " ", "b"])
    dataset = as_dataset(source)
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [1, -1, 0, -1, -1, 1]


def test_titles_of_columns_are_those_of_tables_in_any_case(files: list[Path], tmp_path: Path) -> None:
    labels = [path.name[:5] for path in files]
    source = rows(files).remove_columns("label").add_column(" Label", labels)
    source.to_parquet(tmp_path / "a.parquet")
    for each in (source, tmp_path / "a.parquet"):
        dataset = as_dataset(each)
        assert [dataset.classes[label] for label in dataset.labels] == labels


def test_columns_of_labels_need_not_be_clear_if_none_are_wanted(files: list[Path], tmp_path: Path) -> None:
    labels = [int(path.name[4]) for path in files]
    source = rows(files).rename_column("label", "fine").add_column("coarse", labels)
    source = source.cast_column("coarse", hf.ClassLabel(names=NAMES))
    source.to_parquet(tmp_path / "a.parquet")
    for several, advice in {source: "remove_columns", str(tmp_path / "a.parquet"): r"load_dataset\("}.items():
        assert set(as_dataset(several, label_from="none").labels) == {-1}
        assert fastpets.loaders(several, label_from="none", **SETTINGS)[0].classes == ()
        message = f"columns fine, coarse of labels, expected one; .*{advice}.*, or pass label_from='none'"
        with pytest.raises(FastpetsError, match=message):
            as_dataset(several)
    assert fastpets.loaders({"train": source, "valid": source}, label_from="none", **SETTINGS)[0].classes == ()


def test_the_file_system_of_the_hub_is_known() -> None:
    assert fsspec.get_filesystem_class("hf").__name__ == "HfFileSystem"


def test_what_is_not_clear_is_one_line(files: list[Path], tmp_path: Path) -> None:
    memory = rows(files)
    classes = hf.ClassLabel(names=NAMES)
    ambiguous = memory.rename_column("label", "fine").add_column("coarse", memory["label"])
    ambiguous = ambiguous.cast_column("coarse", classes)
    cases = {
        r"^source: columns label, expected one of images": memory.remove_columns("image"),
        r"^source: columns fine, coarse of labels, expected one": ambiguous,
        r"^source: IterableDataset, expected a data set that is not streamed": memory.to_iterable_dataset(),
        r"a.parquet: .*, expected a Parquet file": tmp_path / "a.parquet",
        r"b.parquet: columns x, expected one of images": tmp_path / "b.parquet",
        r"gone-\*.parquet: nothing there, expected Parquet files": tmp_path / "gone-*.parquet",
    }
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    hf.Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "b.parquet")
    for message, source in cases.items():
        with pytest.raises(FastpetsError, match=message):
            as_dataset(source)
    with pytest.warns(UserWarning, match="the transform of this Dataset is not used"):
        as_dataset(memory.with_transform(lambda batch: batch))


def test_unlabelled_rows_have_no_label(files: list[Path]) -> None:
    source = rows(files).remove_columns("label").add_column("label", [-1, 0, 1] * 6)
    assert as_dataset(source).labels.tolist() == [-1, 0, 1] * 6
