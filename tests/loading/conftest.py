"""Tests of Loaders run with each decoder: on a CPU, "dali" exercises the code that runs on a GPU."""

import pytest

from fastpets import Loader


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if hasattr(metafunc.module, "Loader") and "test_gpu" not in metafunc.module.__name__:  # these choose one
        choices = ["auto", pytest.param("dali", marks=pytest.mark.slow)]
        metafunc.parametrize("decoder", choices, indirect=True)


@pytest.fixture(autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default of the Loader's argument `decoder`."""
    name = getattr(request, "param", "auto")
    monkeypatch.setitem(Loader.__init__.__kwdefaults__, "decoder", name)
    return name
