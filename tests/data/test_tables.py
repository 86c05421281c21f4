"""Tables: every row is read, as Python's csv module reads it, or one line names the row and the cell."""

import csv
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastpets.data import csv_text
from fastpets.data.sources import as_dataset, from_csv
from fastpets.data.splits import train_valid_datasets
from fastpets.data.tables import read_table
from fastpets.errors import FastpetsError, InvalidArgumentError
from tests import fuzz_readers


def table(folder: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pairs(path: Path) -> list[tuple[str, str]]:
    """The file, relative to the table, and the label of each row."""
    dataset = from_csv(path)
    return [
        (os.path.relpath(file, path.parent), dataset.classes[label])
        for file, label in zip(dataset.paths, dataset.labels, strict=True)
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file;label\na.jpg;b, c\n", [("a.jpg", "b, c")]),
        ("file\tlabel\na.jpg\tb, c; d\n", [("a.jpg", "b, c; d")]),
        (" File Name ,CLASS\na.jpg,b\n", [("a.jpg", "b")]),
        ("id,Image,x,Target\n7,a.jpg,,b\n", [("a.jpg", "b")]),
        ("path,class,label\na.jpg,c,b\n", [("a.jpg", "b")]),
        ("file-name,label\na.jpg,b\n", [("a.jpg", "b")]),
        ("file,label,file_name\na.jpg,b,c\n", [("a.jpg", "b")]),
        ('\ufeff"file","label"\r\n"a, ""b"".jpg","c\nd"\r\n\r\n', [('a, "b".jpg', "c\nd")]),
        ("file,label\ra.jpg,b\rc.jpg,d", [("a.jpg", "b"), ("c.jpg", "d")]),
        ("\n\nfile,label\n\na.jpg,b\n,\n\nc.jpg,d\n,\n", [("a.jpg", "b"), ("c.jpg", "d")]),
        ('file,label,note\na.jpg,b,"first, line\nsecond, line"\n', [("a.jpg", "b")]),
        (b"file,label\n\xff.jpg,b\n", [("\udcff.jpg", "b")]),
        ("file,label\na.jpg,-1\nb.jpg,2\n", [("a.jpg", "-1"), ("b.jpg", "2")]),
        (f"file,label\na.jpg,{'9' * 5000}\nb.jpg,2\n", [("a.jpg", "9" * 5000), ("b.jpg", "2")]),
        (f"file,label\na.jpg,{'b' * 3_000_000}\n", [("a.jpg", "b" * 3_000_000)]),
        ("file,label\na.jpg,NA\nb.jpg,null\n", [("a.jpg", "NA"), ("b.jpg", "null")]),
        ("file,label\na.jpg,é\u2028\x85\x1c\n", [("a.jpg", "é\u2028\x85\x1c")]),
    ],
)
def test_tables_of_other_programs_are_read(
    content: str | bytes, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert pairs(table(tmp_path, content)) == expected


UNCLOSED = "a quote is not closed at the end of its cell"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('file,label\na.jpg,"cat\nb.jpg,dog\n', f"line 2: '\"cat': {UNCLOSED}"),
        ('file,label\n"a.jpg,cat\nb.jpg,"dog"\n', f"line 2: '\"a.jpg': {UNCLOSED}"),
        ('file,label\na.jpg,"cat\nb.jpg,dog"\n', r"line 2: 'cat\\nb.jpg,dog' in a cell looks like another row"),
        ('file,label,note\na.jpg,cat,"x\nb.jpg,dog,y"\n', "line 2: 'b.jpg,dog,y\"' in a cell looks like another row"),
        ('file,label\n"a.jpg,cat\nb.jpg",dog\n', r"line 2: 'a.jpg,cat\\nb.jpg' in a cell looks like another row"),
        ('file,label\na.jpg,"cat"s\n', f"line 2: '\"cat\"s': {UNCLOSED}"),
        ('file,label\na.jpg,5" nail\n', "line 2: '5\" nail': a quote within a cell; enclose the cell in quotes"),
        ('file,label\na.jpg,b\n\nc.jpg, "d"\n', "line 4: ' \"d\"': a quote within a cell"),
        ("file,label\r\na.jpg,b\r\nc.jpg,d\0e\r\n", r"line 3: 'd\\x00e': contains NUL; remove it"),
        (b"file,label\na.jpg,b\nc.jpg,\xe9\n", r"line 3: label b'\\xe9', expected UTF-8"),
        ("file,label".encode("utf-16"), r"begins with b'\\xff\\xfef\\x00', expected UTF-8"),
        ("file,label\na.jpg,b\nc.jpg,d,e\n", "line 3: 3 cells, expected 2 like the header: 'c.jpg,d,e'"),
        ("file,label\na.jpg,b\nc.jpg\n", "line 3: 1 cells, expected 2 like the header: 'c.jpg'"),
        ("file,label\na.jpg,b\n   \n", "line 3: 1 cells, expected 2"),
        ("file,label\na.jpg,b\n,d\n", "line 3: file '', expected no empty cell"),
        ("file,label,note\na.jpg,b,c\n,,d\n", "line 3: file '', expected no empty cell in ',,d'"),
        ("file,label\na.jpg,b\nc.jpg,  \n", "line 3: label '  ' of .*/c.jpg, expected no empty cell"),
        ("file,label,split\na.jpg,b,train\nc.jpg,d,\n", "line 3: split '', expected one of train"),
        ("file,label,split\na.jpg,b,trian\n", "line 2: split 'trian', expected one of train, training, valid, val"),
        ("file,label,is_valid\na.jpg,b,True\nc.jpg,d,maybe\n", "line 3: is_valid 'maybe', expected one of true, 1"),
        ("file,label,is_valid\na.jpg,b,True\nc.jpg,d,\n", "line 3: is_valid '', expected one of true, 1"),
        ("image,path,label\na,b,c\n", "columns image, path, expected one of them; rename the others"),
        ("file,label,label\na,b,c\n", "columns label, label, expected one of them"),
        ("file,label\na.jpg,1\nb.jpg,2\nc.jpg,3.5\n", "line 4: label '3.5' of .*, expected a whole number like 2 of"),
        ("file,label\na.jpg,b\nc.jpg,d\n\na.jpg,e\n", "labels.csv: .*/a.jpg has label 'b' on line 2 and 'e' on line 5"),
        ("file,label\na.jpg,b\n./a.jpg,e\n", "/a.jpg has label 'b' on line 2 and 'e' on line 3"),
        ("file,label\nx//a.jpg,b\nx/y/../a.jpg,e\n", "/x/a.jpg has label 'b' on line 2 and 'e' on line 3"),
        ("file,class\na.jpg,b\na.jpg,b\na.jpg,c\n", "/a.jpg has class 'b' on line 2 and 'c' on line 4"),
        ("label,name\na,b\n", "columns label, name, expected file and label"),
        ("a.jpg,cat\nb.jpg,dog\n", "columns a.jpg, cat, expected file and label"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = table(tmp_path, content)
    with pytest.raises(FastpetsError, match=message) as error:
        from_csv(path)
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 2**23])
def test_quotes_are_checked_alike_wherever_blocks_end(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK", block)
    assert (
        pairs(table(tmp_path, '\ufefffile,label\n"a""b.jpg","c\nd"\n""",e.jpg",f""\n'.replace('f""', '"f"')))[0][1]
        == "c\nd"
    )
    for content, message in (
        ('file,label\na.jpg,"cat\nb.jpg,dog\n', "line 2: '\"cat'"),
        ('file,label\na.jpg,cat\n"b.jpg"x,dog\n', "line 3: '\"b.jpg\"x'"),
        ('file,label\na.jpg,c"at\n', "line 2: 'c\"at'"),
        ("file,label\na.jpg,c\0at\n", "NUL"),
    ):
        with pytest.raises(FastpetsError, match=message):
            from_csv(table(tmp_path, content))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_random_cells_are_read_as_they_were_written(separator: str, end: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    alphabet = ["a", "b", '"', ",", ";", "\t", "\n", " ", "é", "'", "\\", "#", "\x85"]
    rows = []
    for number in range(300):
        label, note = ("".join(random.choice(alphabet, random.integers(1, 6))) for _ in range(2))
        rows.append((f"{number}.png", f"x{label}".replace(separator, "").replace("\n", ""), note))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    writer.writerows([("file", "label", "note"), *rows])
    found = pairs(table(tmp_path, text.getvalue()))
    assert found == [row[:2] for row in rows]


def test_fastais_column_is_valid_is_the_split(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,is_valid\na.jpg,x,False\nb.jpg,x,True\nc.jpg,y,0\nd.jpg,y,1\n", "table.tsv")
    train, valid = train_valid_datasets(path, on_bad_file="skip")
    assert [Path(file).name for file in train.paths] == ["a.jpg", "c.jpg"]
    assert [Path(file).name for file in valid.paths] == ["b.jpg", "d.jpg"]


def test_all_spellings_of_a_part_are_used(tmp_path: Path) -> None:
    names = ["train", "Training", " TRAIN ", "valid", "val", "Validation"]
    path = table(tmp_path, "file,label,split\n" + "".join(f"{i}.jpg,x,{name}\n" for i, name in enumerate(names)))
    train, valid = train_valid_datasets(path, on_bad_file="skip")
    assert (len(train), len(valid)) == (3, 3)


def test_an_empty_column_split_means_a_random_split(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,split\n" + "".join(f"{i}.jpg,x,\n" for i in range(10)))
    train, valid = train_valid_datasets(path, on_bad_file="skip")
    assert (len(train), len(valid)) == (8, 2)


def test_rows_that_name_a_file_again_are_counted_in_a_warning(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\nb.jpg,x\na.jpg,y\n\nb.jpg,x\n./b.jpg,x\n")
    with pytest.warns(UserWarning, match="2 rows name the file of an earlier row, such as line 5 that of line 2"):
        assert len(from_csv(path)) == 4


def test_a_file_twice_in_a_list_has_one_label() -> None:
    with pytest.raises(InvalidArgumentError, match=r"source: a.jpg has label 'x' in pair 0 and 'y' in pair 2"):
        as_dataset([("a.jpg", "x"), ("b.jpg", "x"), ("a.jpg", "y")])
    assert len(as_dataset([("a.jpg", 1), ("a.jpg", 1)])) == 2


def test_a_row_has_one_path_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    files = ["./a.jpg", "x//b.jpg", "x/../c.jpg", "link/../d.jpg", "/e/./f.jpg", "memory://g//h.jpg", "i./j.jpg"]
    read = read_table(str(table(tmp_path, "file\n" + "\n".join(files) + "\n")), str(tmp_path), with_labels=False)
    assert list(read.paths) == [
        f"{tmp_path}/a.jpg", f"{tmp_path}/x/b.jpg", f"{tmp_path}/c.jpg", f"{tmp_path}/link/../d.jpg", "/e/f.jpg",
        "memory://g//h.jpg", f"{tmp_path}/i./j.jpg",
    ]  # fmt: skip


def test_two_labels_are_found_in_a_table_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "file,label\na.jpg,x\nb/../a.jpg,y\n./a.jpg,x\n")
    with pytest.raises(FastpetsError, match=r"^labels.csv: ./a.jpg has label 'x' on line 2 and 'y' on line 3"):
        from_csv("labels.csv")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(FastpetsError, match="no regular file, expected a CSV"):
        from_csv(tmp_path / "labels.csv")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    table(tmp_path, "file,label\na.jpg,x\n")
    assert list(as_dataset("~/labels.csv").paths) == [f"{tmp_path}/a.jpg"]


def test_undamaged_tables_and_shards_are_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in fuzz_readers.TABLES:
            assert not fuzz_readers.compare_table(table(tmp_path, content), content)
        for content in fuzz_readers.SHARDS:
            assert not fuzz_readers.compare_shard(table(tmp_path, content, "shard.tar"), content)


@pytest.mark.parametrize("kind", ["tables", "shards"])
def test_damaged_tables_and_shards_are_read_as_by_another_reader_or_named(kind: str) -> None:
    assert 100 < fuzz_readers.check(kind, 200, seed=0) < 200


def test_a_name_of_two_words_that_are_classes_too_is_a_name(tmp_path: Path) -> None:
    path = table(tmp_path, "file,labels\na.jpg,sea\nb.jpg,lion\nc.jpg,sea lion\n")
    assert from_csv(path).classes == ("lion", "sea", "sea lion")


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_labels_with_a_part_in_common_are_classes_with_a_warning(separator: str, tmp_path: Path) -> None:
    rows = "".join(f'{n}.jpg,"{separator.join(parts)}"\n' for n, parts in enumerate([("cat", "black"), ("cat", "red")]))
    with pytest.warns(UserWarning, match=r"labels such as 'cat.*black', 'cat.*red' are taken as one class each"):
        assert len(from_csv(table(tmp_path, "file,label\n" + rows)).classes) == 2


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_several_labels_of_an_image_are_refused_in_one_line(separator: str, tmp_path: Path) -> None:
    path = table(tmp_path, f'file,label\na.jpg,dog\nb.jpg,"dog{separator}Maine Coon"\nc.jpg,Maine Coon\nd.jpg,cat\n')
    with pytest.raises(
        FastpetsError, match=r"line 3: label .* of .*b.jpg, expected one class .*, but 'dog', "
    ) as raised:
        from_csv(path)
    assert "multi-label images are not supported" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "names", [["Maine Coon", "Coon", "cat"], ["a, b", "a", "c"], ["red|blue", "red|green"], ["a", "a "]]
)
def test_names_with_separators_are_names(names: list[str], tmp_path: Path) -> None:
    rows = "".join(f'{number}.jpg,"{name}"\n' for number, name in enumerate(names))
    assert [name for _, name in pairs(table(tmp_path, f"file,label\n{rows}"))] == names
