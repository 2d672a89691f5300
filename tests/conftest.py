"""Which implementation of the operators is under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# test_interpreter.py starts a second process in which it is "triton"; in both, calls that force nothing run it.
IMPLEMENTATION = os.environ.get("IIR_FAST_BACKEND", "host")


@pytest.fixture
def implementation() -> str:
    """The backend under test: "host" or "triton"."""
    return IMPLEMENTATION


@pytest.fixture(params=[IMPLEMENTATION, "reference"])
def each_backend(request: pytest.FixtureRequest) -> str:
    """The backend under test, and the reference."""
    return request.param


@pytest.fixture(scope="session", autouse=os.environ.get("TRITON_INTERPRET") == "1")
def quicker_interpreter() -> Iterator[None]:
    """Triton's interpreter prepares its language anew for every call of a function: two thirds of its time, saved."""
    from triton.runtime import interpreter

    prepare: Callable[[Any], Any] = interpreter._patch_lang

    def prepare_once(function: Any) -> Any:
        languages = [value for value in function.__globals__.values() if value in (interpreter.tl, interpreter.tl.core)]
        if any(interpreter.tl.core.is_builtin(language.load) for language in languages):
            return prepare(function)
        return interpreter._LangPatchScope()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", prepare_once)
        yield
