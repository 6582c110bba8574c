"""Artifacts by key, the journal, and the lock of one output folder. Knows no model and no plan.

A folder looks like this::

    artifacts/<k2>/<key>/    the files of one artifact and receipt.json; it appears whole or not at all
    artifacts/.tmp/          drafts; whatever lies there when the lock is taken is left from a process that died
    artifacts/.trials/       the trials of a search under way, so that it goes on after a kill
    artifacts/.corrupt/      what was found damaged, moved there and never deleted
    journal.jsonl            one JSON object a line, append-only
    study.json               whose folder this is
    .lock  .lock.json        the operating system's lock, and who holds it

Nothing is created before something is written, so a store can be read from a read-only disk.

A killed process loses nothing that it has written. Against a cut of the power files are synced, but only where that is
worth its time: an artifact that was made faster than a disk syncs is made again faster, too (see `SYNC_S`), and its
receipt shows that it was lost.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from filelock import FileLock, Timeout

from ablate.errors import FatalError, StudyError
from ablate.keys import canonical

RECEIPT = "receipt.json"

SYNC_S = 0.25
"""An artifact made in less time is not synced; the journal is synced at most so often, and when the lock ends."""

_KINDS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64"
DTYPES = frozenset(map(np.dtype, _KINDS.split()))
"""What an array file can hold: what safetensors both writes and reads back as numpy."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

_ROOM = "make room there or choose another folder, and the same command resumes"
_RIGHTS = "check who owns the folder, or choose another one"
_IN_THE_WAY = ("a file is in the way", "move it, or choose another folder")
_DISK_FAULTS: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("your disk quota is used up", _ROOM),
    errno.EFBIG: ("the file would be larger than the limit of this system", "raise the limit (`ulimit -f`)"),
    errno.EROFS: ("the disk is read-only", "choose another folder"),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("not permitted", _RIGHTS),
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EIO: ("the disk reports an error", "check the disk, or choose another folder"),
}


class CorruptArtifactError(RuntimeError):
    """An artifact is not what its receipt says: discard it and run its stage again."""

    def __init__(self, key: str, file: str, why: str) -> None:
        super().__init__(key, file, why)  # all three, so that it survives a trip between processes
        self.key, self.file, self.why = key, file, why

    def __str__(self) -> str:
        return f"artifact {self.key}: {self.file} {self.why}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


as_json = json.JSONEncoder(separators=(",", ":"), default=_plain).encode
"""One JSON value as text; NaN stays NaN, numpy scalars become numbers, names become text."""


def storable(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the file ``name`` as safetensors needs them: contiguous, in the byte order of this machine.

    Raises:
        StudyError: a dtype that safetensors does not hold, such as ``object``.
    """
    native = {label: np.asarray(array, array.dtype.newbyteorder("="), order="C") for label, array in arrays.items()}
    for label, array in native.items():
        if array.dtype not in DTYPES:
            raise StudyError(f"{name}: array '{label}' has dtype {array.dtype}, which cannot be stored")
    return native


def packed(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays that are `storable`, as safetensors."""
    return safetensors.numpy.save(dict(arrays))


# The disk


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say in words what the disk refused; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in _DISK_FAULTS:
            raise
        what, remedy = _DISK_FAULTS[error.errno]
        raise FatalError(f"{error.filename or path}: {what}; {remedy}") from error


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    if os.name == "nt":
        return  # Windows can sync neither a folder nor a file that is open for reading
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(fd)


def _make(folder: Path, *, sync: bool = True) -> None:
    if not folder.is_dir():
        _make(folder.parent, sync=sync)
        folder.mkdir(exist_ok=True)
        if sync:
            _sync(folder.parent)


def checked_name(name: str) -> str:
    """The name, if it may be that of an artifact or of one of its files."""
    if name == RECEIPT:
        raise StudyError(f"{RECEIPT} is written by the store")
    if not _NAME.fullmatch(name):
        raise StudyError(f"{name!r} is not a name: letters, digits, '_', '-' and '.', the first no '.' or '-'")
    return name


# Artifacts


@dataclass(frozen=True, slots=True)
class Draft:
    """An artifact that is being written. ``path`` is its folder, for files that are written in other ways."""

    path: Path
    notes: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: float = -math.inf

    def raw(self, name: str, data: bytes) -> None:
        """Write bytes."""
        with _disk(self.path / name), open(self.path / checked_name(name), "xb") as file:
            file.write(data)
        self.stamps[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def text(self, name: str, text: str) -> None:
        """Write text as UTF-8, as it stands."""
        self.raw(name, text.encode())

    def json(self, name: str, value: Any) -> None:
        """Write one JSON value; NaN stays NaN, numpy scalars become numbers, names become text."""
        self.raw(name, as_json(value).encode())

    def lines(self, name: str, values: Iterable[Any]) -> None:
        """Write one JSON value a line."""
        self.raw(name, "".join([as_json(value) + "\n" for value in values]).encode())

    def arrays(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write arrays by name, as safetensors.

        Raises:
            StudyError: a dtype that safetensors does not hold, such as ``object``.
        """
        self.raw(name, packed(storable(name, arrays)))

    def note(self, **facts: Any) -> None:
        """Keep small facts in the receipt, such as a digest of the content; they must be fit for a key."""
        self.notes.update(facts)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored artifact. Every read compares the file's size and sha256 with the receipt.

    ``files`` maps names to ``{"bytes": int, "sha256": str}``. ``path`` is the folder; what is read there directly
    is not checked. Reading raises `CorruptArtifactError`, and FileNotFoundError for a name it never had.
    """

    key: str
    kind: str
    path: Path
    files: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any]

    def raw(self, name: str) -> bytes:
        """The bytes of a file."""
        wanted = self.stamp(name)
        try:
            with _disk(self.path / name):
                data = (self.path / name).read_bytes()
        except FileNotFoundError:
            raise CorruptArtifactError(self.key, name, "is missing") from None
        if len(data) != wanted["bytes"]:
            raise CorruptArtifactError(self.key, name, f"has {len(data)} bytes, its receipt says {wanted['bytes']}")
        if hashlib.sha256(data).hexdigest() != wanted["sha256"]:
            raise CorruptArtifactError(self.key, name, "has another sha256 than its receipt says")
        return data

    def stamp(self, name: str) -> Mapping[str, Any]:
        """What the receipt says of a file."""
        if name not in self.files:
            raise FileNotFoundError(f"artifact {self.key} ({self.kind}) has no '{name}', only {sorted(self.files)}")
        return self.files[name]

    def text(self, name: str) -> str:
        """A file as text."""
        return self.raw(name).decode()

    def json(self, name: str) -> Any:
        """A file as one JSON value."""
        return json.loads(self.raw(name))

    def lines(self, name: str) -> list[Any]:
        """A file as one JSON value a line."""
        values: list[Any] = json.loads(b"[" + b",".join(self.raw(name).splitlines()) + b"]")
        return values

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """A file as arrays by name."""
        return safetensors.numpy.load(self.raw(name))


def _sealed(body: bytes) -> bytes:
    """A receipt, given without its closing brace, with the digest that shows damage to the receipt itself."""
    return body + b',"seal":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


_SEAL_BYTES = len(_sealed(b""))


def _stamps(draft: Draft) -> dict[str, dict[str, Any]]:
    """Size and digest of every file; of those that were written in other ways, from the disk."""
    stamps = {}
    for name in sorted(os.listdir(draft.path)):
        stamps[name] = draft.stamps.get(name) or _stamp(draft.path / checked_name(name))
    return stamps


def _stamp(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise StudyError(f"{path}: an artifact holds plain files, no folders and no links")
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


class Store:
    """The output folder of one study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.journal = root / "journal.jsonl"
        self.torn = 0
        """Lines that the last pass over `entries` skipped because they are no JSON objects."""
        self._journal_synced = -math.inf

    def _folder(self, key: str) -> Path:
        return self.artifacts / checked_name(key)[:2] / key

    def _scratch(self, name: str) -> Path:
        """A name in the folder of drafts that no process, on any machine, gives twice."""
        _make(self.artifacts / ".tmp", sync=False)  # nothing there is to last
        return self.artifacts / ".tmp" / f"{name}-{uuid.uuid4().hex}"

    @contextmanager
    def write(self, key: str, kind: str) -> Iterator[Draft]:
        """A draft that becomes the artifact ``key`` when the block ends; an exception leaves nothing.

        An artifact that is already there stays, since equal keys mean equal content; one that `has` does not
        accept is moved away first.

        Raises:
            StudyError: what the disk refused, in words.
        """
        folder = self._folder(key)
        with _disk(folder):
            draft = Draft(self._scratch(key), begun=time.monotonic())
            draft.path.mkdir()
        try:
            yield draft
            with _disk(folder):
                receipt = {"key": key, "kind": kind, "notes": draft.notes, "files": _stamps(draft)}
                (draft.path / RECEIPT).write_bytes(_sealed(canonical(receipt).removesuffix("}").encode()))
                lasting = time.monotonic() - draft.begun >= SYNC_S
                for name in (*receipt["files"], RECEIPT, ".") if lasting else ():
                    _sync(draft.path / name)
                self._publish(draft.path, key, lasting)
        finally:
            if draft.path.exists():
                shutil.rmtree(draft.path, ignore_errors=True)  # what cannot be removed now, `sweep` will

    def _publish(self, draft: Path, key: str, lasting: bool) -> None:
        folder = self._folder(key)
        _make(folder.parent, sync=lasting)
        while True:
            try:
                os.rename(draft, folder)
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            if self.has(key):
                return
            self.discard(key)
        if lasting:
            _sync(folder.parent)

    @contextmanager
    def trials(self, key: str) -> Iterator[Path | None]:
        """The file in which the stage that makes ``key`` keeps the trials of its search; it goes when the block ends.

        None where nothing is kept. A kill or an exception leaves it, and the next block goes on with it.
        """
        file = self.artifacts / ".trials" / f"{key}.log"
        with _disk(file):
            _make(file.parent)
            yield file
            file.unlink(missing_ok=True)

    def read(self, key: str) -> Artifact:
        """The artifact, its receipt checked, its files not yet.

        Raises:
            CorruptArtifactError: no artifact, or a damaged receipt.
        """
        folder = self._folder(key)
        try:
            with _disk(folder):
                raw = (folder / RECEIPT).read_bytes()
        except FileNotFoundError:
            raise CorruptArtifactError(key, RECEIPT, "is missing") from None
        if raw != _sealed(raw[:-_SEAL_BYTES]):
            raise CorruptArtifactError(key, RECEIPT, "is damaged")
        receipt = json.loads(raw)
        if receipt["key"] != key:
            raise CorruptArtifactError(key, RECEIPT, f"belongs to {receipt['key']}")
        return Artifact(key, receipt["kind"], folder, receipt["files"], receipt["notes"])

    def has(self, key: str) -> bool:
        """Whether the artifact is there: an intact receipt, and every file of the right size. Hashes nothing."""
        try:
            artifact = self.read(key)
            with _disk(artifact.path):
                return all((artifact.path / name).stat().st_size == f["bytes"] for name, f in artifact.files.items())
        except (CorruptArtifactError, FileNotFoundError):
            return False

    def verify(self, key: str) -> None:
        """Hash every file of an artifact.

        Raises:
            CorruptArtifactError: the first file that is not as it was written.
        """
        artifact = self.read(key)
        for name in artifact.files:
            artifact.raw(name)

    @contextmanager
    def intact(self) -> Iterator[None]:
        """Reading that says what to do about an artifact that is not as it was written.

        Raises:
            StudyError: such an artifact was met.
        """
        try:
            yield
        except CorruptArtifactError as error:
            where = self._folder(error.key)
            raise StudyError(f"{error}; move {where} away and run `ablate study` again, which makes it anew") from None

    def discard(self, key: str) -> bool:
        """Move an artifact to ``artifacts/.corrupt/<key>-<n>``, if there is one; nothing is deleted."""
        folder, attic = self._folder(key), self.artifacts / ".corrupt"
        with _disk(folder):
            _make(attic)
            number = 1
            while (target := attic / f"{key}-{number}").exists():
                number += 1
            try:
                os.rename(folder, target)
            except FileNotFoundError:
                return False
            _sync(attic)
            _sync(folder.parent)
        return True

    def keys(self) -> list[str]:
        """The keys of the artifacts in the folder, sorted; damaged ones too."""
        return sorted(folder.name for folder in self.artifacts.glob("[!.]*/*"))

    def size(self) -> dict[str, int]:
        """Bytes by kind, receipts left out; what is damaged or was discarded counts as ``corrupt``."""
        total: Counter[str] = Counter()
        damaged = list(self.artifacts.glob(".corrupt/*"))
        for key in self.keys():
            try:
                artifact = self.read(key)
                total[artifact.kind] += sum(file["bytes"] for file in artifact.files.values())
            except CorruptArtifactError:
                damaged.append(self._folder(key))
        total["corrupt"] += sum(path.stat().st_size for folder in damaged for path in folder.rglob("*"))
        return {kind: number for kind, number in sorted(total.items()) if number}

    def sweep(self) -> int:
        """Remove the drafts of processes that died, and say how many; only for the holder of the lock."""
        stale = list((self.artifacts / ".tmp").glob("*"))
        with _disk(self.artifacts / ".tmp"):
            for path in stale:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return len(stale)

    # The journal

    def log(self, **entry: Any) -> None:
        """Append an entry with ``at``, the time in UTC.

        A killed process loses no entry. A cut of the power may cost those since the last sync: an entry is synced, and
        all before it, if the last sync is `SYNC_S` ago; the rest is when the lock ends, however it ends.

        The line of a process that died in the middle is closed first, so that it takes no later entry with it.
        """
        line = as_json(dict(at=now(), **entry)).encode() + b"\n"
        with _disk(self.journal):
            _make(self.root)
            with open(self.journal, "a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                while line:
                    line = line[file.write(line) :]
                if time.monotonic() - self._journal_synced >= SYNC_S:
                    os.fsync(file.fileno())
                    self._journal_synced = time.monotonic()
            if not size:
                _sync(self.root)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The journal from its beginning. Lines that are no JSON objects are skipped and counted in ``torn``."""
        self.torn = 0
        try:
            with _disk(self.journal):
                file = open(self.journal, "rb")  # noqa: SIM115  # the guard must not reach around the yield
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if line == b"\n":
                    continue  # what `log` leaves where it met another's line half-way; nothing is lost
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                if isinstance(entry, dict):
                    yield entry
                else:
                    self.torn += 1

    # Whose folder this is, and who works in it

    @contextmanager
    def locked(self, study: str) -> Iterator[None]:
        """Be the only driver of this folder; leftovers of an earlier one are swept first.

        The lock is the operating system's, so it ends with its process, however that ends.

        Raises:
            StudyError: another process holds it, with what is known of that process.
        """
        with self._alone():
            self.put(".lock.json", {"study": study, "pid": os.getpid(), "host": socket.gethostname(), "since": now()})
            self.sweep()
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; whatever ends it, the journal is brought to the disk first."""
        lock = FileLock(self.root / ".lock")
        try:
            with _disk(self.root / ".lock"):
                _make(self.root)
                lock.acquire(blocking=False)
        except Timeout:
            raise StudyError(self._in_use()) from None
        try:
            yield
        finally:
            try:
                with _disk(self.journal):
                    if self.journal.exists():
                        _sync(self.journal)
            finally:
                lock.release()

    def _in_use(self) -> str:
        try:
            holder = "study '{study}', process {pid} on {host}, since {since}".format_map(self.get(".lock.json"))
        except (StudyError, TypeError, LookupError):
            holder = "another process"  # which has not yet written who it is
        return f"{self.root} is in use by {holder}; wait for it or choose another folder"

    def claim(self, digest: str, name: str) -> bool:
        """Make this the folder of study ``name``, whose design has ``digest``; True where it had another design.

        Raises:
            StudyError: the folder holds another study.
        """
        owner = self.get("study.json", {"name": name, "digest": None})
        try:
            known = owner["name"], owner["digest"]
        except (TypeError, LookupError):
            raise StudyError(
                f"{self.root / 'study.json'}: cannot be read; move it away if this is the folder of study '{name}'"
            ) from None
        if known[0] != name:
            raise StudyError(f"{self.root} holds study '{known[0]}', not '{name}'; choose another folder for '{name}'")
        if known[1] != digest:
            self.put("study.json", {"name": name, "digest": digest})
        return known[1] not in (None, digest)

    def get(self, name: str, default: Any = None) -> Any:
        """The content of a small JSON file of the folder; ``default`` where there is none, None if it is no JSON."""
        try:
            with _disk(self.root / name):
                return json.loads((self.root / name).read_bytes())
        except FileNotFoundError:
            return default
        except ValueError:
            return None

    def models(self) -> list[Any]:
        """What was noted of the models that this folder used (`model-*.json`)."""
        return [self.get(file.name) for file in sorted(self.root.glob("model-*.json"))]

    def put(self, name: str, value: Any) -> None:
        """Write a small file of the folder, whole or not at all: text as it is, anything else as JSON."""
        with _disk(self.root / name):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            scratch = self._scratch(name.replace("/", "-"))
            try:
                scratch.write_text(value if isinstance(value, str) else as_json(value) + "\n", encoding="utf-8")
                _sync(scratch)
                os.replace(scratch, self.root / name)
                _sync(self.root)
            finally:
                scratch.unlink(missing_ok=True)


def now() -> str:
    """The time in UTC, to the ms."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
