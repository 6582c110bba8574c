"""A model behind an OpenAI-compatible endpoint: asked concurrently, patiently, once per question, within a budget.

The key is read from the environment when a question is asked and goes into one header. It is in no attribute, no
cache entry and no message, and where an endpoint repeats it, it is taken out.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from ablate.errors import FatalError, StudyError
from ablate.lm.base import cache_folder

if TYPE_CHECKING:
    import httpx

FIRST_WAIT_S = 0.5
"""The pause before the first repetition; each later one is twice as long."""

LONGEST_WAIT_S = 120.0
"""An endpoint that asks for a longer pause is not waited for."""

LARGEST_REPLY = 4_000_000
"""Bytes of a reply after which it is read no further."""

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same question may be answered."""

NOT_THIS_QUESTION = frozenset({400, 413, 422})
"""Statuses that refuse what is asked (its content, its length), not who asks."""


class _AgainError(Exception):
    """A question that is worth asking again, after ``wait_s`` if the endpoint said so."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _GarbledError(_AgainError):
    """The endpoint is there and took the question, but what it says is no reply."""


class _RefusedError(Exception):
    """A question that this endpoint does not answer."""


@dataclass
class Endpoint:
    """A :class:`~ablate.api.Judge`; the options are those of :class:`~ablate.api.JudgeOptions`.

    Replies are kept in ``judge`` of the cache folder, by the sha256 of the request. ``max_tokens_total`` counts what
    the endpoint reports as used (a reply without a report counts a token for each byte of question and reply);
    questions that are under way when it is reached are finished.
    """

    model: str
    base_url: str
    api_key_env: str | None = None
    timeout_s: float = 60.0
    retries: int = 5
    concurrency: int = 8
    max_tokens_total: int | None = None
    spent: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, questions: Sequence[str], *, max_tokens: int) -> Sequence[str | None]:
        """The reply to each question, None where the endpoint gave none that can be read.

        Raises:
            StudyError: the endpoint cannot be reached, or every question was refused.
            FatalError: no key, a key that is not accepted, no such model, or the budget is spent.
        """
        import httpx

        bodies = {question: self._body(question, max_tokens) for question in dict.fromkeys(questions)}
        replies = {question: kept["reply"] for question, body in bodies.items() if (kept := _cached(body)) is not None}
        missing = [question for question in bodies if question not in replies]
        if missing:
            key = self._key()
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
            limits = httpx.Limits(max_connections=self.concurrency)
            stop = Event()
            with (
                httpx.Client(timeout=self.timeout_s, headers=headers, limits=limits) as client,
                ThreadPoolExecutor(self.concurrency) as threads,
            ):
                asked = [threads.submit(self._ask, client, bodies[question], key, stop) for question in missing]
                try:
                    wait(asked, return_when=FIRST_EXCEPTION)
                    failed = [future for future in asked if future.done() and future.exception()]
                    found = [future.result() for future in failed or asked]
                finally:
                    stop.set()  # an error, or an interruption: nobody goes on waiting for a reply
                    threads.shutdown(wait=False, cancel_futures=True)
            if len(found) == len(bodies) and all(isinstance(reply, _RefusedError) for reply in found):
                raise StudyError(f"judge '{self.model}' at {self.base_url} refuses every question: {found[0]}")
            texts = [None if isinstance(reply, _RefusedError) else reply for reply in found]
            replies |= dict(zip(missing, texts, strict=True))
        return [replies[question] for question in questions]

    def _body(self, question: str, max_tokens: int) -> bytes:
        """The request; the cache is keyed by it and by the address."""
        messages = [{"role": "user", "content": question}]
        request = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        return json.dumps([f"{self.base_url.rstrip('/')}/chat/completions", request], sort_keys=True).encode()

    def _key(self) -> str:
        if self.api_key_env is None:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise FatalError(
                f"judge '{self.model}': the environment variable {self.api_key_env} is not set; it holds the key"
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise FatalError(f"judge '{self.model}': what {self.api_key_env} holds cannot be a key; copy it again")
        return key

    def _ask(self, client: httpx.Client, body: bytes, key: str, stop: Event) -> str | _RefusedError | None:
        """One question until it is answered, refused or given up."""
        tried = 0
        while not stop.is_set():
            self._within_budget()
            try:
                return self._send(client, body, key)
            except _RefusedError as refused:
                return refused
            except _AgainError as again:
                if tried == self.retries:
                    if isinstance(again, _GarbledError):
                        return None
                    raise StudyError(
                        f"judge '{self.model}' at {self.base_url}: {again}, {tried + 1} times; what was answered is "
                        "kept, and the same command goes on"
                    ) from None
                wait_s = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S) if again.wait_s is None else again.wait_s
                if wait_s > LONGEST_WAIT_S:
                    raise StudyError(
                        f"judge '{self.model}' at {self.base_url}: {again}, and asks to be left alone for "
                        f"{wait_s:.0f} s; run the same command then"
                    ) from None
                stop.wait(wait_s)
                tried += 1
        return None

    def _send(self, client: httpx.Client, body: bytes, key: str) -> str | None:
        import httpx

        url, request = json.loads(body)
        try:
            status, headers, content = self._posted(client, url, json.dumps(request).encode())
        except httpx.TimeoutException:
            raise _AgainError(f"no reply within {self.timeout_s:g} s") from None
        except httpx.TransportError as error:
            raise _AgainError(f"no connection ({type(error).__name__})") from None
        except httpx.DecodingError:
            raise _GarbledError("an answer that is not encoded as it says") from None
        except httpx.InvalidURL:
            raise FatalError(f"judge '{self.model}': base_url '{self.base_url}' is no address") from None
        said = _parsed(content)
        if status in BUSY:
            raise _AgainError(f"status {status}", _wait_s(headers.get("Retry-After", "")))
        if status != 200:
            why = f"status {status}{_without(key, _reason(said))}"
            if status in NOT_THIS_QUESTION:
                raise _RefusedError(why)
            hint = f"; check the key in {self.api_key_env}" if status in (401, 403) else "; check base_url and model"
            raise FatalError(f"judge '{self.model}' at {self.base_url}: {why}{hint}")
        self._spend(said, len(content) + len(body))
        try:
            reply = said["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise _GarbledError("no reply in the answer") from None
        if not isinstance(reply, str | None):
            raise _GarbledError("no reply in the answer")
        reply = _without(key, reply) if reply is not None else None
        _keep(body, self.model, reply)
        return reply

    def _posted(self, client: httpx.Client, url: str, content: bytes) -> tuple[int, Any, bytes]:
        """Status, headers and body; a reply that drips is given up after the timeout like one that never comes."""
        import httpx

        deadline = time.monotonic() + self.timeout_s
        received = bytearray()
        with client.stream("POST", url, content=content) as response:
            for part in response.iter_bytes():
                received += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow")
                if len(received) > LARGEST_REPLY:
                    break
        return response.status_code, response.headers, bytes(received)

    def _within_budget(self) -> None:
        if self.max_tokens_total is not None and self.spent >= self.max_tokens_total:
            raise FatalError(
                f"judge '{self.model}': its budget of {self.max_tokens_total:,} tokens is spent "
                f"(max_tokens_total); what was answered is kept: the same command goes on with as many more"
            )

    def _spend(self, said: Any, size: int) -> None:
        usage = said.get("usage") if isinstance(said, dict) else None
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        with self._lock:
            self.spent += used if isinstance(used, int) and used >= 0 else size


def _parsed(content: str | bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _reason(said: Any) -> str:
    """What the endpoint itself says about an error, on one line."""
    error = said.get("error") if isinstance(said, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    words = "".join(letter if letter.isprintable() else " " for letter in text) if isinstance(text, str) else ""
    return f" ({' '.join(words.split())[:200]})" if words.strip() else ""


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if key else text


def _wait_s(retry_after: str) -> float | None:
    """Seconds that a ``Retry-After`` asks for, given as a number or as a date; None where it says nothing."""
    try:
        if retry_after.strip().isdecimal():
            return float(retry_after)
        until = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, IndexError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)


def _file(body: bytes) -> Path:
    name = hashlib.sha256(body).hexdigest()
    return cache_folder() / "judge" / name[:2] / f"{name}.json"


def _cached(body: bytes) -> dict[str, Any] | None:
    """What was kept of a request; a file that cannot be read or is not whole counts as none."""
    try:
        kept = json.loads(_file(body).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    sound = isinstance(kept, dict) and "reply" in kept and isinstance(kept["reply"], str | None)
    return kept if sound else None


def _keep(body: bytes, model: str, reply: str | None) -> None:
    file = _file(body)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as draft:
            draft.write(json.dumps({"model": model, "reply": reply}).encode())
        os.replace(draft.name, file)
    except OSError as error:
        raise FatalError(f"judge cache {file.parent}: {error.strerror}; make room there, or set ABLATE_CACHE") from None
