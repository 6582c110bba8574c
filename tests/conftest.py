import os

import pytest

pytest.register_assert_rewrite("ablate.testing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs a real model first: it takes longest, and the other workers go on meanwhile."""
    items.sort(key=lambda item: not item.path.name.startswith("test_embedded"))


def pytest_configure(config: pytest.Config) -> None:
    """Each worker of `pytest -n` has one core: two torch processes on the same cores are far slower than one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
