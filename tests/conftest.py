"""What all tests share: one thread a process.

pytest-xdist runs a process a core, and a study's workers are processes too; threads within them would only fight for
the cores, and the sums of a BLAS would depend on how many there are. Set here, before numpy and torch are imported.
"""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"


def pytest_collection_modifyitems(items):
    """Put the files with slow tests first and then those with the most long ones: what begins last is waited for.

    The tests of a file stay together and in their order.
    """
    slow, long = (
        Counter(item.path for item in items if mark in {m.name for m in item.iter_markers()})
        for mark in ("slow", "long")
    )
    items.sort(key=lambda item: (-slow[item.path], -long[item.path]))


def pytest_collection_finish():
    """Take nine thousand tests and all modules out of what the collector of garbage goes through in each of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def keyboard():
    """A process that Ctrl-C reaches: one that was started in the background ignores it, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests that write reports and look at none of their pictures, which cost more than all the rest."""
    _leave_out_pictures(monkeypatch)


@pytest.fixture(scope="module")
def no_pictures_in_module():
    """The same for all tests of a module, and the studies that they share."""
    with pytest.MonkeyPatch.context() as patch:
        _leave_out_pictures(patch)
        yield


@pytest.fixture(scope="session")
def leave_out_pictures():
    """What does the same by a patch of one's own, for tests that look at some pictures."""
    return _leave_out_pictures


def _leave_out_pictures(patch):
    from ddpmkit.report.draw import charts, figures
    from ddpmkit.report.show import html

    for module in (charts, html):
        patch.setattr(module, "charts", lambda records, summary: iter(()))
    patch.setattr(figures, "write_figures", lambda folder, summary, samples, charts: [])
