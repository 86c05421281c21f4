"""Flags of a command, which tyro parses into a dataclass. Added are groups in the help and errors of one line."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import docstring_parser
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from fastpets.errors import FastpetsError


class UsageError(FastpetsError):
    """Arguments that cannot be parsed."""


def parse(config_class: Any, arguments: Sequence[str], prog: str) -> Any:
    """The configuration that a command line gives. Raises UsageError, or what the class raises; SystemExit for --help.

    If the class has a flag --data, the first argument may be its value. A configuration may have a method `defaults`,
    whose values flags that are not given then have, unless it is None.
    """
    if "data" in flag_names(config_class) and arguments and not arguments[0].startswith("-"):
        arguments = ["--data", *arguments]
    values = _parsed(config_class, arguments, prog)
    if hasattr(config_class, "defaults"):
        unchecked = object.__new__(config_class)
        vars(unchecked).update(values)
        if (defaults := unchecked.defaults()) is not None:
            values = _parsed(config_class, arguments, prog, vars(defaults))
    return config_class(**values)


def flag_names(config_class: type) -> list[str]:
    """The names of the fields that are flags, not positional arguments."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    names = [field.name for field in dataclasses.fields(config_class)]
    return [name for name in names if Positional not in getattr(hints[name], "__metadata__", ())]


def groups(config_class: type) -> dict[str, list[str]]:
    """The names of the fields in each group of flags in the help, by the group's title.

    The title is that of the class that defines the field. Fields of classes without a `title` have the title "", and
    are last.
    """
    found: dict[str, list[str]] = {}
    for base in sorted(config_class.__mro__, key=lambda base: "title" not in vars(base)):
        if names := [*inspect.get_annotations(base)]:
            found.setdefault(vars(base).get("title", ""), []).extend(names)
    return found


def hint(name: str, names: Sequence[str]) -> str:
    """A suggestion that ends a message about an unknown name; "" if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _parsed(
    config_class: type, arguments: Sequence[str], prog: str, defaults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The values of all fields, which are not checked. Raises UsageError; tyro raises SystemExit for --help."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed: tuple[Any, list[str]] = tyro.cli(
                _form(config_class, defaults or {}), args=arguments, prog=prog, return_unknown_args=True
            )
    except SystemExit as end:
        if end.code == 0:
            raise
        raise UsageError(f"{_first_paragraph(printed.getvalue())}; {prog} --help lists the flags") from None
    form, unknown = parsed
    if unknown:
        name = unknown[0].partition("=")[0]
        similar = hint(name, [f"--{each.replace('_', '-')}" for each in flag_names(config_class)])
        found = f"unknown flag {name}{similar}" if name.startswith("-") else f"unexpected argument {name!r}"
        raise UsageError(f"{found}; {prog} --help lists the flags")
    values: dict[str, Any] = {}
    for name, value in vars(form).items():
        values |= vars(value) if dataclasses.is_dataclass(value) else {name: value}
    return values


def _form(config_class: type, defaults: dict[str, Any]) -> type:
    """The class into which tyro parses. tyro shows the fields of a dataclass within it as a group.

    It has no validation, whose errors tyro would print as boxes.
    """
    hints, texts = typing.get_type_hints(config_class, include_extras=True), _texts(config_class)
    default_of = {field.name: field.default for field in dataclasses.fields(config_class)} | defaults

    def member(name: str) -> tuple[str, Any, Any]:
        default = default_of[name]
        shown = f"(default: {default})"
        if default is dataclasses.MISSING:
            shown = "(required)"
        elif default in (None, ()) or "Default:" in texts[name]:
            shown = ""
        text = tyro.conf.arg(help=texts[name], help_behavior_hint=shown)
        return name, Annotated[hints[name], text], dataclasses.field(default=default)

    members: list[tuple[str, Any, Any]] = []
    for title, names in groups(config_class).items():
        if not title:
            members += map(member, names)
            continue
        group = dataclasses.make_dataclass(title, map(member, names), frozen=True, kw_only=True)
        members.append((title, Annotated[group, OmitArgPrefixes], dataclasses.field(default=group())))
    namespace = {"__doc__": inspect.getdoc(config_class)}
    return dataclasses.make_dataclass("Form", members, kw_only=True, namespace=namespace)


def _texts(config_class: type) -> dict[str, str]:
    """The docstrings of the fields as one line each. tyro reads them, too, but keeps their line breaks."""
    found: dict[str, str] = {}
    for base in config_class.__mro__[-2::-1]:  # all but object
        for param in docstring_parser.parse_from_object(base).params:
            found[param.arg_name] = " ".join((param.description or "").split())
    return found


def _first_paragraph(box: str) -> str:
    """The first paragraph below the title of a box that tyro prints, as one line. In ASCII a box is a ruled heading."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    is_text = [any(map(str.isalnum, line)) for line in lines]
    start = is_text.index(True)
    end = is_text.index(False, start)
    return " ".join(lines[start:end]).removeprefix("Error parsing ").removesuffix(".")
