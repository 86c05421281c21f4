"""The first epoch of a second run with `cache="disk"`, in a process of its own.

As a program it makes a Loader, prints "ready", waits for a line, and prints the number of images of each batch.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class SecondRun:
    """Each pass is the first epoch of a new process, which `prepare` starts. `settings` go to Loader.

    The first run, which decodes the images, is over when this is made. As labels, a batch has its number of images.
    """

    def __init__(self, paths: Sequence[str], **settings: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fastpets-bench-")
        self.arguments = Path(self.folder.name) / "arguments.json"
        settings |= {"cache": "disk", "cache_dir": self.folder.name}
        self.arguments.write_text(json.dumps({"paths": list(paths), "settings": settings}))
        self.child: subprocess.Popen[str] | None = None
        self.prepare()
        for _ in self:
            pass

    def prepare(self) -> None:
        """Starts a process, up to the start of its epoch."""
        self.stop()
        command = [sys.executable, "-m", "bench.second_run", str(self.arguments)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n", "bench.second_run failed"

    def stop(self) -> None:
        """Ends the process."""
        if self.child is not None:
            self.child.communicate()

    def __iter__(self) -> Iterator[Any]:
        if self.child is None or self.child.poll() is not None:
            self.prepare()
        assert self.child is not None
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        while (line := self.child.stdout.readline()) != "done\n":
            yield None, range(int(line))


def main(arguments: Path) -> None:
    from fastpets.data.dataset import ImageDataset
    from fastpets.loading.loader import Loader

    given = json.loads(arguments.read_text())
    paths, settings = given["paths"], given["settings"]
    dataset = ImageDataset(tuple(paths), np.zeros(len(paths), np.int64), ("image",))
    # Compiles the kernels, on uncached images.
    warm_up = Loader(dataset.select(np.arange(1)), **{**settings, "cache": "none"})
    assert len(list(warm_up)) == 1
    loader = Loader(dataset, **settings)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    for batch in loader:
        print(len(batch.labels), flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
