"""These tests need an installed C library: MARKETPLACE_CAPI_PREFIX says where (see .ci/capi)."""

import os
from typing import Any

import pytest

collect_ignore_glob = [] if os.environ.get("MARKETPLACE_CAPI_PREFIX") else ["*"]


@pytest.fixture
def digits() -> Any:
    """A small market through the C ABI."""
    import pairs

    return pairs.digits()[1]
