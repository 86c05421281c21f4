"""The documents: what they show is run, what they point to is there, and the table of flags has no flag that is not."""

import doctest
import re
from pathlib import Path

import pytest

from fastpets.runs.config import TrainConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def test_the_walk_through_the_chapter_prints_its_numbers() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "pet_breeds.md"), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/pet_breeds.md", "docs/from_fastai.md"])
def test_flags_that_are_spoken_of_exist(page: Path) -> None:
    flags = {f"--{name.replace('_', '-')}" for name in TrainConfig.__dataclass_fields__}
    others = {"--help", "--nproc-per-node", "--format"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / page).read_text())) <= flags | others
