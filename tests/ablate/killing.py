"""Studies in processes that are killed: a server that forks, so that each of them starts warm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent


class Killer:
    """Runs the small study in a forked process and kills it, after some seconds or at an operation of the disk.

    Use it as a context manager.
    """

    def __enter__(self) -> Killer:
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "killing.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate(timeout=30)
        assert self._server.returncode == 0

    def run(self, folder: Path, *, seconds: float | None = None, operation: int | None = None) -> dict[str, Any]:
        """Whether the study was ``killed``, how many ``operations`` on the disk it had made, and its ``wall_s``."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"folder": str(folder), "seconds": seconds, "operation": operation}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def _serve() -> None:
    from laboratory import run, study

    from ablate import collect, cube, findings, registry, summary  # noqa: F401  # warm before the fork

    registry.load()
    import optuna  # noqa: F401

    for line in sys.stdin:
        order, count = json.loads(line), os.pipe()
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            _count(count[1], order["operation"])
            run(study(), Path(order["folder"]))
            os._exit(0)
        os.close(count[1])
        if order["seconds"] is not None:
            time.sleep(order["seconds"])
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        with os.fdopen(count[0], "rb") as pipe:
            operations = len(pipe.read())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, status
        print(json.dumps({"killed": killed, "operations": operations, "wall_s": time.perf_counter() - began}))
        sys.stdout.flush()


def _count(pipe: int, last: int | None) -> None:
    """Kill this process just before the operation number ``last``, counted from 1; tell each of them to the pipe."""
    made = [0]

    def counted(real: Any) -> Any:
        def operation(*args: Any, **options: Any) -> Any:
            made[0] += 1
            if made[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(pipe, b".")
            return real(*args, **options)

        return operation

    os.fsync = lambda descriptor: None  # a killed process loses nothing that the kernel has
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    _serve()
