"""Output in Jupyter notebooks: HTML in a cell, which replaces itself, and tables."""

import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def is_in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook, which can show HTML."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return any(cls.__name__ == "ZMQInteractiveShell" for cls in type(shell).__mro__)  # Colab's is a subclass


class CellOutput:
    """HTML in the output of the cell that runs. `show` replaces what it has shown in this cell before."""

    def __init__(self) -> None:
        self._cell: int | None = None  # the number of the cell that has the output
        self._handle: Any = None

    def is_new(self) -> bool:
        """Whether the cell that runs has no such output yet."""
        return sys.modules["IPython"].get_ipython().execution_count != self._cell

    def show(self, html: str) -> None:
        from IPython.display import HTML, display

        if self.is_new():
            self._cell = sys.modules["IPython"].get_ipython().execution_count
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """An HTML table of rows with the same columns. Values are shown as they are formatted by str."""
    heading = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    cells = ["".join(f"<td>{escape(str(value))}</td>" for value in row.values()) for row in rows]
    return f"<table><tr>{heading}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def heading(text: str) -> str:
    """A line of HTML above a table."""
    return f"<b>{escape(text)}</b>"


def description(title: str, values: Mapping[str, Any]) -> str:
    """An HTML table of an object's values by name, below a title."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in values.items())
    return f"{heading(title)}<table>{rows}</table>"
