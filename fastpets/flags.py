"""Flags of a command, parsed by argparse into the dataclass whose fields they are.

The help texts are the strings below the fields. tyro, which reads these, too, cannot group flags without prefixing
their names, and prints errors as boxes.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar

from fastpets.errors import FastpetsError

T = TypeVar("T")
Positional = Annotated[T, "positional"]  # the type of a field that is given by its place, not by a flag
EXPECTED = {int: "a whole number", float: "a number"}
MAX_WIDTH = 100  # columns of the help


class UsageError(FastpetsError):
    """Arguments that cannot be parsed."""


class Arg(NamedTuple):
    """How a field is given.

    Attributes:
        metavar: stands for its value in the help.
        aliases: other flags for it, such as "-0".
        also_positional: whether it may be given by its flag or by its place.
    """

    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    also_positional: bool = False


arg = Arg  # Annotated[str, arg(metavar="DIR")] reads as other libraries have it


class Flag(NamedTuple):
    """A field of a configuration, as it is given on the command line. `type` is that of its value, or of each."""

    name: str
    type: Any
    default: Any
    help: str
    is_optional: bool
    is_several: bool
    is_positional: bool
    is_flag: bool
    metavar: str | None
    aliases: tuple[str, ...]

    @property
    def option(self) -> str:
        """The flag, such as --num-workers."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """What stands for its value."""
        if typing.get_origin(self.type) is Literal:
            return "{" + ",".join([*self.choices, *(["none"] if self.is_optional else [])]) + "}"
        of_type = {int: "N", float: "X", Path: "FILE"} if self.is_flag else {}
        return self.metavar or of_type.get(self.type, self.name.upper())

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible values, if there are few."""
        return typing.get_args(self.type) if typing.get_origin(self.type) is Literal else ()

    def parsed(self, text: str) -> Any:
        """The value that `text` gives; "none" is None where the field may be None. Raises ArgumentTypeError."""
        if self.is_optional and text.lower() == "none":
            return None
        if self.choices:
            if text in self.choices:
                return text
            expected = ", ".join(self.choices)
            raise argparse.ArgumentTypeError(f"{text!r}, expected one of {expected}{hint(text, self.choices)}")
        try:
            return self.type(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}, expected {EXPECTED[self.type]}") from None


def flags_of(config_class: type) -> list[Flag]:
    """The fields of a dataclass as flags."""
    hints, texts = typing.get_type_hints(config_class, include_extras=True), _texts(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        annotation, marks = hints[field.name], list[Any]()
        if typing.get_origin(annotation) is Annotated:
            annotation, *marks = typing.get_args(annotation)
        given = next((mark for mark in marks if isinstance(mark, Arg)), Arg())
        is_optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
        if is_optional:
            (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
        is_several = typing.get_origin(annotation) is tuple
        is_only_positional = "positional" in marks
        found.append(
            Flag(
                field.name,
                typing.get_args(annotation)[0] if is_several else annotation,
                field.default,
                texts.get(field.name, ""),
                is_optional,
                is_several,
                is_only_positional or given.also_positional,
                not is_only_positional,
                given.metavar,
                given.aliases,
            )
        )
    return found


def parse(config_class: Any, arguments: Sequence[str], prog: str) -> Any:
    """The configuration that a command line gives. Raises UsageError, or what the class raises.

    A configuration may have a method `defaults`, whose values flags that are not given then have, unless it is None.
    """
    flags = flags_of(config_class)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    _add_options(lambda flag: parser, flags)
    # argparse would take an optional positional argument for missing if flags come before it.
    namespace, rest = parser.parse_known_args(arguments[:split])
    for argument in rest:
        if argument.startswith("-") and argument != "-":
            name = argument.partition("=")[0]
            options = [flag.option for flag in flags if flag.is_flag]
            raise UsageError(f"unknown flag {name}{hint(name, options)}; {prog} --help lists all")
    given = vars(namespace)
    given |= _by_place(flags, [*rest, *arguments[split + 1 :]], given, prog)
    draft = object.__new__(config_class)  # not validated
    vars(draft).update({flag.name: flag.default for flag in flags} | given)
    stored = draft.defaults() if hasattr(draft, "defaults") else None
    return config_class(**(vars(stored) if stored is not None else {}) | given)


def help_text(config_class: type, prog: str) -> str:
    """What --help prints: the description, and the flags in the class's `flag_groups`, each with its default."""
    flags = flags_of(config_class)
    positional = [flag for flag in flags if flag.is_positional]
    places = "".join(f" {_place(flag)}" for flag in positional)
    paragraphs = inspect.cleandoc(config_class.__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog,
        usage=f"{prog}{places} [FLAGS]",
        description="\n\n".join(textwrap.fill(paragraph, 80) for paragraph in paragraphs),
        formatter_class=_Formatter,
        add_help=False,
    )
    arguments = parser.add_argument_group("arguments") if positional else parser
    for flag in positional:
        text = f"the same as {flag.option} {flag.shown}" if flag.is_flag else _help(flag)
        arguments.add_argument(flag.name, metavar=flag.shown, help=text)
    groups: dict[str, str] = getattr(config_class, "flag_groups", {})
    title_of = {name: title for title, names in groups.items() for name in names.split()}
    order = ["flags", *groups]
    place_of = {name: place for place, name in enumerate(title_of)}
    flags = sorted((flag for flag in flags if flag.is_flag), key=lambda flag: place_of.get(flag.name, -1))
    titles = sorted({title_of.get(flag.name, order[0]) for flag in flags}, key=order.index)
    found = {title: parser.add_argument_group(title) for title in titles}
    _add_options(lambda flag: found[title_of.get(flag.name, order[0])], flags)
    return parser.format_help()


def hint(name: str, names: Sequence[str]) -> str:
    """A suggestion that ends a message about an unknown name; "" if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").replace("expected one argument", "no value, expected one")
        raise UsageError(text)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Fits the terminal, and breaks no line within a flag."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns - 2, MAX_WIDTH))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def _add_options(group_of: Callable[[Flag], Any], flags: Sequence[Flag]) -> None:
    """Adds the flags to argparse's groups, or to a parser."""
    for flag in flags:
        if not flag.is_flag:
            continue
        more: dict[str, Any] = {"type": flag.parsed, "metavar": flag.shown}
        if flag.type is bool:
            more = {"action": "store_true" if flag.aliases else argparse.BooleanOptionalAction}
        elif flag.is_several:
            more["nargs"] = "*"
        options = (*flag.aliases, flag.option)
        group_of(flag).add_argument(*options, dest=flag.name, default=argparse.SUPPRESS, help=_help(flag), **more)


def _by_place(flags: Sequence[Flag], values: list[str], given: dict[str, Any], prog: str) -> dict[str, Any]:
    """The values of positional arguments. Raises UsageError."""
    found: dict[str, Any] = {}
    for flag in (flag for flag in flags if flag.is_positional):
        own, values = (values, []) if flag.is_several else (values[:1], values[1:])
        if own and flag.name in given:
            raise UsageError(f"{flag.shown}: given twice, as {own[0]!r} and by {flag.option}")
        try:
            parsed = tuple(map(flag.parsed, own))
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{flag.shown}: {error}") from None
        if parsed:
            found[flag.name] = parsed if flag.is_several else parsed[0]
        elif flag.default is dataclasses.MISSING:
            raise UsageError(f"{flag.shown}: missing; {prog} --help lists the arguments")
    if values:
        raise UsageError(f"{values[0]!r}: one argument too many; {prog} --help lists them")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in (given | found).items()}


def _place(flag: Flag) -> str:
    shown = f"{flag.shown} ..." if flag.is_several else flag.shown
    return shown if flag.default is dataclasses.MISSING else f"[{shown}]"


def _help(flag: Flag) -> str:
    """The help text with the default, unless the text has it or the flag is not given by default."""
    default = flag.default
    is_shown = default is not False and default not in (dataclasses.MISSING, None, ()) and "Default:" not in flag.help
    return (flag.help + (f" (default: {default})" if is_shown else "")).replace("%", "%%")


def _texts(config_class: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(base):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(tree, ast.ClassDef)
            for field, text in itertools.pairwise(tree.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found
