"""Damaged tables and tar shards: each gives what an independent reader finds in it, or an error of one line.

The reader of tables is Python's csv module, in its strict mode; that of shards is `reference_members`.
"""

import contextlib
import csv
import io
import json
import os
import posixpath
import re
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np

from fastpets.data import storage
from fastpets.data.sources import from_shards, label_table
from fastpets.data.tables import read_table
from fastpets.errors import FastpetsError

FOLDER = "/images"  # of the files in the tables; it need not exist
PART_OF = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid"}
PART_OF |= {"test": "test", "testing": "test"}
IS_VALID = {"true": "valid", "1": "valid", "false": "train", "0": "train"}
FILE_TITLES, LABEL_TITLES = ("file", "file_name", "filename", "image", "path"), ("label", "labels", "class", "target")
BLOCK = tarfile.BLOCKSIZE


def check(kind: str, count: int, seed: int) -> int:
    """Reads `count` damaged "tables" or "shards" and returns how many gave an error.

    Raises AssertionError with the content for one that is read otherwise than by the reference.
    """
    damage, compare = {"tables": (damaged_table, compare_table), "shards": (damaged_shard, compare_shard)}[kind]
    random, rejected = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        stack.callback(csv.field_size_limit, csv.field_size_limit(2**30))  # restores the limit of the process
        for number in range(count):
            content = damage(random)
            path = Path(folder) / ("table.csv" if kind == "tables" else "shard.tar")
            path.write_bytes(content)
            try:
                rejected += compare(path, content)
            except Exception as error:
                name = Path(tempfile.gettempdir()) / f"fuzz-failed-{kind}-{seed}-{number}"
                name.write_bytes(content)
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    return rejected


def check_message(error: FastpetsError) -> None:
    """Raises AssertionError unless the message is one line."""
    assert str(error).isprintable(), repr(str(error))


# Tables


def tables() -> list[bytes]:
    """Tables with each separator, line end and form of split; some with quotes, line breaks in cells and a BOM."""
    labels = ["cat", "dog", "Maine Coon", "Bouvier des Flandres; grey", "a, b", "é", '5" tall', "2\nlines", "cat"]
    splits = ["train", "valid", "Val", " test ", "training", "train"]
    found = []
    for separator, end, bom in ((",", "\n", b""), (";", "\r\n", b"\xef\xbb\xbf"), ("\t", "\n", b""), (",", "\r", b"")):
        for header in (
            ["file", "label"],
            [" File_Name ", "caption", "CLASS", "split"],
            ["id", "image", "target", "is_valid"],
        ):
            text = io.StringIO()
            writer = csv.writer(text, delimiter=separator, lineterminator="\n")
            writer.writerow(header)
            for i in range(12):
                cells = {"label": labels[i % 9], "CLASS": labels[i % 4], "target": str(i % 3), "id": str(i)}
                cells |= {"caption": f"a {labels[i % 9]}", "split": splits[i % 6], "is_valid": str(i % 4 == 0)}
                writer.writerow([cells.get(title, f"sub/image {i}.jpg") for title in header])
            found.append(bom + text.getvalue().replace("\n", end).encode())
    return found


TABLES = tables()
PIECES = [
    b'"',
    b'""',
    b'"\n',
    b'\n"',
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\0",
    b" ",
    b"\xe9",
    b"\xc3\xa9",
]
PIECES += [
    b"\xef\xbb\xbf",
    b",,",
    b"\n,\n",
    b"\n,,,\n",
    b"./",
    b"../",
    b"//",
    b"-1",
    b"1.0",
    b"\xe2\x80\xa8",
    b"\x85",
    b"\x1c",
]
PIECES += [b"train", b"\nsub/image 3.jpg,dog\n", b"\nsub/image 3.jpg;dog\r\n", b",valid", b"x" * 300]


def damaged_table(random: np.random.Generator) -> bytes:
    """A table, damaged in one or two places."""
    content = bytearray(TABLES[random.integers(len(TABLES))])
    for _ in range(random.integers(1, 3)):
        place, other = sorted(int(i) for i in random.integers(0, len(content) + 1, 2))
        match random.integers(7):
            case 0:
                content[place:place] = PIECES[random.integers(len(PIECES))]
            case 1:
                content[place : place + 1] = PIECES[random.integers(len(PIECES))]
            case 2:
                del content[place : place + int(random.integers(1, 20))]
            case 3:
                del content[place:]
            case 4:  # a part of it again, such as rows
                content[place:place] = content[place:other]
            case 5:
                spliced = TABLES[random.integers(len(TABLES))]
                content[place:] = spliced[int(random.integers(len(spliced))) :]
            case 6:
                if place < len(content):
                    content[place] ^= 1 << int(random.integers(8))
    return bytes(content)


def compare_table(path: Path, content: bytes) -> bool:
    """Whether a table gives an error; otherwise its rows are those of the reference."""
    try:
        table = read_table(str(path), FOLDER, with_labels=True)
    except FastpetsError as error:
        check_message(error)
        return True
    assert table.labels is not None
    names = [table.labels.names[code] for code in table.labels.codes]
    parts = None if table.splits is None else [table.splits.names[code] for code in table.splits.codes]
    rows = reference_rows(content)
    assert list(table.paths) == [row[0] for row in rows]
    assert names == [row[1] for row in rows]
    assert parts == (None if all(row[2] is None for row in rows) else [row[2] for row in rows])
    lines = table.lines(range(len(rows)))
    assert lines == sorted(set(lines))
    try:
        dataset = label_table(table)
    except FastpetsError as error:
        check_message(error)
        return True
    assert [dataset.classes[label] for label in dataset.labels] == names
    return False


def reference_rows(content: bytes) -> list[tuple[str, str, str | None]]:
    """The path, label and part of each row. Raises an exception of any type for a malformed table."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    for separator in (",", ";", "\t"):
        first = next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator))
        keys = [re.sub(r"[\s-]+", "_", title.strip().casefold()) for title in first]
        files, labels = ([i for i, key in enumerate(keys) if key in titles] for titles in (FILE_TITLES, LABEL_TITLES))
        if files and labels:
            break
    else:
        raise ValueError("no columns")
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]

    def column(name: str, found: list[int]) -> int:
        for wanted in (lambda i: rows[0][i] == name, lambda i: keys[i] == name):
            if any(map(wanted, found)):
                found = [i for i in found if wanted(i)]
                break
        (only,) = found
        return only

    file, label = column("file", files), column("label", labels)
    splits = [i for i, key in enumerate(keys) if key in ("split", "is_valid")]
    split = column("split", splits) if splits else None
    result: list[tuple[str, str, str | None]] = []
    rows = [row for row in rows[1:] if any(row)]
    has_split = split is not None and any(row[split].strip() for row in rows)
    for row in rows:
        assert len(row) == len(keys)
        assert row[file]
        row[label].encode()  # surrogates are bytes that are not UTF-8
        part = None
        if has_split and split is not None:
            part = (IS_VALID if keys[split] == "is_valid" else PART_OF)[row[split].strip().casefold()]
        name = row[file]
        if "://" not in name and re.search("//|[.]/", name):
            name = os.path.normpath(name)
        result.append((name if "://" in name else os.path.join(FOLDER, name), row[label], part))
    return result


# Shards


def shards() -> list[bytes]:
    """Shards with labels in KEY.cls, KEY.json or names; with hidden members, links, several dots and long names."""
    found = []
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for kind in ("cls", "json", "names"):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:

                def add(name: str, content: bytes = b"", link: str = "", link_type: bytes = tarfile.LNKTYPE) -> None:
                    info = tarfile.TarInfo(name)
                    info.size = 0 if link else len(content)
                    if link:
                        info.type, info.linkname = link_type, link
                    tar.addfile(info, io.BytesIO(content))

                folder = tarfile.TarInfo("sub")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
                long = "sub/" + "n" * (80 if tar_format == tarfile.USTAR_FORMAT else 150)
                for i in range(6):
                    stem = [f"sub/kind{i % 2}_{i}", f"./kind{i % 2}_{i}", f"{long}_{i}", f"3.{i}mm_{i}"][i % 4]
                    add(f"{stem}.jpg", bytes([i]) * (100 + 300 * i))
                    if kind == "cls":
                        add(f"{stem}.cls", f"{i % 3}\n".encode())
                    if kind == "json":
                        add(f"{stem}.json", json.dumps({"label": i % 3, "width": 7} if i % 2 else f"k{i}").encode())
                add("sub/kind0_0.mask.png", b"mask")
                add("sub/._kind0_0.jpg", b"fork")
                add("notes.txt", b"notes")
                if kind == "names":
                    add("sub/kind0_8.jpg", link="sub/kind0_0.jpg")
                    add("sub/kind0_9.jpg", link="kind0_0.jpg", link_type=tarfile.SYMTYPE)
                    add("kind1_7.jpg", link="sub/later_7.jpg", link_type=tarfile.SYMTYPE)
                    add("sub/later_7.jpg", b"later")
            content = file.getvalue()
            if kind == "cls":  # without the mark of the end
                content = content[: -(-len(content.rstrip(b"\0")) // BLOCK) * BLOCK]
            found.append(content)
    return found


SHARDS = shards()


def headers_of(content: bytes) -> list[int]:
    """The offsets of blocks that are headers by their checksums."""
    starts = range(0, len(content) - BLOCK + 1, BLOCK)
    return [
        start
        for start in starts
        if stored_checksum(content[start : start + BLOCK]) == checksum(content[start : start + BLOCK])
    ]


def checksum(header: bytes) -> int:
    return sum(header[:148]) + sum(header[156:512]) + 8 * ord(" ")


def stored_checksum(header: bytes) -> int:
    return octal(header[148:156], -1)


def octal(field: bytes, default: int) -> int:
    text = field.split(b"\0")[0].strip()
    return int(text, 8) if re.fullmatch(rb"[0-7]+", text) else default


def damaged_shard(random: np.random.Generator) -> bytes:
    """A shard, damaged in one or two places. Half of the damaged headers have a good checksum."""
    content = bytearray(SHARDS[random.integers(len(SHARDS))])
    for _ in range(random.integers(1, 3)):
        place = int(random.integers(len(content) + 1))
        headers = headers_of(content)
        header = headers[random.integers(len(headers))] if headers else 0
        match random.integers(9):
            case 0:
                if place < len(content):
                    content[place] ^= 1 << int(random.integers(8))
            case 1:
                del content[place:]
            case 2:
                del content[place // BLOCK * BLOCK :]
            case 3:  # a member or a block is missing
                del content[header : header + BLOCK * int(random.integers(1, 4))]
            case 4:
                spliced = SHARDS[random.integers(len(SHARDS))]
                others = headers_of(spliced)
                content[header:] = spliced[others[random.integers(len(others))] :]
            case 5:
                content[place:place] = random.bytes(int(random.integers(1, 600)))
            case 6:
                content[header : header + BLOCK] = bytes(BLOCK)
            case 7:  # a member twice
                content[header:header] = content[header : header + BLOCK * int(random.integers(1, 4))]
            case 8 if headers:
                damage_header(content, header, random)
    return bytes(content)


def damage_header(content: bytearray, start: int, random: np.random.Generator) -> None:
    """Changes a field of a header and corrects the checksum."""
    match random.integers(5):
        case 0:  # type
            content[start + 156] = random.choice(np.frombuffer(b"0\x00125347SxgLKVM", np.uint8))
        case 1:  # size
            size = random.choice([0, 1, 511, 512, 513, 1024, 5000, 2**20, 2**33 - 1])
            content[start + 124 : start + 136] = f"{size:011o}\0".encode()
        case 2:  # size, in base 256, perhaps negative
            content[start + 124 : start + 136] = bytes([random.choice([0x80, 0xFF])]) + random.bytes(11)
        case 3:  # name
            names = [
                b"a.jpg",
                b"sub/a.cls",
                b"a.json",
                b"../a.jpg",
                b"/a.jpg",
                b".a.jpg",
                b"a.b.c.jpg",
                b"\xff.jpg",
                b"a\nb.jpg",
            ]
            name = names[random.integers(len(names))]
            content[start : start + 100] = name.ljust(100, b"\0")
        case 4:  # link
            names = [b"a.jpg", b"../a.jpg", b"sub/kind0_0.jpg", b"./sub/../kind1_1.jpg", b""]
            content[start + 157 : start + 257] = names[random.integers(len(names))].ljust(100, b"\0")
    content[start + 148 : start + 156] = f"{checksum(content[start : start + BLOCK]):06o}\0 ".encode()


def compare_shard(path: Path, content: bytes) -> bool:
    """Whether a shard gives an error; otherwise its images, their bytes and their labels are those of the reference."""
    try:
        dataset = from_shards(str(path))
    except FastpetsError as error:
        check_message(error)
        return True
    names = [storage.MEMBER.fullmatch(item)["name"] for item in dataset.paths]  # type: ignore[index]
    found = {
        posixpath.normpath(name): (storage.read(item), dataset.classes[label])
        for name, item, label in zip(names, dataset.paths, dataset.labels, strict=True)
    }
    assert len(found) == len(names)
    assert found == reference_samples(reference_members(content))
    return False


def reference_members(content: bytes) -> dict[str, bytes]:
    """The content of each file in a tar archive by its name, links included. Raises ValueError for a damaged one."""
    members: dict[str, bytes] = {}
    links: list[tuple[str, str, bool]] = []
    start, extended, extensions = 0, {}, []
    while start < len(content):
        header = content[start : start + BLOCK]
        if not header.strip(b"\0"):
            if content[start:].strip(b"\0"):
                raise ValueError("something after the end")
            break
        if len(header) < BLOCK or stored_checksum(header) != checksum(header):
            raise ValueError(f"no header at {start}")
        size_field = header[124:136]
        size = int.from_bytes(size_field[1:], "big") if size_field[0] == 0x80 else octal(size_field, 0)
        name, kind = text(header[:100]), header[156:157]
        if header[257:263] == b"ustar\0" and text(header[345:500]):
            name = f"{text(header[345:500])}/{name}"
        link = text(header[157:257])
        data = content[start + BLOCK : start + BLOCK + size]
        padded = content[start + BLOCK :][: -(-size // BLOCK) * BLOCK]
        is_data = kind in (b"0", b"\0", b"7", b"x", b"g", b"L", b"K")
        if is_data:
            if len(data) < size:
                raise ValueError("cut off")
            start += -(-size // BLOCK) * BLOCK
        start += BLOCK
        if kind in (b"x", b"L", b"K"):
            extensions.append(kind)
            if len(extensions) > 1 and sorted(extensions) != [b"K", b"L"]:
                raise ValueError("a member is missing")
        if kind in (b"x", b"g"):
            extended |= {key: value for key, value in pax(padded).items() if kind == b"x"}
            continue
        if kind in (b"L", b"K"):
            extended["path" if kind == b"L" else "linkpath"] = text(padded)  # as tarfile
            continue
        name, link = extended.get("path", name).rstrip("/") or "/", extended.get("linkpath", link)
        extended, extensions = {}, []
        if kind == b"0" or kind == b"\0" or kind == b"7":
            if kind == b"\0" and text(header[:100]).endswith("/"):
                continue
            if posixpath.normpath(name) in members:
                raise ValueError("twice")
            members[posixpath.normpath(name)] = data
        elif kind in (b"1", b"2"):
            folder = posixpath.dirname(name) if kind == b"2" else ""
            links.append((posixpath.normpath(name), posixpath.normpath(posixpath.join(folder, link)), kind == b"1"))
        elif kind != b"5":
            raise ValueError(f"type {kind!r}")
    changed = True
    while changed:
        changed = False
        for name, target, _ in links:
            if target in members and name not in members:
                members[name], changed = members[target], True
    return members


def text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="surrogateescape")


def pax(data: bytes) -> dict[str, str]:
    """The records of an extended header, up to one that is malformed, as tarfile reads them."""
    found = {}
    while record := re.match(rb"(\d{1,20}) ([^=]+)=", data):
        length = int(record[1])
        if length < 5 or length > len(data):
            break
        found[record[2].decode(errors="surrogateescape")] = data[record.end() : length - 1].decode(
            errors="surrogateescape"
        )
        data = data[length:]
    return found


def reference_samples(members: dict[str, bytes]) -> dict[str, tuple[bytes, str]]:
    """The content and the label of each image, by its name."""
    visible = {
        name: content for name, content in members.items()
        if not any(part.startswith(".") and part != ".." for part in name.split("/"))
    }  # fmt: skip

    def key(name: str) -> str:
        return posixpath.join(posixpath.dirname(name), posixpath.basename(name).split(".")[0])

    images = [name for name in visible if name.lower().endswith((".jpg", ".png"))]
    plain = {key(name) for name in images if key(name) == posixpath.splitext(name)[0]}
    images = [name for name in images if posixpath.splitext(name)[0] in plain or key(name) not in plain]
    labels: dict[str, str | None] = {}
    for name in images:
        labels[name] = None
        for sidecar in (
            f"{stem}{suffix}" for suffix in (".cls", ".json") for stem in (posixpath.splitext(name)[0], key(name))
        ):
            if sidecar in visible and labels[name] is None:
                value = visible[sidecar].decode().strip()
                if sidecar.endswith(".json"):
                    value = json.loads(value)
                    value = value.get("label") if isinstance(value, dict) else value
                labels[name] = None if value is None else str(value)
    if set(labels.values()) == {None}:
        labels = {name: re.search(r"(.+)_\d+\.\w+$", posixpath.basename(name))[1] for name in images}  # type: ignore[index]
    assert None not in labels.values()
    return {name: (visible[name], str(labels[name])) for name in images}
