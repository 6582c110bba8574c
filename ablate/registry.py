"""Names to plug-ins. A plug-in is a typed function whose keyword-only parameters are its options.

The registry checks a function's signature once, when it is registered, and builds from it the pydantic
model that validates the options a study gives. Plug-ins are found through the entry-point group
``ablate.plugins``; nothing imports them by name.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from ablate.errors import StudyError, did_you_mean

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "behavior": ("known", "rng"),
    "label_shift": ("lm", "prompts", "rng"),
    "scorer": ("lm", "pool"),
    "selector": ("scores", "classes", "rng"),
    "objective": ("batch",),
    "method": (),
    "measure": ("before", "labels", "after", "rng"),
    "indicator": ("prompt", "text"),
}
"""Every family with the positional parameters of its functions."""

SUPPLIED: Mapping[str, tuple[str, ...]] = {"label_shift": ("k",)}
"""Keyword-only parameters that the engine fills in; they are no options of a level."""

OFFERED: Mapping[str, tuple[str, ...]] = {"behavior": ("judges",), "scorer": ("judges", "rewards", "scores")}
"""Keyword-only parameters that the engine fills in for a function that has them."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A registered function: ``traits`` are what its decorator declared, ``options`` its option model."""

    family: str
    name: str
    function: Callable[..., Any]
    options: type[BaseModel]
    doc: str
    version: int = 1
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wants(self) -> tuple[str, ...]:
        """What the engine offers and the function asks for."""
        asked = inspect.signature(self.function).parameters
        return tuple(name for name in OFFERED.get(self.family, ()) if name in asked)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*args, **options)


_plugins: dict[tuple[str, str], Plugin] = {}


def register(family: str, function: Callable[..., Any], *, version: int = 1, **traits: Any) -> Plugin:
    """Check the signature of ``function`` and enter it under its own name.

    Raises:
        StudyError: a name that is taken, a positional parameter that the family does not have, an
            option without a type, ``**kwargs``, or no docstring.
    """
    name = function.__name__
    if (family, name) in _plugins and _origin(_plugins[family, name].function) != _origin(function):
        raise StudyError(
            f"{family} '{name}' is registered twice: {_origin(function)} and {_origin(_plugins[family, name].function)}"
        )
    plugin = Plugin(
        family, name, function, _option_model(family, function), _first_paragraph(family, function), version, traits
    )
    _plugins[family, name] = plugin
    return plugin


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _first_paragraph(family: str, function: Callable[..., Any]) -> str:
    doc = inspect.getdoc(function)
    if not doc:
        raise StudyError(f"{family} '{function.__name__}' has no docstring; `ablate list` shows its first paragraph")
    return " ".join(doc.split("\n\n")[0].split())


def _option_model(family: str, function: Callable[..., Any]) -> type[BaseModel]:
    hints = typing.get_type_hints(function, include_extras=True)
    positional: list[str] = []
    supplied: list[str] = []
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in SUPPLIED.get(family, ()):
            supplied.append(parameter.name)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name in OFFERED.get(family, ()):
            continue
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise StudyError(f"{family} '{function.__name__}': option '{parameter.name}' has no type")
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
        elif parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            raise StudyError(f"{family} '{function.__name__}': options are named one by one, not as *{parameter.name}")
        else:
            positional.append(parameter.name)
    given = [*positional, *supplied]
    wanted = [*FAMILIES[family], *SUPPLIED.get(family, ())]
    if given != wanted:
        raise StudyError(f"{family} '{function.__name__}' takes ({', '.join(given)}); one takes ({', '.join(wanted)})")
    config = ConfigDict(extra="forbid", frozen=True, strict=False)
    return create_model(function.__name__, __config__=config, **fields)


@cache
def load() -> None:
    """Import every module that an installed distribution names under ``ablate.plugins``."""
    for entry in entry_points(group="ablate.plugins"):
        entry.load()


def names(family: str) -> list[str]:
    """The names of a family, sorted."""
    load()
    return sorted(name for kind, name in _plugins if kind == family)


def get(family: str, name: str) -> Plugin:
    """The plug-in of that name.

    Raises:
        StudyError: no such name, with the nearest one.
    """
    load()
    if (family, name) not in _plugins:
        noun = family.replace("_", " ")
        raise StudyError(f"no {noun} called '{name}'{did_you_mean(name, names(family))} (`ablate list {family}s`)")
    return _plugins[family, name]
