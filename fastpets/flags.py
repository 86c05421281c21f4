"""The flags of a command: tyro parses them into a dataclass; names of its fields in messages become flags.

Added to tyro are groups in the help and errors of one line.
"""

import contextlib
import dataclasses
import difflib
import inspect
import io
import itertools
import re
import shlex
import shutil
import textwrap
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import docstring_parser
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from fastpets.errors import FastpetsError

MAX_WIDTH = 80  # characters of a line of help


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
    are last. In its group, `data` is first, as it may be on the command line.
    """
    found: dict[str, list[str]] = {}
    for base in sorted(config_class.__mro__, key=lambda base: "title" not in vars(base)):
        if names := [*inspect.get_annotations(base)]:
            found.setdefault(vars(base).get("title", ""), []).extend(names)
    return {title: sorted(names, key=lambda name: name != "data" if title else 0) for title, names in found.items()}


def with_flags(message: str, config_class: type | None) -> str:
    """Replaces the names of parameters in a message of the library by flags.

    `name: ` at the start of the message becomes `--name: `. `name=value` becomes `--name value`, or `--name` or
    `--no-name` for True or False. A name with an underscore, such as `max_pixels`, becomes `--max-pixels` wherever it
    is a word of its own. Only the flags of `config_class` are replaced, not its positional arguments.
    """
    names = flag_names(config_class) if config_class is not None else []
    if not names:
        return message
    any_name = "|".join(sorted(names, key=len, reverse=True))
    message = re.sub(rf"^({any_name}): ", lambda match: f"{_flag(match[1])}: ", message)
    value = r"'[^']*'|[^\s'\",;:()]*[^\s'\",;:().]"  # a quoted string, or the rest of the word
    message = re.sub(rf"(?<![\w.-])({any_name})=({value})", lambda match: _setting(match[1], match[2]), message)
    for long_name in (name for name in names if "_" in name):
        message = re.sub(rf"(?<![\w./='-]){long_name}(?![\w./='-])", _flag(long_name), message)
    return message


def command_line(name: str, config: Any, leave_out: Sequence[str] = ()) -> str:
    """The command line that gives a configuration: the command `name`, and each flag that differs from its default.

    A configuration may have a method `recipe_settings`, whose values are the defaults beside the flag --recipe.
    """
    arguments = ["fastpets", name]
    default_of = {field.name: field.default for field in dataclasses.fields(config)}
    if hasattr(config, "recipe_settings"):
        default_of |= config.recipe_settings()
    for field in itertools.chain.from_iterable(groups(type(config)).values()):
        value = getattr(config, field)
        if field in leave_out or value == default_of[field]:
            continue
        if isinstance(value, bool):
            arguments.append(_flag(field, value))
        else:
            arguments += [_flag(field), *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(arguments)


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
                _form(config_class, defaults or {}),
                args=arguments,
                prog=prog,
                description=_description(config_class),
                return_unknown_args=True,
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
        text, title, rest = texts[name].partition("Default:")
        if default is dataclasses.MISSING:
            shown = "(required)"
        elif title:
            shown = title + rest
        else:  # a hint that is empty would leave an empty line below some texts
            shown = "(optional)" if default in (None, ()) else f"(default: {default})"
        help_text = tyro.conf.arg(help=text.rstrip(), help_behavior_hint=shown)
        return name, Annotated[hints[name], help_text], dataclasses.field(default=default)

    members: list[tuple[str, Any, Any]] = []
    for title, names in groups(config_class).items():
        if not title:
            members += map(member, names)
            continue
        group = dataclasses.make_dataclass(title, map(member, names), frozen=True, kw_only=True)
        members.append((title, Annotated[group, OmitArgPrefixes], dataclasses.field(default=group())))
    return dataclasses.make_dataclass("Form", members, kw_only=True)


def _description(config_class: type) -> str:
    """The class's docstring, in lines of up to MAX_WIDTH characters. tyro would make one line of each paragraph.

    It keeps the breaks before lines that begin with a space.
    """
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    paragraphs = (inspect.getdoc(config_class) or "").split("\n\n")
    return "\n".join(textwrap.fill(each, width, initial_indent=" ", subsequent_indent=" ") for each in paragraphs)


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
    text = " ".join(lines[start:end]).removeprefix("Error parsing ").removesuffix(".")
    return text.replace("{None}|", "")  # tyro's name of the type of a value that may be left out


def _flag(name: str, value: bool = True) -> str:
    return f"--{'' if value else 'no-'}{name.replace('_', '-')}"


def _setting(name: str, value: str) -> str:
    """The flag, with its value, for `name=value`."""
    if value in ("True", "False"):
        return _flag(name, value == "True")
    return f"{_flag(name)} {shlex.quote(value.strip(chr(39)))}"
