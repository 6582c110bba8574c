"""The store: keys, whole-or-nothing artifacts, damage, the journal, the lock, and what the disk may refuse."""

from __future__ import annotations

import builtins
import errno
import io
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import store as stores
from ablate.errors import StudyError
from ablate.keys import canonical, key_of
from ablate.store import DTYPES, CorruptArtifactError, Draft, Store

KEY = key_of("an artifact")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs" / "x")


def fill(draft: Draft) -> None:
    draft.text("note.txt", "Grüße\r\n\u2028")
    draft.json("facts.json", {"risk": math.nan, "n": np.int64(3)})
    draft.lines("labels.jsonl", [{"text": "two\nlines\r\u2028"}, {"text": "lone \ud83d"}])
    draft.arrays("scores.safetensors", {"scores": np.arange(6.0).reshape(2, 3)})
    draft.note(digest="d" * 64, labels=np.int64(2))


def stored(store: Store, key: str = KEY) -> Path:
    with store.write(key, "labels") as draft:
        fill(draft)
    return store.read(key).path


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in (store.artifacts / ".tmp").glob("*"))


# Canonical JSON

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
atoms = st.none() | st.booleans() | numbers | names
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


def tagged(value: Any) -> Any:
    """The value with its types, so that ``==`` keeps 1, 1.0 and True apart, and -0.0 equals 0.0."""
    if isinstance(value, dict):
        return "dict", {name: tagged(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return "list", [tagged(item) for item in value]
    return type(value).__name__, value


def backwards(value: Any) -> Any:
    """The same value, every mapping built in the opposite order, every list a tuple."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return tuple(backwards(item) for item in value) if isinstance(value, list) else value


@given(values)
@settings(deadline=None)
def test_canonical_ignores_the_order_of_names(value: Any) -> None:
    assert canonical(backwards(value)) == canonical(value)


@given(values)
@settings(deadline=None)
def test_canonical_is_json_of_the_same_value(value: Any) -> None:
    assert tagged(json.loads(canonical(value))) == tagged(value)


@given(values, values)
@settings(deadline=None)
def test_canonical_texts_are_equal_only_for_equal_values(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (tagged(one) == tagged(other))
    assert (key_of(one) == key_of(other)) == (tagged(one) == tagged(other))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, 1.0, "é\n"]}, '{"a":[true,null,1.0,"é\\n"],"b":1}'),
        (-0.0, "0.0"),
        (1e-7, "1e-07"),
        ((1, (2,)), "[1,[2]]"),
        (np.float64(-0.0), "0.0"),
        (np.float32(0.5), "0.5"),
        (np.int8(-3), "-3"),
        (np.bool_(True), "true"),
        (np.str_("x"), '"x"'),
        (signal.Signals.SIGTERM, "15"),
        (MappingProxyType({"x": 1}), '{"x":1}'),
    ],
)
def test_canonical_text(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "nan cannot be part of a key, numbers there are finite"),
        ({"train": {"lr": [1.0, -math.inf]}}, "train.lr[1]: -inf cannot be part of a key, numbers there are finite"),
        ([{"x": np.float32("nan")}], "[0].x: nan cannot be part of a key, numbers there are finite"),
        ({"a": {3: 1}}, "a: the name 3 is not text"),
        ({True: 1, "a": 1}, "the name True is not text"),
        ({"a": {1, 2}}, "a: set cannot be part of a key; text, numbers, lists and mappings can"),
        ([b"x"], "[0]: bytes cannot be part of a key; text, numbers, lists and mappings can"),
        (np.zeros(2), "ndarray cannot be part of a key; text, numbers, lists and mappings can"),
        (np.longdouble(1), "longdouble cannot be part of a key; text, numbers, lists and mappings can"),
        ({"a": "x\ud83d"}, "'\\ud83d' cannot be part of a key: it is half of a character"),
    ],
)
def test_canonical_refuses(value: Any, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        canonical(value)
    assert str(caught.value) == message


def test_key_is_the_sha256_of_the_canonical_text() -> None:
    assert key_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # printf {} | sha256sum


def test_keys_are_fast() -> None:
    start = time.process_time()
    for seed in range(10_000):
        key_of({"stage": "train", "version": 1, "seed": seed, "options": {"lr": 5e-4, "epochs": 1}, "inputs": [KEY]})
    assert time.process_time() - start < 1.5  # ten times what the plan of a large study may take


# Artifacts


def test_an_artifact_reads_back_as_it_was_written(store: Store) -> None:
    stored(store)
    artifact = store.read(KEY)
    assert artifact.text("note.txt") == "Grüße\r\n\u2028"
    facts = artifact.json("facts.json")
    assert math.isnan(facts["risk"])
    assert facts["n"] == 3
    assert artifact.lines("labels.jsonl") == [{"text": "two\nlines\r\u2028"}, {"text": "lone \ud83d"}]
    np.testing.assert_array_equal(artifact.arrays("scores.safetensors")["scores"], np.arange(6.0).reshape(2, 3))
    assert artifact.notes == {"digest": "d" * 64, "labels": 2}
    assert (artifact.key, artifact.kind) == (KEY, "labels")
    assert artifact.path == store.artifacts / KEY[:2] / KEY
    assert (store.has(KEY), store.keys(), leftovers(store)) == (True, [KEY], [])
    store.verify(KEY)
    with pytest.raises(FileNotFoundError, match=r"\(labels\) has no 'x\.json', only \['facts\.json', 'labels\.jsonl'"):
        artifact.json("x.json")


@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_arrays_of_every_dtype(store: Store, dtype: np.dtype[Any]) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    given_ = {"c": array, "t": array.T, "reversed": array[:, ::-1], "scalar": np.array(array[1, 2]), "empty": array[:0]}
    with store.write(KEY, "x") as draft:
        draft.arrays("a.safetensors", given_)
    back = store.read(KEY).arrays("a.safetensors")
    assert back.keys() == given_.keys()
    for name, wanted in given_.items():
        assert (back[name].dtype, back[name].shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(back[name], wanted)


def test_arrays_of_the_other_byte_order_and_nan(store: Store) -> None:
    with store.write(KEY, "x") as draft:
        draft.arrays("a.safetensors", {"a": np.array([1, math.nan, -0.0], ">f4")})
    np.testing.assert_array_equal(store.read(KEY).arrays("a.safetensors")["a"], np.array([1, math.nan, -0.0], "f4"))


@pytest.mark.parametrize("dtype", ["object", "U3", "S3", "complex128", "longdouble", "datetime64[s]"])
def test_arrays_refuse_what_safetensors_cannot_hold(store: Store, dtype: str) -> None:
    array = np.zeros(2, dtype)
    message = f"^a.safetensors: array 'bad' has dtype {array.dtype}, which cannot be stored$".replace("[", r"\[")
    with pytest.raises(StudyError, match=message), store.write(KEY, "x") as draft:
        draft.arrays("a.safetensors", {"good": np.zeros(1), "bad": array})
    assert (store.has(KEY), leftovers(store)) == (False, [])


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "/etc/passwd", "..\\x", "a\nb", "a\x00", "-rf", ".x", "é", "a" * 201]
)
def test_names_are_checked(store: Store, name: str) -> None:
    message = f"{name!r} is not a name: letters, digits, '_', '-' and '.', the first no '.' or '-'"
    with store.write(KEY, "x") as draft:
        uses: list[Callable[[], object]] = [
            lambda: draft.text(name, ""),
            lambda: store.read(name),
            lambda: store.has(name),
            lambda: store.discard(name),
            lambda: store.write(name, "x").__enter__(),
        ]
        for use in uses:
            with pytest.raises(StudyError) as caught:
                use()
            assert str(caught.value) == message


def test_the_receipt_is_the_stores(store: Store) -> None:
    with pytest.raises(StudyError, match=r"^receipt\.json is written by the store$"), store.write(KEY, "x") as draft:
        draft.text("receipt.json", "{}")
    with pytest.raises(StudyError, match=r"^receipt\.json is written by the store$"), store.write(KEY, "x") as draft:
        (draft.path / "receipt.json").write_text("{}")
    assert not store.has(KEY)


def test_a_file_written_by_other_means_is_stamped_too(store: Store) -> None:
    with store.write(KEY, "x") as draft:
        (draft.path / "adapter.bin").write_bytes(b"abc")
    assert store.read(KEY).raw("adapter.bin") == b"abc"


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: path.symlink_to(__file__)], ids=["folder", "link"]
)
def test_an_artifact_holds_plain_files_only(store: Store, make: Callable[[Path], None]) -> None:
    with (
        pytest.raises(StudyError, match=r"an artifact holds plain files, no folders and no links$"),
        store.write(KEY, "x") as draft,
    ):
        make(draft.path / "b")
    assert not store.has(KEY)


def test_a_name_is_written_once(store: Store) -> None:
    with store.write(KEY, "x") as draft:
        draft.text("a", "1")
        with pytest.raises(StudyError, match="/a: a file is in the way"):
            draft.text("a", "2")
    assert store.read(KEY).text("a") == "1"


@pytest.mark.parametrize(
    "error", [RuntimeError("loss"), KeyboardInterrupt(), PermissionError(errno.EACCES, "elsewhere")]
)
def test_an_exception_leaves_nothing_and_passes_through(store: Store, error: BaseException) -> None:
    def fail() -> None:
        with store.write(KEY, "x") as draft:
            fill(draft)
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert (store.has(KEY), store.keys(), leftovers(store)) == (False, [], [])


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(2), np.longdouble(1)])
def test_json_refuses_what_is_no_json(store: Store, value: Any) -> None:
    with (
        pytest.raises(TypeError, match=f"^{type(value).__name__} cannot be written as JSON$"),
        store.write(KEY, "x") as draft,
    ):
        draft.json("a.json", [value])


def test_notes_are_fit_for_a_key(store: Store) -> None:
    with pytest.raises(StudyError, match=r"^notes\.risk: nan cannot be part"), store.write(KEY, "x") as draft:
        draft.note(risk=math.nan)


def test_the_first_of_two_equal_keys_stays(store: Store) -> None:
    with store.write(KEY, "x") as slow:
        slow.text("who", "slow")
        with store.write(KEY, "x") as fast:
            fast.text("who", "fast")
    assert store.read(KEY).text("who") == "fast"
    assert leftovers(store) == []
    assert not (store.artifacts / ".corrupt").exists()


def test_a_damaged_artifact_gives_way_to_a_new_one(store: Store) -> None:
    (stored(store) / "note.txt").write_text("short")
    stored(store)
    store.verify(KEY)
    assert [path.name for path in (store.artifacts / ".corrupt").iterdir()] == [f"{KEY}-1"]


def test_threads_that_write_one_key(store: Store) -> None:
    barrier = threading.Barrier(8)

    def write(worker: int) -> None:
        with store.write(KEY, "x") as draft:
            for name in "abc":
                draft.text(name, str(worker))
            barrier.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    store.verify(KEY)
    artifact = store.read(KEY)
    assert len({artifact.text(name) for name in "abc"}) == 1
    assert (store.keys(), leftovers(store)) == ([KEY], [])


# Damage

FILES = ["facts.json", "labels.jsonl", "note.txt", "receipt.json", "scores.safetensors"]


def reads(store: Store, name: str) -> None:
    artifact = store.read(KEY)
    {"json": artifact.json, "jsonl": artifact.lines, "txt": artifact.text, "safetensors": artifact.arrays}[
        name.rpartition(".")[2]
    ](name)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_found(store: Store, name: str) -> None:
    path = stored(store) / name
    whole = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(whole), min(len(whole), 60), replace=False):
        for bit in (0, 5, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(CorruptArtifactError) as caught:
                reads(store, name)
            assert (caught.value.key, caught.value.file) == (KEY, name)
            with pytest.raises(CorruptArtifactError):
                store.verify(KEY)
    assert store.has(KEY) == (name != "receipt.json")  # `has` hashes the receipt only
    path.write_bytes(whole)
    store.verify(KEY)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
def test_a_truncated_file_is_found_by_has(store: Store, name: str, kept: float) -> None:
    path = stored(store) / name
    size = path.stat().st_size
    os.truncate(path, {0: 0, 1: 1, 0.5: size // 2, -1: size - 1}[kept])
    assert not store.has(KEY)
    with pytest.raises(CorruptArtifactError):
        store.verify(KEY)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_by_has(store: Store, name: str) -> None:
    (stored(store) / name).unlink()
    assert not store.has(KEY)
    with pytest.raises(CorruptArtifactError) as caught:
        store.verify(KEY)
    assert str(caught.value) == f"artifact {KEY}: {name} is missing"


def test_what_damage_is_called(store: Store) -> None:
    path = stored(store)
    (path / "note.txt").write_text("short")
    (path / "labels.jsonl").write_bytes(bytes((path / "labels.jsonl").stat().st_size))
    with pytest.raises(CorruptArtifactError, match=f"^artifact {KEY}: note.txt has 5 bytes, its receipt says 12$"):
        store.read(KEY).text("note.txt")
    with pytest.raises(CorruptArtifactError, match=r": labels\.jsonl has another sha256 than its receipt says$"):
        store.read(KEY).lines("labels.jsonl")
    store.read(KEY).json("facts.json")  # other files are still good, and a read looks at its own only


def test_an_artifact_under_another_key_is_refused(store: Store) -> None:
    other = key_of("another")
    (store.artifacts / other[:2]).mkdir(parents=True)
    stored(store).rename(store.artifacts / other[:2] / other)
    with pytest.raises(CorruptArtifactError, match=rf": receipt\.json belongs to {KEY}$"):
        store.read(other)
    assert not store.has(other)


def test_no_artifact(store: Store) -> None:
    assert not store.has(KEY)
    assert (store.keys(), store.size(), store.discard(KEY)) == ([], {}, False)
    with pytest.raises(CorruptArtifactError, match=rf"^artifact {KEY}: receipt\.json is missing$"):
        store.read(KEY)


def test_a_corrupt_artifact_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CorruptArtifactError("k", "f", "is missing")))
    assert (str(error), error.key, error.file, error.why) == ("artifact k: f is missing", "k", "f", "is missing")


def test_discard_deletes_nothing(store: Store) -> None:
    for number in (1, 2):
        stored(store)
        assert store.discard(KEY)
        assert not store.has(KEY)
        assert (store.artifacts / ".corrupt" / f"{KEY}-{number}" / "note.txt").exists()
    assert store.keys() == []


def test_size_by_kind(store: Store) -> None:
    for number, kind in enumerate(["pool", "pool", "labels"]):
        with store.write(key_of(number), kind) as draft:
            draft.text("a", "x" * 10)
    assert store.size() == {"labels": 10, "pool": 20}
    (store.read(key_of(2)).path / "receipt.json").write_text("{}")
    assert store.size() == {"corrupt": 12, "pool": 20}
    store.discard(key_of(2))
    assert store.size() == {"corrupt": 12, "pool": 20}


# The journal


def test_the_journal_keeps_entries_in_order(store: Store) -> None:
    assert list(store.entries()) == []
    for number in range(3):
        store.log(event="done", number=number, risk=np.float64(0.5), text="a\nb\u2028")
    entries = list(store.entries())
    assert [entry["number"] for entry in entries] == [0, 1, 2]
    assert entries[0]["text"] == "a\nb\u2028"
    assert all(entry["at"].endswith("+00:00") for entry in entries)
    assert store.torn == 0
    with pytest.raises(TypeError, match="multiple values for keyword argument 'at'"):
        store.log(at="then")


@pytest.mark.parametrize("kept", [1, 5, -2])
def test_a_torn_last_line_takes_no_other_with_it(store: Store, kept: int) -> None:
    store.log(number=0)
    store.log(number=1)
    first, second = store.journal.read_bytes().splitlines(keepends=True)
    store.journal.write_bytes(first + second[:kept])
    assert [entry["number"] for entry in store.entries()] == [0]
    assert store.torn == 1
    store.log(number=2)
    assert [entry["number"] for entry in store.entries()] == [0, 2]
    assert store.torn == 1
    assert store.journal.read_bytes().endswith(b"\n")


def test_a_last_line_without_its_newline_is_whole(store: Store) -> None:
    store.log(number=0)
    os.truncate(store.journal, store.journal.stat().st_size - 1)
    store.log(number=1)
    assert [entry["number"] for entry in store.entries()] == [0, 1]
    assert store.torn == 0


def test_lines_that_are_no_objects_are_counted_anew_each_time(store: Store) -> None:
    store.log(number=0)
    with store.journal.open("ab") as file:
        file.write(b"[1]\n\n\x00\x00\x00\n\xff\xfe\n3\n \n")
    store.log(number=1)
    for _ in range(2):
        assert [entry["number"] for entry in store.entries()] == [0, 1]
        assert store.torn == 5


def test_threads_that_log(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.log(number=number, text="x" * 10_000), range(40)))
    assert sorted(entry["number"] for entry in store.entries()) == list(range(40))
    assert store.torn == 0


def test_the_journal_is_read_fast(store: Store) -> None:
    store.log(event="done", key=KEY, stage="train", wall_s=1.25)
    store.journal.write_bytes(store.journal.read_bytes() * 20_000)
    start = time.process_time()
    assert sum(1 for _ in store.entries()) == 20_000
    assert time.process_time() - start < 1.0  # five times what may be needed


# Processes that die

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from ablate.keys import key_of
from ablate.store import Store

def work(store, life, done):
    with store.locked("x"):
        for number in range(10_000):
            key = key_of([life, number])
            with store.write(key, "x") as draft:
                draft.text("a.txt", "a" * 20_000)
                draft.arrays("b.safetensors", {"b": np.full(30_000, number)})
                draft.lines("c.jsonl", [{"number": number}] * 200)
            store.log(key=key, text="x" * 3_000)
            os.write(done, b".")

root, instants = Path(sys.argv[1]), random.Random(0)
for life in range(15):
    done, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        work(Store(root), life, told)
    for _ in range(instants.randint(0, 4)):
        os.read(done, 1)
    time.sleep(instants.uniform(0, 0.01))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    store = Store(root)
    print(len(list((root / "artifacts" / ".tmp").glob("*"))))
    logged = [entry["key"] for entry in store.entries()]
    assert store.torn <= life + 1
    assert set(logged) <= set(store.keys()) and len(store.keys()) <= len(logged) + life + 1
    for key in store.keys():
        assert store.has(key)
        store.verify(key)
"""


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_kill_at_any_moment_leaves_whole_artifacts_only(store: Store) -> None:
    result = run(DRIVER, store.root)
    assert result.returncode == 0, result.stderr
    assert any(int(count) for count in result.stdout.split()), "no kill met a write, so this showed nothing"
    assert len(store.keys()) > 15
    with store.locked("x"):
        assert leftovers(store) == []


def test_sweep_counts_what_it_removes(store: Store) -> None:
    scratch = store.artifacts / ".tmp"
    (scratch / "dead").mkdir(parents=True)
    (scratch / "dead" / "a").write_text("x")
    (scratch / ".study.json-1").write_text("x")
    assert (store.sweep(), leftovers(store), store.sweep()) == (2, [], 0)


HOLDER = """
import sys
from pathlib import Path
from ablate.store import Store
with Store(Path(sys.argv[1])).locked("the other"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_driver(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_driver_is_refused_until_the_first_is_gone(store: Store) -> None:
    with another_driver(store.root) as other:
        message = (
            rf"x is in use by study 'the other', process {other.pid} on \S+, since 20\S+; wait for it or choose another"
        )
        with pytest.raises(StudyError, match=message), store.locked("mine"):
            pytest.fail("two drivers in one folder")
        (store.root / ".lock.json").write_text("{")
        with pytest.raises(StudyError, match="x is in use by another process; wait"), store.locked("mine"):
            pytest.fail("two drivers in one folder")
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with store.locked("mine"):
            assert json.loads((store.root / ".lock.json").read_text())["pid"] == os.getpid()


def test_one_process_is_refused_its_own_folder_twice(store: Store) -> None:
    with store.locked("a"):
        with pytest.raises(StudyError, match=f"study 'a', process {os.getpid()} on"), Store(store.root).locked("b"):
            pytest.fail("two drivers in one folder")
        assert json.loads((store.root / ".lock.json").read_text())["study"] == "a"
    with store.locked("b"):
        pass


def test_the_lock_is_released_when_the_study_fails(store: Store) -> None:
    with pytest.raises(RuntimeError, match="loss"), store.locked("a"):
        raise RuntimeError("loss")
    with store.locked("a"):
        pass


# Whose folder


def test_a_folder_belongs_to_one_study(store: Store) -> None:
    assert not store.claim("d1", "mine")
    assert not store.claim("d1", "mine")
    assert store.claim("d2", "mine")  # a level was added
    assert json.loads((store.root / "study.json").read_text()) == {"name": "mine", "digest": "d2"}
    with pytest.raises(StudyError) as caught:
        store.claim("d2", "other")
    assert str(caught.value) == f"{store.root} holds study 'mine', not 'other'; choose another folder for 'other'"
    assert json.loads((store.root / "study.json").read_text()) == {"name": "mine", "digest": "d2"}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "mine"}'])
def test_an_unreadable_owner_is_not_guessed(store: Store, text: str) -> None:
    store.root.mkdir(parents=True)
    (store.root / "study.json").write_text(text)
    with pytest.raises(
        StudyError, match=r"study\.json: cannot be read; move it away if this is the folder of study 'a'$"
    ):
        store.claim("d", "a")


# What the disk refuses

REFUSALS = [
    (errno.ENOSPC, "the disk is full; make room there or choose another folder, and the same command resumes"),
    (
        errno.EDQUOT,
        "your disk quota is used up; make room there or choose another folder, and the same command resumes",
    ),
    (errno.EROFS, "the disk is read-only; choose another folder"),
    (errno.EACCES, "permission denied; check who owns the folder, or choose another one"),
]


def refusing(real: Callable[..., Any], number: int, *, after: int) -> Callable[..., Any]:
    """A function of the system that is refused from its ``after``-th call on."""
    calls = iter(range(10_000))

    def function(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= after:
            raise OSError(number, "refused")
        return real(*arguments, **options)

    return function


@pytest.mark.parametrize(("number", "message"), REFUSALS)
@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "rename"])
def test_a_refused_artifact_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, message: str, call: str
) -> None:
    monkeypatch.setattr(stores, "SYNC_S", 0.0)
    modules: list[Any] = [builtins, io] if call == "open" else [os]
    for after in range(30):  # at the first call, at the second, ... until there are no more
        key, refusal = key_of(["refused", after]), ""
        with monkeypatch.context() as patch:
            function = refusing(getattr(modules[0], call), number, after=after)
            for module in modules:
                patch.setattr(module, call, function)
            try:
                stored(store, key)
            except StudyError as error:
                refusal = str(error)
        if not refusal:
            break
        assert refusal.startswith(f"{store.root.parent.parent}/")
        assert refusal.endswith(message)
        assert leftovers(store) == []
        if store.has(key):  # the last sync comes after the rename, when the artifact is whole
            assert call in ("fsync", "open")
            store.verify(key)
        else:
            assert not list(store.artifacts.glob(f"*/{key}"))
    assert 0 < after < 29
    stored(store, key_of("afterwards"))


@pytest.mark.parametrize(("number", "message"), REFUSALS)
@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.log(event="x"),
        lambda store: store.claim("d", "mine"),
        lambda store: store.locked("mine").__enter__(),
        lambda store: store.write(KEY, "x").__enter__(),
        lambda store: store.discard(KEY),
    ],
    ids=["log", "claim", "locked", "write", "discard"],
)
def test_a_read_only_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch, use: Callable[[Store], object], number: int, message: str
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, "refused")

    with monkeypatch.context() as patch:
        for module, call in [(os, "mkdir"), (os, "open"), (builtins, "open"), (io, "open")]:
            patch.setattr(module, call, refuse)
        with pytest.raises(StudyError) as caught:
            use(store)
    assert str(caught.value).endswith(message)
    assert not store.root.exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refused_claim_keeps_the_former_one(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store.claim("d1", "mine")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(getattr(os, call), errno.ENOSPC, after=0))
        with pytest.raises(StudyError, match=r"/study\.json: the disk is full; make room there"):
            store.claim("d2", "mine")
    assert json.loads((store.root / "study.json").read_text()) == {"name": "mine", "digest": "d1"}
    assert leftovers(store) == []


def test_reading_creates_nothing(store: Store, tmp_path: Path) -> None:
    store.has(KEY), store.keys(), store.size(), list(store.entries())
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StudyError, match=r"/x: a file is in the way; move it, or choose another folder$"):
        Store(tmp_path / "x").log(event="x")


def test_other_errors_of_the_disk_are_not_renamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, errno.EBADF, after=0))
    with pytest.raises(OSError, match="refused"):
        store.log(event="x")


def test_a_file_system_that_cannot_sync_folders_will_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, errno.EINVAL, after=0))
    stored(store)
    store.verify(KEY)
    assert store.has(KEY)


def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is brought to the disk from now on."""
    named: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        named.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return named


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
@pytest.mark.parametrize(("took_s", "expected"), [(0.0, []), (1.0, ["note.txt", "receipt.json"])])
def test_an_artifact_is_synced_if_it_takes_longer_to_make_than_to_sync(
    store: Store, monkeypatch: pytest.MonkeyPatch, took_s: float, expected: list[str]
) -> None:
    named, now = syncs(monkeypatch), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with store.write(KEY, "labels") as draft:
        draft.text("note.txt", "x")
        now[0] += took_s
    assert [name for name in named if "." in name and not name.startswith(KEY)] == expected
    assert bool(named) == (took_s > 0)
    store.verify(KEY)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
@pytest.mark.parametrize("end", [None, KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_journal_is_synced_now_and_then_and_when_the_lock_ends_however_it_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch, end: type[BaseException] | None
) -> None:
    named, now = syncs(monkeypatch), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counts = []
    with pytest.raises(end) if end else nullcontext(), store.locked("mine"):
        for step_s in (0.0, 0.1, 0.1, 1.0, 0.1):
            now[0] += step_s
            store.log(event="x")
            counts.append(named.count("journal.jsonl"))
        if end:
            raise end
    assert counts == [1, 1, 1, 2, 2]
    assert named.count("journal.jsonl") == 3


def test_the_lock_ends_though_the_journal_cannot_be_synced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(StudyError, match=r"/journal\.jsonl: the disk reports an error; check the disk"),
        store.locked("mine"),
    ):
        store.log(event="x")
        patch.setattr(os, "fsync", refusing(os.fsync, errno.EIO, after=0))
    with store.locked("mine"):
        pass


def test_what_a_cut_of_the_power_takes_from_an_artifact_is_seen(store: Store) -> None:
    """A file system may keep names and lose what was not synced: empty files, or zeros of the right length."""
    path = stored(store)
    size = (path / "note.txt").stat().st_size
    (path / "note.txt").write_bytes(bytes(size))
    with pytest.raises(CorruptArtifactError, match="another sha256"):
        store.verify(KEY)
    (path / "receipt.json").write_bytes(b"")
    assert not store.has(KEY)
    stored(store)
    store.verify(KEY)


LIMITED = """
import resource, sys
from pathlib import Path
from ablate.errors import StudyError
from ablate.keys import key_of
from ablate.store import Store
store = Store(Path(sys.argv[1]))
store.log(number=0, text="x" * 3_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
try:
    store.log(number=1, text="x" * 3_000)
except StudyError as error:
    print(error)
try:
    with store.write(key_of(1), "x") as draft:
        draft.text("a", "x" * 5_000)
except StudyError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.log(number=2)
"""


def test_a_disk_that_ends_in_the_middle_of_a_file(store: Store) -> None:
    result = run(LIMITED, store.root)
    assert result.returncode == 0, result.stderr
    journal, artifact = result.stdout.splitlines()
    limit = "the file would be larger than the limit of this system; raise the limit (`ulimit -f`)"
    assert journal == f"{store.journal}: {limit}"
    assert artifact.endswith(f"/a: {limit}")
    assert (store.keys(), leftovers(store)) == ([], [])
    assert [entry["number"] for entry in store.entries()] == [0, 2]
    assert store.torn == 1
