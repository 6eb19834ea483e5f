"""Fixtures of all tests."""

from pathlib import Path

import pytest
from tiny import TinyCourse


@pytest.fixture
def course(tmp_path: Path) -> TinyCourse:
    """An empty tiny course."""
    return TinyCourse(tmp_path)
