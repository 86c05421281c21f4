"""The command line. `fastpets NAME` and `python -m fastpets NAME` run the same command, as does its module."""

import logging
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from fastpets import __version__, streams
from fastpets.errors import BadFileWarning, FastpetsError, without_middle
from fastpets.flags import UsageError, hint, parse, with_flags


class Command(NamedTuple):
    """A command: the function NAME in fastpets/NAME.py, which takes a configuration and returns the exit status.

    Attributes:
        config: name of the dataclass in that module whose fields are the command's flags.
        summary: one line for `fastpets --help`.
        module: another name of function and module, where a package has the command's name.
        interrupted: printed after Ctrl-C.
        lists_bad_files: whether the command lists bad files itself. Warnings about them are then not shown.
    """

    config: str
    summary: str
    module: str = ""
    interrupted: str = "stopped"
    lists_bad_files: bool = False


COMMANDS = {
    "train": Command("TrainConfig", "train an image classifier and write a run folder"),
    "check": Command(
        "CheckConfig",
        "decode all images and list those that cannot be used",
        interrupted="stopped before all files were checked",
        lists_bad_files=True,
    ),
    "show": Command("ShowConfig", "draw training images as the model sees them"),
    "summary": Command(
        "SummaryConfig",
        "describe a data set, trace one image, warn of problems",
        lists_bad_files=True,
    ),
    "predict": Command("PredictConfig", "predict the classes of images", lists_bad_files=True),
    "suspects": Command("SuspectsConfig", "find images whose labels may be wrong", lists_bad_files=True),
    "export": Command("ExportConfig", "convert a trained model to ONNX or torch.export"),
    "serve": Command("ServeConfig", "serve a page that classifies images dropped on it"),
    "lr-find": Command("LrFindConfig", "suggest a learning rate and draw the finder's curve"),
    "compare": Command("CompareConfig", "compare runs: a table and curves"),
    "report": Command("ReportConfig", "write the page of a run again"),
    "recipes": Command("RecipesConfig", "list the recipes of train and their settings"),
    "models": Command("ModelsConfig", "list the architectures of torchvision and timm", module="list_models"),
    "cache": Command("CacheConfig", "list or remove the decoded images that are kept on disk"),
    "ceiling": Command("CeilingConfig", "measure how much of its speed training loses to loading"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default that of this process, and returns the exit status.

    The status is the command's own, 1 after an error, 2 for an unknown command, an unknown flag or a value of another
    type, or 130 after Ctrl-C. An error is printed as one line. If standard output cannot be written, the command is
    completed nevertheless, and the status is 1, but not if its reader has closed it, as `| head -1` does.
    """
    streams.open_closed()
    with streams.lasting("stderr"):
        with streams.lasting("stdout") as stdout:
            status = _run_line(arguments)
        if stdout is not None and stdout.error is not None:
            print(f"error: standard output: {stdout.error.strerror}; lines are missing there", file=sys.stderr)
            return status or 1
        return status


def _run_line(arguments: Sequence[str] | None) -> int:
    name, *flags = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"fastpets {__version__}")
        return 0
    if name not in COMMANDS:
        expected = f"{', '.join(COMMANDS)}{hint(name, [*COMMANDS])}"
        print(f"error: unknown command {without_middle(repr(name))}, expected one of {expected}", file=sys.stderr)
        return 2
    return run(name, flags)


def overview() -> str:
    """The help of `fastpets` itself."""
    lines = [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: fastpets COMMAND [FLAGS]", "", "commands:", *lines, "", "fastpets COMMAND --help lists the flags."]
    )


def run(name: str, arguments: Sequence[str]) -> int:
    """Parses the flags of the command `name`, runs it, and returns the exit status."""
    command, config_class = COMMANDS[name], None
    function = command.module or name.replace("-", "_")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if it has no folder for its cache
    try:
        module = import_module(f"fastpets.{function}")
        config_class = getattr(module, command.config)
        with warnings.catch_warnings():
            _show_warnings_as_lines(config_class)
            if command.lists_bad_files:
                warnings.simplefilter("ignore", BadFileWarning)
            return getattr(module, function)(parse(config_class, arguments, f"fastpets {name}"))
    except SystemExit as end:  # raised by tyro after --help
        return int(end.code or 0)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FastpetsError as error:
        print(f"error: {with_flags(str(error), config_class)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{command.interrupted}", file=sys.stderr)
        return 130


def _show_warnings_as_lines(config_class: type) -> None:
    """Prints each warning as one line on standard error, once, without file name and line number."""
    printed: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        line = f"warning: {with_flags(str(message), config_class)}"
        if line not in printed:
            print(line, file=sys.stderr)
        printed.add(line)

    warnings.showwarning = show
