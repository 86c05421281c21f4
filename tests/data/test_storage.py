"""Remote images, and images in tar shards, load like local files."""

import errno
import functools
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from fastpets import BadFileError, FastpetsError, Loader, loaders
from fastpets.cli import main
from fastpets.data import storage
from fastpets.data.sources import as_dataset, from_folder
from tests.epochs import pixels_by_id, same
from tests.images import drawing

SETTINGS: dict[str, Any] = {"size": 32, "augment": True, "drop_last": False, "device": "cpu", "batch_size": 4}
FAILED: set[str] = set()  # paths whose first request has failed
FORBIDDEN: list[str] = []  # path of each request that was refused


class Flaky(SimpleHTTPRequestHandler):
    """A file server that fails on the first request for each file with "flaky" in its name, and on all "forbidden"."""

    def do_GET(self) -> None:
        if "forbidden" in self.path:
            FORBIDDEN.append(self.path)
            self.send_error(403)
        elif "flaky" in self.path and self.path not in FAILED:
            FAILED.add(self.path)
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder over HTTP on the loopback interface and returns its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Flaky, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def in_memory(make_folder: Callable[..., Path]) -> Iterator[tuple[Path, str]]:
    """A local folder of images, and the URL of its copy in fsspec's memory file system."""
    folder = make_folder(10)
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/images/deep er/{path.name}", path.read_bytes())
    memory.pipe_file("/images/notes.txt", b"no image")
    memory.pipe_file("/images/.hidden/a_1.jpg", b"hidden")
    yield folder, "memory://images"
    memory.rm("/images", recursive=True)


def test_a_remote_folder_gives_the_pixels_of_the_local_one(in_memory: tuple[Path, str]) -> None:
    folder, url = in_memory
    here, there = Loader(folder, **SETTINGS), Loader(url, **SETTINGS)
    assert there.classes == here.classes == ("kind0", "kind1")
    assert [Path(path).name for path in there.dataset.ignored_files] == ["notes.txt"]
    assert same(pixels_by_id(here), pixels_by_id(there))


def test_a_folder_over_http_gives_the_pixels_of_the_local_one(
    make_folder: Callable[..., Path], serve: Callable[[Path], str]
) -> None:
    folder = make_folder(10)
    url = serve(folder)
    (folder / "kind0_0.jpg").rename(folder / "flaky_0.jpg")  # the first request for it fails
    here, there = Loader(folder, **SETTINGS), Loader(url + "/", **SETTINGS)
    assert same(pixels_by_id(here), pixels_by_id(there))


def test_a_list_may_mix_local_and_remote_files(in_memory: tuple[Path, str], serve: Callable[[Path], str]) -> None:
    folder, memory = in_memory
    url = serve(folder)
    mixed = [(f"{folder}/kind0_0.jpg", 0), (f"{memory}/deep er/kind1_1.jpg", 1), (f"{url}/kind0_2.jpg", 0)]
    found = pixels_by_id(Loader(mixed, **SETTINGS))
    expected = pixels_by_id(Loader([f"{folder}/kind{i % 2}_{i}.jpg" for i in range(3)], **SETTINGS))
    assert same(found, expected)


def test_a_remote_file_that_is_gone_is_a_bad_file(in_memory: tuple[Path, str]) -> None:
    _, url = in_memory
    loader = Loader(url, **SETTINGS)
    fsspec.filesystem("memory").rm("/images/deep er/kind0_4.jpg")
    with pytest.raises(BadFileError, match=r"kind0_4.jpg: unreadable"):
        list(loader)
    with pytest.raises(BadFileError, match=r"nowhere_1.jpg: unreadable"):
        Loader([f"{url}/nowhere_1.jpg"])


def test_a_request_that_is_refused_is_not_repeated(tmp_path: Path, serve: Callable[[Path], str]) -> None:
    url = serve(tmp_path)
    FORBIDDEN.clear()
    with pytest.raises(OSError, match=r"403.*\(attempts: 1\)"):
        storage.read(f"{url}/forbidden.jpg")
    assert len(FORBIDDEN) == 1


def test_a_remote_csv_is_a_source(in_memory: tuple[Path, str]) -> None:
    _, url = in_memory
    text = "\ufefffile,label\ndeep er/kind0_0.jpg,a\ndeep er/kind1_1.jpg,b\n"
    fsspec.filesystem("memory").pipe_file("/images/labels.csv", text.encode())
    dataset = as_dataset(f"{url}/labels.csv")
    assert list(dataset.paths) == [f"{url}/deep er/kind0_0.jpg", f"{url}/deep er/kind1_1.jpg"]
    assert dataset.classes == ("a", "b")
    with pytest.raises(FastpetsError, match=r"^memory://images/nothing.csv: .*, expected a CSV with the columns"):
        as_dataset(f"{url}/nothing.csv")


def test_stamps_are_requested_in_chunks_and_once_for_each_remote_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()
    requests: list[list[str]] = []

    class Pool:
        def map(self, function: Callable[[str], str], paths: list[str]) -> Iterator[str]:
            requests.append(list(paths))
            return iter(paths)

    monkeypatch.setattr(storage, "CHUNK", 3)
    local, shard = str(tmp_path / "a.jpg"), "s3://b/x.tar"
    paths = [local, "s3://b/1.jpg", f"{shard}::0+1::a.jpg", f"{shard}::1+1::b.jpg", str(tmp_path / "missing.jpg")]
    stamps = list(storage.stamps(paths, Pool()))  # type: ignore[arg-type]
    assert requests == [["s3://b/1.jpg", shard], [shard]]
    assert stamps == [stamps[0], "s3://b/1.jpg", shard, shard, "missing"]
    assert stamps[0].startswith("0 ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://nothing-here", "no image among 0 files"),
        ("nosuch://bucket/images", "nosuch://bucket/images: .*nosuch"),
        ("nothing-*.tar", "nothing-.*: nothing there, expected tar shards"),
        (
            "nothing-{0..9.tar",
            r"nothing-\{0..9.tar: Unbalanced braces.*, expected a path such as shard-",
        ),
    ],
)
def test_a_source_that_does_not_exist_is_rejected(source: str, message: str) -> None:
    with pytest.raises(FastpetsError, match=message):
        Loader(source)


def write_shards(folder: Path, target: Path, *, with_cls: bool) -> None:
    """Writes a folder's images into two tar shards as WebDataset does: KEY.jpg and, with `with_cls`, KEY.cls."""
    paths = sorted(folder.iterdir())
    for number, some in enumerate((paths[:4], paths[4:])):
        with tarfile.open(target / f"pets-{number:03}.tar", "w") as tar:
            for path in some:
                tar.add(path, f"./{path.name}")
                if with_cls:
                    content = path.name[4].encode()
                    info = tarfile.TarInfo(f"./{path.stem}.cls")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("name", ["pets-*.tar", "pets-{000..001}.tar", "pets-00{0,1}.tar"])
@pytest.mark.parametrize("with_cls", [False, True])
def test_tar_shards_give_the_pixels_and_labels_of_the_folder(
    make_folder: Callable[..., Path], tmp_path: Path, name: str, with_cls: bool
) -> None:
    folder = make_folder(10)
    write_shards(folder, tmp_path, with_cls=with_cls)
    here, there = Loader(folder, **SETTINGS), Loader(tmp_path / name, **SETTINGS)
    assert there.dataset.labels.tolist() == here.dataset.labels.tolist()
    assert there.classes == (("0", "1") if with_cls else ("kind0", "kind1"))
    assert same(pixels_by_id(here), pixels_by_id(there))


def test_remote_tar_shards_are_read_by_byte_ranges(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(10)
    write_shards(folder, tmp_path, with_cls=True)
    memory = fsspec.filesystem("memory")
    for shard in tmp_path.glob("*.tar"):
        memory.pipe_file(f"/shards/{shard.name}", shard.read_bytes())
    found = Loader("memory://shards/pets-*.tar", **SETTINGS)
    assert same(pixels_by_id(found), pixels_by_id(Loader(folder, **SETTINGS)))
    memory.rm("/shards", recursive=True)


def test_shards_have_no_labels_with_label_from_none(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    write_shards(make_folder(10), tmp_path, with_cls=True)
    dataset = as_dataset(tmp_path / "pets-*.tar", label_from="none")
    assert dataset.labels.tolist() == [-1] * 10
    assert (dataset.classes, dataset.ignored_files, dataset.label_from) == ((), (), "none")


def add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", *, link_to: str = "", type: bytes = tarfile.LNKTYPE
) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    if link_to:
        info.type, info.linkname = type, link_to
    tar.addfile(info, io.BytesIO(content))


def shard(folder: Path, files: dict[str, bytes | str], name: str = "pets.tar") -> Path:
    """A shard of files with their contents; those that are strings are symbolic links."""
    with tarfile.open(folder / name, "w") as tar:
        for member, content in files.items():
            if isinstance(content, str):
                add(tar, member, link_to=content, type=tarfile.SYMTYPE)
            else:
                add(tar, member, content)
    return folder / name


def labelled(path: Path) -> dict[str, str]:
    """The label of each image in a shard, by its name."""
    dataset = as_dataset(path)
    names = [storage.MEMBER.fullmatch(item)["name"] for item in dataset.paths]  # type: ignore[index]
    return dict(zip(names, [dataset.classes[label] for label in dataset.labels], strict=True))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.jpg": b"", "a.cls": b"x\n", "b.jpg": b"", "b.CLS": b"y"}, {"a.jpg": "x", "b.jpg": "y"}),
        ({"a.v2.jpg": b"", "a.cls": b"x"}, {"a.v2.jpg": "x"}),  # WebDataset's key is a
        ({"d.x/a.jpg": b"", "d.x/a.cls": b"x"}, {"d.x/a.jpg": "x"}),
        ({"a.jpg": b"", "a.mask.png": b"", "a.cls": b"x"}, {"a.jpg": "x"}),
        (
            {"3.5mm.jpg": b"", "3.5mm.cls": b"x", "3.2mm.jpg": b"", "3.2mm.cls": b"y"},
            {"3.5mm.jpg": "x", "3.2mm.jpg": "y"},
        ),
        ({"x/a.jpg": b"", "x/a.cls": b"x", "y/a.jpg": b"", "y/a.cls": b"y"}, {"x/a.jpg": "x", "y/a.jpg": "y"}),
        ({"a.json": b'"x"', "a.jpg": b"", "b.json": b"7", "b.jpg": b""}, {"a.jpg": "x", "b.jpg": "7"}),
        (
            {"a.json": b'{"Label": 7, "width": 3}', "a.jpg": b"", "b.json": b'{"class": "c"}', "b.jpg": b""},
            {"a.jpg": "7", "b.jpg": "c"},
        ),
        ({"a.json": b'{"target": 2.0}', "a.jpg": b""}, {"a.jpg": "2"}),
        ({"a.json": b'{"label": "y"}', "a.cls": b"x", "a.jpg": b""}, {"a.jpg": "x"}),
        ({"a.json": b"{", "a.cls": b"x", "a.jpg": b""}, {"a.jpg": "x"}),  # not needed
        ({"a_1.json": b'{"caption": "x"}', "a_1.jpg": b""}, {"a_1.jpg": "a"}),  # no label: that of the name
        (
            {"a.jpg": b"", "._a.jpg": b"", "__MACOSX/a.jpg": b"", "@eaDir/a.jpg": b"", ".x/a.jpg": b"", "a.cls": b"x"},
            {"a.jpg": "x"},
        ),
        (
            {"x_1.jpg": b"a", "d/y_1.jpg": "../x_1.jpg", "d/z_1.jpg": "y_1.jpg"},
            {"x_1.jpg": "x", "d/y_1.jpg": "y", "d/z_1.jpg": "z"},
        ),
        (
            {"y_1.jpg": "z_1.jpg", "z_1.jpg": "x_1.jpg", "x_1.jpg": b"a"},
            {"x_1.jpg": "x", "z_1.jpg": "z", "y_1.jpg": "y"},
        ),
        ({"x_1.jpg": b"a", "README": "nowhere", "d": "."}, {"x_1.jpg": "x"}),
        ({"a::0+3::b_1.jpg": b"content"}, {"a::0+3::b_1.jpg": "a::0+3::b"}),
    ],
)  # fmt: skip
def test_samples_of_shards_have_webdatasets_keys(
    files: dict[str, bytes | str], expected: dict[str, str], tmp_path: Path
) -> None:
    path = shard(tmp_path, files)
    assert labelled(path) == expected
    contents = {storage.read(item) for item in as_dataset(path).paths}
    assert contents == ({b"a"} if b"a" in files.values() else {b"content"} if "a::" in str(files) else {b""})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {f"x_{n}.{suffix}": b"1" for n in range(5) for suffix in ("jpg", "cls") if (n, suffix) != (3, "cls")},
            r"::x_3.jpg: no label in the shard \(1 of 5 images have none\); add KEY.cls or KEY.json",
        ),
        ({"a.jpg": b"", "a.cls": b" \n"}, r"a.cls: label '', expected a name or a whole number"),
        ({"a.jpg": b"", "a.json": b"{"}, r"a.json: begins with b'{', expected a label as text in UTF-8 or JSON"),
        ({"a.jpg": b"", "a.json": b"[" * 100_000}, "a.json: begins with"),
        ({"a.jpg": b"", "a.json": b"9" * 5000}, "a.json: begins with"),
        ({"a.jpg": b"", "a.json": b'{"label": [1]}'}, r"a.json: label \[1\], expected a name or a whole number"),
        ({"a.jpg": b"", "a.json": b'{"label": true}'}, "a.json: label True, expected"),
        ({"a.jpg": b"", "a.json": b'{"label": 1.5}'}, "a.json: label 1.5, expected"),
        ({"a.jpg": b"", "a.cls": b"x" * 2**21}, "a.cls: 2,097,152 bytes, expected a label of at most 1,048,576"),
        ({"x_1.jpg": "nowhere.jpg"}, "x_1.jpg is a link to nowhere.jpg, which is not a file in the shard"),
        ({"x_1.jpg": "x_1.jpg"}, "x_1.jpg is a link to x_1.jpg, which is not a file"),
        ({"x_1.jpg": b"", "./x_1.jpg": b""}, "two members named x_1.jpg, expected one"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named(files: dict[str, bytes | str], message: str, tmp_path: Path) -> None:
    with pytest.raises(FastpetsError, match=message) as error:
        as_dataset(shard(tmp_path, files))
    assert str(tmp_path / "pets.tar") in str(error.value)


def test_two_images_of_a_sample_are_counted_in_a_warning(tmp_path: Path) -> None:
    path = shard(tmp_path, {"a.jpg": b"", "a.png": b"", "a.cls": b"x"})
    with pytest.warns(UserWarning, match=r"several images in 1 sample, such as a; each image counts"):
        assert len(as_dataset(path)) == 2


def test_images_that_are_no_images_of_a_sample_are_listed_as_ignored(tmp_path: Path) -> None:
    dataset = as_dataset(shard(tmp_path, {"a.jpg": b"", "a.depth.png": b"", "a.txt": b"", "a.cls": b"x"}))
    assert [storage.name_of(path) for path in dataset.ignored_files] == ["a.txt", "a.depth.png"]


@pytest.mark.parametrize("kind", [b"3", b"6", b"S"])
def test_members_that_are_no_files_are_named(kind: bytes, tmp_path: Path) -> None:
    path = shard(tmp_path, {"a_1.jpg": b""})
    info = tarfile.TarInfo("b_1.jpg")
    info.type = kind
    content = path.read_bytes()
    path.write_bytes(content[:512] + info.tobuf(tarfile.GNU_FORMAT) + content[512:])
    with pytest.raises(FastpetsError, match=rf"pets.tar: member 'b_1.jpg' of type {kind!r} and size 0, expected files"):
        as_dataset(path)


def test_no_image_behind_a_damage_is_lost(tmp_path: Path) -> None:
    """tarfile takes a damaged header, and zeros between members, for the end."""
    names = [f"x_{n}.jpg" for n in range(6)]
    content = shard(tmp_path, {name: b"pixels" for name in names}).read_bytes()
    path = tmp_path / "damaged.tar"
    for damage in (
        content[:2048] + b"!" + content[2049:],
        content[:2048] + bytes(1024) + content[3072:],
        content[: 6 * 1024] + bytes(10240) + content,  # two files, one after the other
        content[: 4 * 1024 + 300],
    ):
        path.write_bytes(damage)
        with pytest.raises(FastpetsError, match=r"damaged.tar: .*; write the shard again|expected an uncompressed tar"):
            as_dataset(path)
    path.write_bytes(content[: 4 * 1024])
    with pytest.warns(UserWarning, match="damaged.tar: ends without the mark of a tar file's end; if it was cut off"):
        assert len(as_dataset(path)) == 4


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_label_does_not_get_the_name_of_a_missing_member(tar_format: int, tmp_path: Path) -> None:
    """A long name is in a header before that of its member; if the member is missing, another one would get it."""
    long, path = "n" * 150, tmp_path / "long.tar"
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, content in ((f"{long}.jpg", b"image"), (f"{long}.cls", b"x"), (f"{long}.json", b'"y"')):
            add(tar, name, content)
    assert labelled(path) == {f"{long}.jpg": "x"}
    content = path.read_bytes()
    member = 2048 + 1024  # the header and the label of KEY.cls, after its long name
    path.write_bytes(content[:member] + content[member + 1024 :])
    with pytest.raises(FastpetsError, match=r"long.tar: a member is missing before 'n+.cls'; write the shard"):
        labelled(path)


def test_a_shard_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    shard(tmp_path, {"x_1.jpg": b""})
    assert len(as_dataset(f"{tmp_path}/{{pets,p*}}.tar")) == 1


def test_hidden_members_of_shards_are_skipped_and_hard_links_are_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        for name in ("./a_1.jpg", "./._a_1.jpg", ".hidden/b_2.jpg"):
            add(tar, name, b"content of " + name.encode())
        add(tar, "./b_1.jpg", link_to="a_1.jpg")
    dataset = as_dataset(tmp_path / "pets.tar")
    assert [storage.name_of(path) for path in dataset.paths] == ["a_1.jpg", "b_1.jpg"]
    assert [storage.read(path) for path in dataset.paths] == [b"content of ./a_1.jpg"] * 2
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        add(tar, "b_1.jpg", link_to="a_1.jpg")
    with pytest.raises(FastpetsError, match=r"pets.tar: b_1.jpg is a link to a_1.jpg, which is not a file in"):
        as_dataset(tmp_path / "pets.tar")


def test_a_label_in_a_shard_that_is_no_text_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        add(tar, "a_1.jpg", b"image")
        add(tar, "a_1.cls", b"\xff\xfe")
    with pytest.raises(
        FastpetsError, match=r"pets.tar::.*::a_1.cls: begins with b'\\xff\\xfe', expected a label as text"
    ):
        as_dataset(tmp_path / "pets.tar")


def test_a_compressed_shard_is_rejected(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w:gz") as tar:
        tar.add(make_folder(2), "images")
    with pytest.raises(FastpetsError, match=r"pets.tar: .*expected an uncompressed tar file"):
        Loader(tmp_path / "pets.tar")


def test_files_are_found_in_the_order_of_their_paths_and_cyclic_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("a/2.jpg", "a-b/1.jpg", "a.jpg", "b/c/3.jpg", "b.x/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "up").symlink_to(tmp_path)
    found = list(storage.find(str(tmp_path)))
    assert found == sorted(found)
    assert len(found) == 5
    assert len(from_folder(tmp_path, label_from="none")) == 5


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    stat = os.stat

    def denied(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(FastpetsError, match="closed: Permission denied, expected a folder that can be read"):
        list(storage.find(str(tmp_path)))


def test_a_selection_has_the_chosen_paths(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(6))
    assert list(dataset.select(np.array([4, 1])).paths) == [dataset.paths[4], dataset.paths[1]]


def test_a_remote_folder_is_split_by_its_folders_and_trained_on(
    make_folder: Callable[..., Path], serve: Callable[[Path], str], tmp_path: Path
) -> None:
    folder = make_folder(30, name="many")
    for part in ("train", "valid"):
        (folder / part).mkdir()
    for number, path in enumerate(sorted(folder.glob("*.jpg"))):
        path.rename(folder / ("valid" if number % 5 == 0 else "train") / path.name)
    url = serve(folder)
    train, valid = loaders(url, size=32, batch_size=8)
    assert (len(train.dataset), len(valid.dataset)) == (24, 6)
    assert all("/train/" in path for path in train.dataset.paths)
    command = ["--arch", "squeezenet1_1", "--weights", "none", "--size", "32", "--batch-size", "8", "--epochs", "1"]
    assert main(["train", "--data", url, *command, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_thumbnails_deleted_and_hidden_files_are_no_images(tmp_path: Path) -> None:
    names = ("a_1.jpg", "@eaDir/a_1.jpg/SYNOFILE_THUMB_M.jpg", ".thumbnails/a_1.png", "b/#recycle/b_1.jpg", "._a_1.jpg")
    names += ("__MACOSX/a_1.jpg", "b/.hidden/b_1.jpg", "$RECYCLE.BIN/c_1.jpg", "lost+found/d_1.jpg", "@eaDirs/e_1.jpg")
    memory = fsspec.filesystem("memory")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        memory.pipe_file(f"/nas/{name}", b"")
    expected = {"@eaDirs/e_1.jpg", "a_1.jpg"}
    assert {os.path.relpath(path, tmp_path) for path in storage.find(str(tmp_path))} == expected
    assert {path.removeprefix("memory:///nas/") for path in storage.find("memory://nas")} == expected
    memory.rm("/nas", recursive=True)


def test_folders_that_link_to_each_other_are_listed_in_a_short_time(tmp_path: Path) -> None:
    folders = [tmp_path / f"class{n}" for n in range(12)]  # without a limit, 12! paths
    for folder in folders:
        folder.mkdir()
        (folder / "1.jpg").touch()
        for other in folders:
            (folder / other.name).symlink_to(other)
    dataset = from_folder(tmp_path)
    assert [Path(path).parent for path in dataset.paths] == sorted(folders)
    assert len(list(storage.find(str(tmp_path)))) < 12**3


def test_a_link_to_itself_is_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "a_1.jpg").symlink_to("a_1.jpg")
    (tmp_path / "b_2.jpg").symlink_to("nowhere")
    dataset = from_folder(tmp_path).scanned(1)
    assert len(dataset) == 2
    assert dataset.headers is not None
    assert not dataset.headers.usable.any()


def test_names_that_are_not_utf_8_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.fsencode(tmp_path) + b"/photos"
    for number in range(10):
        path = folder + (b"/caf\xe9/%d.jpg" % number if number % 2 else b"/\xff\xfe/%d.jpg" % number)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        drawing(40, 50, seed=number).save(os.fsdecode(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    train, valid = loaders("~/photos", size=16)
    assert train.classes == ("caf\udce9", "\udcff\udcfe")
    assert len(pixels_by_id(train)) + len(pixels_by_id(valid)) == 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").symlink_to("photos")
    assert all(path.startswith("~/") for path in from_folder("~").paths)
