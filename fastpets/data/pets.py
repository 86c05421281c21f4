"""The Oxford-IIIT Pet images (O. M. Parkhi et al., "Cats and Dogs", CVPR 2012), downloaded once and verified."""

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path, PurePosixPath

from fastpets.errors import FastpetsError
from fastpets.utils.progress import track
from fastpets.utils.system import cache_dir

URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz"
MD5 = "5c4f3ee8e5d25df40f4fd59a7f44e54c"  # as published with torchvision's OxfordIIITPet
CHUNK = 1 << 20


def pets_folder(url: str = URL, md5: str = MD5) -> Path:
    """The folder of the 7,390 images, below the user's cache folder; downloaded and unpacked on the first call.

    An archive that lies beside it already is used instead of the network. Raises FastpetsError if there is neither,
    or if what came is not the archive that was published.
    """
    home = cache_dir() / "oxford-iiit-pet"
    images = home / "images"
    if images.is_dir():
        return images
    home.mkdir(exist_ok=True)
    archive = home / "images.tar.gz"
    if not archive.exists():
        _download(url, archive, md5)
    elif _md5(archive) != md5:
        raise FastpetsError(f"{archive}: its MD5 is {_md5(archive)}, expected {md5}; delete it, or fetch {url} again")
    _unpack(archive, images)
    return images


def _download(url: str, archive: Path, md5: str) -> None:
    """Fetches the archive beside its place, and moves it there when it is whole."""
    handle, name = tempfile.mkstemp(dir=archive.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as response:
            num_chunks = -(-int(response.headers.get("Content-Length", 0)) // CHUNK) or None
            for chunk in track(iter(lambda: response.read(CHUNK), b""), "downloading, MB", num_chunks):
                file.write(chunk)
        if (found := _md5(Path(name))) != md5:
            raise FastpetsError(f"{url}: what came has the MD5 {found}, expected {md5}; try again, or use --data DIR")
        os.replace(name, archive)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise FastpetsError(
            f"{url}: cannot be downloaded ({reason}); put the archive at {archive} by hand, or use --data DIR"
        ) from None
    finally:
        Path(name).unlink(missing_ok=True)


def _unpack(archive: Path, images: Path) -> None:
    """Unpacks the plain files of the archive's folder `images` beside their place, and moves them there together."""
    with tempfile.TemporaryDirectory(dir=images.parent) as folder:
        staging = Path(folder, "images")
        staging.mkdir()
        with tarfile.open(archive) as tar:
            for member in track(tar, "unpacking", None):
                path, content = PurePosixPath(member.name), tar.extractfile(member) if member.isfile() else None
                if content is not None and path.parent == PurePosixPath("images"):  # nothing leaves the folder
                    with open(staging / path.name, "wb") as file:
                        shutil.copyfileobj(content, file)
        os.replace(staging, images)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
