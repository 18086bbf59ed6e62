"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One core each: torch in every worker would take them all.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_lock_directory(tmp_path_factory):
    """This machine is locked for these tests alone, so that they may run beside others' measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        yield
