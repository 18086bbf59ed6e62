"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_lock_directory(tmp_path_factory):
    """This machine is locked for these tests alone, so that they may run beside others' measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        yield
