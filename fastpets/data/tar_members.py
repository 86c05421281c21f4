"""Lists the files in a tar shard, which are then read as byte ranges of it; see `storage`."""

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

from fastpets.data import storage
from fastpets.errors import FastpetsError, warn

MAX_READ = 2**20  # bytes of a label


def members(shard: str, read_suffixes: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """Lists the files in a tar shard, in its order, without hidden ones. Links are listed as the files they lead to.

    Yields each file's path, and its content if its name ends in one of `read_suffixes`, in any case, else None. Raises
    FastpetsError if the shard is not an uncompressed tar file, is damaged, or has two files of the same name.
    """
    filesystem, path = storage.filesystem_of(shard)
    try:
        with filesystem.open(path, "rb") as file:
            yield from _members(shard, file, tuple(read_suffixes))
    except FastpetsError:
        raise
    except Exception as error:  # tarfile's, or of any type: fsspec's
        raise FastpetsError(f"{shard}: {error}, expected an uncompressed tar file") from None


def _members(shard: str, file: IO[bytes], read_suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes | None]]:
    files: dict[str, tarfile.TarInfo] = {}  # by name, for links
    waiting: list[tarfile.TarInfo] = []  # links to what comes later

    def listed(member: tarfile.TarInfo, target: tarfile.TarInfo) -> Iterator[tuple[str, bytes | None]]:
        name = posixpath.normpath(member.name)
        if name in files:
            raise FastpetsError(f"{shard}: two members named {name}, expected one of each name; write the shard again")
        files[name] = target
        if not storage.is_hidden(member.name):
            path, content = f"{shard}::{target.offset_data}+{target.size}::{member.name}", None
            if member.name.lower().endswith(read_suffixes):
                if target.size > MAX_READ:
                    raise FastpetsError(f"{path}: {target.size:,} bytes, expected a label of at most {MAX_READ:,}")
                file.seek(target.offset_data)
                content = file.read(target.size)
            yield path, content

    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        for member in tar:
            _check_kind(shard, member)
            _check_extensions(shard, file, member)
            if member.isreg():
                yield from listed(member, member)
            elif not member.isdir():
                if (target := files.get(_link_target(member))) is not None:
                    yield from listed(member, target)
                else:
                    waiting.append(member)
        _check_end(shard, file, tar.offset)
    while ready := [member for member in waiting if _link_target(member) in files]:
        waiting = [member for member in waiting if _link_target(member) not in files]
        for member in ready:
            yield from listed(member, files[_link_target(member)])
    for member in waiting:
        if storage.is_image(member.name) or member.name.lower().endswith(read_suffixes):
            raise FastpetsError(
                f"{shard}: {member.name} is a link to {member.linkname}, which is not a file in the shard; write the "
                "shard again, without links"
            )


def _check_kind(shard: str, member: tarfile.TarInfo) -> None:
    """Raises FastpetsError for what is no file, folder or link."""
    is_known = member.isreg() or member.isdir() or member.islnk() or member.issym()
    if not is_known or member.issparse() or member.size < 0 or not member.name:
        raise FastpetsError(
            f"{shard}: member {member.name!r} of type {member.type!r} and size {member.size}, expected files, folders "
            "and links with names; write the shard again"
        )


def _check_extensions(shard: str, file: IO[bytes], member: tarfile.TarInfo) -> None:
    """Raises FastpetsError if several headers extend that of a member, as where the member between them is missing.

    tarfile would give this member the name of the other one, and so an image another label. Only GNU's long name and
    long link belong together.
    """
    kinds, start = [], member.offset
    while start < member.offset_data - tarfile.BLOCKSIZE:
        file.seek(start)
        header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        kinds.append(header.type)
        start += (1 + -(-header.size // tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE
    if len(kinds) > 1 and sorted(kinds) != [tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_LONGNAME]:
        raise FastpetsError(f"{shard}: a member is missing before {member.name!r}; write the shard again")


def _link_target(member: tarfile.TarInfo) -> str:
    """The name of the member that a link leads to: a symbolic link's is relative to its folder."""
    folder = posixpath.dirname(member.name) if member.issym() else ""
    return posixpath.normpath(posixpath.join(folder, member.linkname))


def _check_end(shard: str, file: IO[bytes], end: int) -> None:
    """Raises FastpetsError if the members, as tarfile lists them, end before the shard does.

    At a damaged header, tarfile stops as it does at the end, which is marked by blocks of zeros.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        warn(f"{shard}: ends without the mark of a tar file's end; if it was cut off, write it again")
    while block:
        if block.strip(b"\0"):
            raise FastpetsError(
                f"{shard}: a damaged header, or a second tar file, at byte {end:,}; write the shard again"
            )
        end += len(block)
        block = file.read(2**20)
