"""A server of `ablate view` in a thread of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.view import Server, server


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Server]:
    """It serves until the block ends."""
    with server(folder, **options) as own:
        thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield own
        finally:
            own.shutdown()
            thread.join()
