"""The documents: the examples of one page run, links resolve, and the flags that four pages mention exist."""

import doctest
import re
from pathlib import Path

import pytest

from fastpets.runs.config import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def test_the_examples_of_pet_breeds_print_the_results_shown() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "pet_breeds.md"), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/pet_breeds.md", "docs/from_fastai.md"])
def test_flags_mentioned_exist(page: Path) -> None:
    flags = {f"--{name.replace('_', '-')}" for name in TrainConfig.__dataclass_fields__}
    others = {"--help", "--nproc-per-node", "--format"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / page).read_text())) <= flags | others


def test_the_page_on_the_reference_loader_shows_its_code() -> None:
    code = (ROOT / "fastpets" / "loading" / "reference.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "docs" / "reference-loader.md").read_text()
