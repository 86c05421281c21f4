"""The Oxford-IIIT Pet images (O. M. Parkhi et al., "Cats and Dogs", CVPR 2012), downloaded once and verified."""

import contextlib
import http.client
import io
import os
import tarfile
import tempfile
from pathlib import Path

from fastpets.data.network import check_connection
from fastpets.errors import FastpetsError
from fastpets.utils.progress import is_on_terminal, track
from fastpets.utils.system import cache_dir, cache_must_be_writable

URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz"
MD5 = "5c4f3ee8e5d25df40f4fd59a7f44e54c"  # as in torchvision's OxfordIIITPet


@cache_must_be_writable()
def pets_folder(url: str = URL, md5: str = MD5) -> Path:
    """The folder of the 7,390 images in the user's cache folder; downloaded and unpacked on the first call.

    If the archive is in the cache folder, it is not downloaded. Raises FastpetsError if it cannot be downloaded, or is
    not the published one.
    """
    home = cache_dir() / "oxford-iiit-pet"
    images, archive = home / "images", home / "images.tar.gz"
    if images.is_dir():
        return images
    from torchvision.datasets.utils import calculate_md5  # imports torch

    home.mkdir(exist_ok=True)
    if not archive.exists():
        _download(url, archive, md5)
    elif (found := calculate_md5(archive)) != md5:
        raise FastpetsError(f"{archive}: its MD5 is {found}, expected {md5}; delete it, or download {url} again")
    _unpack(archive, images)
    return images


# torchvision's download_and_extract_archive downloads and unpacks in place, so that an interrupted call leaves an
# incomplete data set that looks complete. Here both steps use a staging folder.
def _download(url: str, archive: Path, md5: str) -> None:
    """Downloads the archive to a staging folder, verifies it, and moves it to `archive`."""
    from torchvision.datasets.utils import download_url

    with tempfile.TemporaryDirectory(dir=archive.parent) as staging, contextlib.ExitStack() as stack:
        if not is_on_terminal():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))  # hides the progress bar
        try:
            check_connection(url)
            download_url(url, staging, archive.name, md5)
        except RuntimeError:  # the MD5 is wrong
            raise FastpetsError(
                f"{url}: the downloaded file is not the published archive, whose MD5 is {md5}; try again, or use your "
                "own images: data='DIR'"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise FastpetsError(
                f"{url}: cannot be downloaded ({reason}); save the archive as {archive}, or use your own images: "
                "data='DIR'"
            ) from None
        os.replace(Path(staging, archive.name), archive)


def _unpack(archive: Path, images: Path) -> None:
    """Unpacks the archive to a staging folder and moves its folder `images` to `images`."""
    with tempfile.TemporaryDirectory(dir=images.parent) as staging:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(staging, members=track(tar, "unpacking", None), filter="data")
        except tarfile.TarError as error:
            raise FastpetsError(f"{archive}: {error}, expected the published archive; delete it") from None
        os.replace(Path(staging, "images"), images)
