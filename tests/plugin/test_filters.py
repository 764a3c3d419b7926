"""What an import does to the filters of warnings: those of its own stay, those of everybody's are taken back."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

from ddpmkit.plugin.changes import watched


class Own(UserWarning):
    pass


def silenced_and_reset() -> None:
    warnings.resetwarnings()
    warnings.simplefilter("ignore")


@pytest.mark.parametrize(
    "broad", [lambda: warnings.simplefilter("error"), lambda: warnings.simplefilter("ignore"), silenced_and_reset]
)
def test_filters_of_all_warnings_are_taken_back(broad: Callable[[], None]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        before = list(warnings.filters)
        with watched("a plugin"):
            broad()
        assert list(warnings.filters) == before
        warnings.warn("still told", stacklevel=1)
        assert len(told) == 1


def test_filters_of_an_import_s_own_stay() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with watched("a plugin"):
            warnings.filterwarnings("ignore", message="about dtypes")
            warnings.simplefilter("ignore", Own)
        warnings.warn("about dtypes", stacklevel=1)
        warnings.warn("anything", Own, stacklevel=1)
        with pytest.raises(UserWarning, match="of others"):
            warnings.warn("of others", stacklevel=1)
