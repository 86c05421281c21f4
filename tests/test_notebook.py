"""Notebooks, in a real kernel: what is shown during training, and the chapter from beginning to end."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import fastpets
from fastpets.training.history import History

CHAPTER = Path(__file__).parent.parent / "docs" / "pet_breeds.ipynb"
NUM_BREEDS = 5

TRAINING = """
import fastpets
train, valid = fastpets.loaders({folder!r}, size=32, batch_size=4)
learner = fastpets.Learner(train, valid, fastpets.create_model("squeezenet1_1", 2, "none"))
"""


def executed(notebook: nbformat.NotebookNode, folder: Path) -> list[list[nbformat.NotebookNode]]:
    """The outputs of each code cell of a notebook that is executed in `folder`."""
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]


def notebook_of(*cells: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def shown(outputs: list[nbformat.NotebookNode], kind: str) -> list[str]:
    """The outputs of a cell that have a type, such as text/html."""
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


@pytest.mark.slow
def test_objects_are_short_tables_and_plots_and_training_is_one_growing_table_with_a_bar_that_vanishes(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    values = ["train", "train.dataset", "learner", "learner.lr_find(num_steps=20)", "learner.history"]
    fits = ["learner.fine_tune(2, freeze_epochs=1)", "learner.fit_one_cycle(1, 1e-3)"]
    cells = [TRAINING.format(folder=str(make_folder(20))), *values, *fits]
    _, loader, dataset, learner, curve, history, first, second = executed(notebook_of(*cells), tmp_path)
    assert "<th>batches</th><td>4 of 4</td>" in shown(loader, "text/html")[0]
    assert "<b>16 images of 2 classes in " in shown(dataset, "text/html")[0]
    assert "<th>training images</th><td>16</td>" in shown(learner, "text/html")[0]
    assert len(shown(curve, "image/png")) == 1
    assert "valley" in shown(curve, "text/plain")[-1]
    assert "0 epochs" in shown(history, "text/html")[0]
    for outputs, num_epochs in ((first, 3), (second, 1)):
        (table,) = [html for html in shown(outputs, "text/html") if "error_rate" in html]
        assert table.count("<tr>") == 1 + num_epochs
        assert "<progress" not in "".join(shown(outputs, "text/html"))
        assert not [output for output in outputs if output["output_type"] == "stream"]


def test_reprs_are_short(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=4)
    learner = fastpets.Learner(train, valid, fastpets.create_model("squeezenet1_1", 2, "none"))
    for value in (train, train.dataset, learner, learner.history, History()):
        assert len(repr(value)) < 400
        assert "\n" not in repr(value)


@pytest.mark.slow
def test_the_chapter_runs_from_beginning_to_end(
    pets: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breeds = sorted({path.name.rpartition("_")[0] for path in pets.glob("*.jpg")})[:NUM_BREEDS]
    folder = tmp_path / "images"
    folder.mkdir()
    for path in pets.glob("*.jpg"):
        if path.name.rpartition("_")[0] in breeds:
            shutil.copy(path, folder)
    monkeypatch.setenv("FASTPETS_PETS", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHAPTER.parent.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(CHAPTER, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "else 128" in cell["source"]]
    settings["source"] = settings["source"].replace("else 128", "else 32")
    assert all(not cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code")  # no image is published
    outputs = executed(notebook, tmp_path)
    assert sum(len(shown(cell, "image/png")) for cell in outputs) >= 7
    (table,) = [html for cell in outputs for html in shown(cell, "text/html") if "<th>run</th>" in html]
    assert table.count("<tr>") == 1 + 6
