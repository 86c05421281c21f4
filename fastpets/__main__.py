"""Runs the command line: `python -m fastpets NAME`."""

import sys

from fastpets.cli import main

if __name__ == "__main__":
    sys.exit(main())
