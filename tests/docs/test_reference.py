"""The reference has every command, every public package and every public name, and each says what it takes."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import iir_fast
from iir_fast.app import cli

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")}
MODULES = [iir_fast, *(import_module(f"iir_fast.{found.name}") for found in pkgutil.iter_modules(iir_fast.__path__))]
PACKAGES = [module for module in MODULES if hasattr(module, "__all__")]


def functions_of(package: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The public functions of a package, and the public methods that its public classes define."""
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, FunctionType):
            yield name, value
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            function: Any = getattr(member, "__func__", member)
            inherited = any(attribute in vars(base) for base in value.__mro__[1:])
            if isinstance(function, FunctionType) and not attribute.startswith("_") and not inherited:
                yield f"{name}.{attribute}", function


def test_every_command_has_its_help():
    described = re.findall(r"<!-- help: (.*) -->", PAGES["commands"])
    assert {command.split()[0] for command in described} == set(cli.COMMANDS)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference_and_documented(package):
    described = re.findall(r"^::: (\S+)$", "\n".join(PAGES.values()), re.MULTILINE)
    if package.__name__ not in described:
        names = {name.rpartition(".")[2] for name in described}
        assert set(package.__all__) <= names
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or isinstance(value, FunctionType):
            assert value.__doc__, f"{package.__name__}.{name} has no docstring"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_parameter_of_a_public_function_is_described(package):
    for name, function in functions_of(package):
        text = function.__doc__ or ""
        missing = [
            parameter
            for parameter in inspect.signature(function).parameters
            if parameter not in ("self", "cls") and not re.search(rf"\b{parameter}\b", text)
        ]
        assert text, f"{package.__name__}.{name} has no docstring"
        assert not missing, f"{package.__name__}.{name} does not say what {', '.join(missing)} is"
