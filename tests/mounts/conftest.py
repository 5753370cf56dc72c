"""One export with its two mounts for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.mounts.export import Export, exported


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    with exported(tmp_path_factory.mktemp("mounts")) as made:
        yield made
