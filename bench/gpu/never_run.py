"""Writes the functions that mention a GPU, which have lines that no CPU runs, into README.md.

python -m bench.gpu.never_run
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "bench" / "README.md"
LIST = re.compile(r"(?<=`python -m bench.gpu.never_run` finds them:\n\n)(- .*\n(?:  .*\n)*)+")
FOLDERS = ("kernels", "pipelines", "fastpets")
NAMES = {"cuda", "is_cuda", "pin_memory", "record_stream", "wait_stream", "is_bf16_supported"}
STRINGS = ("cuda", "gpu", "mixed", "nccl")


def main() -> None:
    """Writes the list into README.md."""
    README.write_text(re.sub(LIST, "\n".join(lines()) + "\n", README.read_text()))


def lines() -> list[str]:
    """A line of Markdown for each file with such functions."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    found = {file.relative_to(ROOT): list(functions(ast.parse(file.read_text()))) for file in files}
    return [
        fill(f"- `{file}`: {', '.join(f'`{name}`' for name in names)}", 120, subsequent_indent="  ")
        for file, names in found.items()
        if names
    ]


def functions(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """The qualified names of the innermost functions in `node` that mention a GPU."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            name = prefix + child.name
            inner = list(functions(child, f"{name}."))
            yield from inner
            if isinstance(child, ast.FunctionDef) and not inner and any(map(is_about_gpus, ast.walk(child))):
                yield name
        elif not isinstance(child, ast.Constant):
            yield from functions(child, prefix)


def is_about_gpus(node: ast.AST) -> bool:
    """Whether a node names a GPU, or compares with the CPU, which leaves the GPU as the other case."""
    match node:
        case ast.Attribute(attr=name) | ast.keyword(arg=name):
            return name in NAMES
        case ast.Compare(comparators=[ast.Constant(value="cpu")]):
            return True
        case ast.Constant(value=str(value)):
            return value in STRINGS
    return False


if __name__ == "__main__":
    main()
