"""The search for a target: how it bisects, and that one that was killed goes on with its trials."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.organisms import calibrate
from ablate.store import Store
from ablate.tuning import tune

KILLED = """
import os, signal, sys
from pathlib import Path
from ablate.organisms import calibrate

def risk_at(share):
    print(share, flush=True)
    if share == 0.875:
        os.kill(os.getpid(), signal.SIGKILL)
    return share**3, 0.25

calibrate(risk_at, 0.5, 0.1, Path(sys.argv[1]))
"""


def cubed(asked: list[float]) -> Any:
    def measured(x: float) -> dict[str, float]:
        asked.append(x)
        return {"cube": x**3, "x": x}

    return measured


def search(asked: list[float], journal: Path | None = None, **options: Any) -> Any:
    options = {"within": 0.05, "low": 0.0, "high": 1.0, "trials": 8, **options}
    return tune(cubed(asked), "cube", 0.5, journal=journal, **options)


def test_it_bisects_and_keeps_every_trial() -> None:
    asked: list[float] = []
    best, tried = search(asked)
    assert asked == [0.5, 0.75, 0.875, 0.8125]
    assert tried == [{"at": x, "cube": x**3, "x": x} for x in asked]
    assert best == tried[-1]


def test_the_first_of_equally_near_trials_is_taken() -> None:
    best, tried = tune(lambda x: {"of": float("nan")}, "of", 0.5, within=0.1, low=0.0, high=1.0, trials=3)
    assert [trial["at"] for trial in tried] == [0.5, 0.25, 0.125]
    assert best == tried[0]


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_a_search_goes_on_with_the_trials_of_its_journal(tmp_path: Path, trials: int) -> None:
    """A journal gives what the same search without one does, and measures nothing twice."""
    first, then = list[float](), list[float]()
    search(first, tmp_path / "trials.log", trials=trials)
    assert search(then, tmp_path / "trials.log") == search([])
    assert first + then == [0.5, 0.75, 0.875, 0.8125]


def test_what_could_not_be_measured_is_kept_as_nan(tmp_path: Path) -> None:
    asked: list[float] = []

    def measured(x: float) -> dict[str, float]:
        asked.append(x)
        return {"of": float("nan") if x > 0.2 else 0.5}

    for _ in range(2):
        best, tried = tune(
            measured, "of", 0.5, within=0.1, low=0.0, high=1.0, trials=4, journal=tmp_path / "trials.log"
        )
        assert best == {"at": 0.125, "of": 0.5}
        assert [math.isnan(trial["of"]) for trial in tried] == [True, True, False]
    assert asked == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("torn", [b'{"op_code":4,"wor', b"x", b""])
def test_a_torn_last_line_and_a_stale_lock_cost_nothing(tmp_path: Path, torn: bytes) -> None:
    journal, then = tmp_path / "trials.log", list[float]()
    search([], journal, trials=2)
    with open(journal, "ab") as file:
        file.write(torn)
    (tmp_path / "trials.log.lock").symlink_to(journal)
    best, _ = search(then, journal)
    assert best["at"] == 0.8125
    assert then == [0.875, 0.8125]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_calibration_resumes_with_its_trials(tmp_path: Path) -> None:
    journal = tmp_path / "trials.log"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(journal)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split() == ["0.5", "0.75", "0.875"]
    asked: list[float] = []

    def risk_at(share: float) -> tuple[float, float]:
        asked.append(share)
        return share**3, 0.25

    resumed = calibrate(risk_at, 0.5, 0.1, journal)
    assert asked == [0.875, 0.8125], "the trial in flight is made again, those before it are not"
    assert resumed == calibrate(risk_at, 0.5, 0.1)


class TestTrialsOfAStage:
    def test_they_outlive_an_exception_and_a_sweep_and_go_when_the_search_ends(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "run")
        with pytest.raises(KeyError), store.locked("study"), store.trials("a" * 64) as journal:
            search([], journal, trials=2)
            raise KeyError
        asked: list[float] = []
        with store.locked("study"), store.trials("a" * 64) as journal:
            search(asked, journal)
        assert asked == [0.875, 0.8125]
        assert list(journal.parent.iterdir()) == []

    def test_an_organism_whose_making_was_killed_asks_only_what_is_new(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The tabular study once to its end, and once with an interruption in its first calibration."""
        from laboratory import run, study

        from ablate import organisms

        real, asked = organisms.calibrate, list[list[float]]()

        def counting(stop_at: int) -> Any:
            def calibrated(risk_at: Any, *args: Any, **options: Any) -> Any:
                shares: list[float] = []
                asked.append(shares)

                def risk(share: float) -> tuple[float, float]:
                    if len(asked) == 1 and len(shares) == stop_at:
                        raise KeyboardInterrupt
                    shares.append(share)
                    found: tuple[float, float] = risk_at(share)
                    return found

                return real(risk, *args, **options)

            return calibrated

        monkeypatch.setattr(organisms, "calibrate", counting(1))
        with pytest.raises(KeyboardInterrupt):
            run(study("organism.tolerance=0.01"), tmp_path / "small")
        run(study("organism.tolerance=0.01"), tmp_path / "small")
        assert asked[0] == [0.5]
        assert [share for shares in asked for share in shares].count(0.5) == 2, "once for each of two organisms"
        assert not list((tmp_path / "small" / "artifacts" / ".trials").iterdir())
