"""What a machine and a user may do to a study: each fault has its message, and nothing that was made is lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from laboratory import SMALL, assert_same_cube, cube_of, run, study, with_plugins

from ablate import api
from ablate import store as stores
from ablate.cli import main
from ablate.errors import FatalError, StudyError
from ablate.store import Store

ROOM = "make room there or choose another folder, and the same command resumes"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "small"
    run(study(), folder)
    return folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small study as a file, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def command(*arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    code = exit_.value.code
    assert isinstance(code, int)
    return code


def assert_whole(folder: Path) -> None:
    """Every artifact is as it was written, and nothing half-written lies about."""
    store = Store(folder)
    for key in store.keys():
        store.verify(key)
    assert not (folder / "artifacts" / ".corrupt").exists()


# The disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, which is how a full disk looks to a program."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize(
    ("size", "says"),
    [
        (1500, "artifacts"),  # no pool fits
        (4000, r"journal\.jsonl|artifacts"),  # the journal grows beyond it
        (60_000, r"cube\.zarr: cannot be written \(File too large\)"),  # only the cube's metadata is larger
    ],
)
def test_no_room_for_a_file(tmp_path: Path, undisturbed: Path, size: int, says: str) -> None:
    folder = tmp_path / "small"
    with largest_file(size), pytest.raises(FatalError, match=says) as error:
        run(study(), folder)
    assert "Traceback" not in str(error.value)
    assert_whole(folder)
    made = len(Store(folder).keys())
    assert made > 0
    ran = run(study(), folder)
    assert ran.executed == len(Store(folder).keys()) - made, "what was made is not made again"
    assert_same_cube(cube_of(folder), cube_of(undisturbed))


@pytest.mark.parametrize(
    ("at", "number", "says"),
    [
        (1, errno.ENOSPC, f"the disk is full; {ROOM}"),
        (40, errno.EDQUOT, f"your disk quota is used up; {ROOM}"),
        (120, errno.ENOSPC, f"the disk is full; {ROOM}"),
        (230, errno.ENOSPC, f"the disk is full; {ROOM}"),
    ],
)
def test_a_disk_that_fills_up(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: int, says: str
) -> None:
    folder, calls, real = tmp_path / "small", [0], os.fsync

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] >= at:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch, pytest.raises(StudyError) as error:
        patch.setattr(os, "fsync", full)
        patch.setattr(stores, "SYNC_S", 0.0)
        run(study(), folder)
    assert str(error.value).startswith(str(folder))
    assert str(error.value).endswith(says)
    assert_whole(folder)
    run(study(), folder)
    assert_same_cube(cube_of(folder), cube_of(undisturbed))


def test_a_disk_that_fills_up_under_the_cube_keeps_the_old_cube(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate import cube

    folder = tmp_path / "small"
    run(study(), folder)
    more = study("factors.label_shift={swap: [none, greedy, clean_view]}")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StudyError) as error:
        patch.setattr(cube, "_sync", full)
        run(more, folder)
    assert str(error.value) == f"{folder / 'cube.zarr'}: cannot be written (No space left on device); {ROOM}"
    assert_same_cube(cube_of(folder), cube_of(undisturbed))
    assert run(more, folder).executed == 0, "every stage was kept"
    assert cube_of(folder).sizes["label_shift"] == 3


def test_a_full_disk_exits_2_without_a_traceback(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert command("study", str(file)) == 2
    said = capsys.readouterr()
    assert said.err.endswith(f"the disk is full; {ROOM}\n")
    assert "Traceback" not in said.err + said.out


def test_a_read_only_disk(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def read_only(path: Any, *args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "mkdir", read_only)
    assert command("study", str(file)) == 2
    assert capsys.readouterr().err == "runs: the disk is read-only; choose another folder\n"


def test_reading_writes_nothing(undisturbed: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a study on a read-only disk can be asked."""
    before = {path: path.lstat().st_mtime_ns for path in undisturbed.rglob("*")}
    for words in (["table"], ["query"], ["query", "--sql", "select count(*) from items"], ["status"]):
        assert command(words[0], str(undisturbed), *words[1:]) == 0
    assert command("plan", str(file), "--out", str(undisturbed)) == 0
    assert {path: path.lstat().st_mtime_ns for path in undisturbed.rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_a_file_where_the_folder_should_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.with_name("taken").write_text("mine")
    assert command("study", str(file), "--out", "taken") == 2
    assert capsys.readouterr().err.endswith(": a file is in the way; move it, or choose another folder\n")
    assert file.with_name("taken").read_text() == "mine"


# The journal


@pytest.mark.parametrize("torn", [b'{"key":"abc","kind":"tra', b"\xff\xfe\x00", b"null\n", b"\n\n"])
def test_a_torn_journal(tmp_path: Path, undisturbed: Path, torn: bytes) -> None:
    folder = tmp_path / "small"
    run(study("factors.label_shift=none"), folder)
    known = list(Store(folder).entries())
    with open(folder / "journal.jsonl", "ab") as journal:
        journal.write(torn)
    assert run(study(), folder).errors == ()
    entries = list(Store(folder).entries())
    assert entries[: len(known)] == known
    assert {entry["status"] for entry in entries} == {"ok", "frozen"}
    assert_same_cube(cube_of(folder), cube_of(undisturbed))


def test_a_journal_that_is_gone_costs_nothing(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "small"
    run(study(), folder)
    (folder / "journal.jsonl").unlink()
    ran = run(study(), folder)
    assert (ran.executed, ran.errors) == (0, ())
    assert_same_cube(cube_of(folder), cube_of(undisturbed))


# The training and the model


def _nan() -> None:
    @api.objective
    def becomes_nan(batch: Any) -> Any:
        """A loss that is NaN for organisms of odd seeds."""
        return float("nan")


def test_a_loss_that_is_nan_is_said_and_the_rest_is_finished(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with with_plugins(_nan):
        assert command("study", str(file), "--set", "factors.objective={swap: [sft, becomes_nan]}") == 1
        said = capsys.readouterr()
        assert command("status", "runs/small") == 0
        assert "  runs  6 ok, 2 aliased, 8 failed\n" in capsys.readouterr().out
    assert said.err == ""
    assert re.search(r"^train [0-9a-f]{8} failed: loss became NaN at step 1 of 6$", said.out, re.MULTILINE)
    assert "failed: organism 1, greedy x first x becomes_nan: loss became NaN at step 1 of 6\n" in said.out
    assert said.out.endswith("8 runs failed or are blocked; the same command tries them again\n")
    assert "VERDICT  " in said.out


MISSING = """
import sys
from ablate.cli import main
for model in sys.argv[2:]:
    try:
        main(["study", sys.argv[1], "--set", f"model={model}"])
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def test_a_model_that_is_not_there(file: Path) -> None:
    words = [sys.executable, "-c", MISSING, str(file), "no/such-model", "./nowhere", "nowhere"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(file.parent / "hub")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=240)
    lines = done.stderr.splitlines()
    assert len(lines) == 6, done.stderr
    assert lines[0].startswith("model 'no/such-model': neither in the local Hub cache nor on the Hub (")
    assert lines[0].endswith("; check the id and the network, or give a folder")
    for name, line in (("./nowhere", lines[2]), ("nowhere", lines[4])):
        assert line == (
            f"model '{name}': no such folder, and not a Hub id (owner/name); embedded models: smollm2-135m, minilm, "
            "tabular"
        )
    assert lines[1::2] == ["2", "2", "2"]
    store = Store(file.parent / "runs" / "small")
    assert {store.read(key).kind for key in store.keys()} == {"screen"}, "which asked the model nothing here"


def test_a_model_that_changed_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablate.lm.tabular import TabularModel

    folder = tmp_path / "small"
    run(study("factors.label_shift=none"), folder)
    made = Store(folder).keys()
    monkeypatch.setattr(TabularModel, "identity", {"weights": "others", "dtype": "float64", "device": "cpu"})
    with pytest.raises(StudyError) as error:
        run(study(), folder)
    assert str(error.value) == (
        "model 'tabular' has other weights here than those this folder was begun with; "
        "go on where it was begun, or choose another folder (--out)"
    )
    assert set(made) <= set(Store(folder).keys())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("labels.prompts=401", "labels.prompts: 401 are asked for, the behavior has 400 for this model"),
        ("evaluate.items=401", "evaluate.items: 401 are asked for, the behavior has 400 for this model"),
        ("evaluate.capability=101", "evaluate.capability: 101 are asked for, the behavior has 100 for this model"),
    ],
)
def test_more_is_asked_for_than_there_is(
    file: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    assert command("study", str(file), "--set", change) == 1
    said = capsys.readouterr()
    assert f"failed: organism 0, none x first: {says}\n" in said.out
    assert said.out.count(f" failed: {says}\n") == 1, "said once while it runs, and then run by run"


# The study file: mistakes cost nothing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question: [", "bad.yaml:1:12: "),
        (SMALL + "labels: {prompts: 3}\n", "bad.yaml:11:1: labels: given twice; first on line 7"),
        (
            SMALL.replace("greedy]", "gredy]"),
            "bad.yaml:5:30: factors.label_shift.swap[1]: no label shift called 'gredy'",
        ),
        (SMALL.replace("prompts: 12", "prompts: 0"), "bad.yaml:7:19: labels.prompts: 0 is not >= 1"),
        (SMALL.replace("[none, greedy]", "[]"), "bad.yaml:5:23: factors.label_shift.swap: "),
    ],
)
def test_a_mistake_in_the_file_writes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    file.with_name("bad.yaml").write_text(text)
    assert command("study", "bad.yaml") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(says)
    assert said.err.endswith("1 mistake, nothing was run or written.\n")
    assert not (file.parent / "runs").exists()


# Hostile text


def _raising() -> None:
    @api.scorer
    def raising(lm: Any, pool: Any) -> Any:
        """An error that quotes what a model said."""
        raise ValueError("cannot score \x1b[31m \u202eabc \ud83d [/b]")


def test_an_error_that_quotes_a_model_does_not_steer_a_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = r"ValueError: cannot score \x1b[31m \u202eabc \ud83d [/b]"
    with with_plugins(_raising):
        assert command("study", str(file), "--set", "factors.selector={argmax: {scorer: raising}}") == 1
        assert said in capsys.readouterr().out
        assert command("status", "runs/small") == 0
        assert command("report", "runs/small") == 0
        assert said in capsys.readouterr().out
    assert command("query", "runs/small", "--where", "\x1b[31m\udcff") == 2
    assert capsys.readouterr().err.startswith(r"where: cannot read '\x1b[31m\udcff'")
