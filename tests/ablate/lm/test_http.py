"""The client against a real server on loopback, with the faults that endpoints have."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from endpoint import Reply, fails, says, served

from ablate.errors import FatalError, StudyError
from ablate.lm import http, load_endpoint
from ablate.lm.http import Endpoint

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    return tmp_path / "cache"


def client(base_url: str, **options: Any) -> Endpoint:
    return Endpoint(model="m", base_url=base_url, api_key_env="JUDGE_KEY", **options)


def test_replies_are_in_the_order_of_the_questions_and_each_is_asked_once() -> None:
    with served(lambda question, before: says(f"re {question}")) as endpoint:
        judge = client(endpoint.base_url, concurrency=3)
        assert judge(["a", "b", "a", "c"], max_tokens=7) == ["re a", "re b", "re a", "re c"]
    assert sorted(endpoint.asked) == ["a", "b", "c"]
    assert endpoint.authorization == [f"Bearer {KEY}"] * 3
    expected = {"model": "m", "max_tokens": 7, "temperature": 0, "messages": [{"role": "user", "content": "a"}]}
    assert expected in endpoint.requests


def test_without_the_name_of_a_key_none_is_sent() -> None:
    with served(lambda question, before: says("x")) as endpoint:
        assert load_endpoint({"model": "m", "base_url": endpoint.base_url})(["a"], max_tokens=1) == ["x"]
    assert endpoint.authorization == [None]


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (4, 4)])
def test_questions_are_under_way_together(concurrency: int, most: int) -> None:
    with served(lambda question, before: says("x")._replace(delay_s=0.1)) as endpoint:
        client(endpoint.base_url, concurrency=concurrency)([str(i) for i in range(8)], max_tokens=1)
    assert endpoint.most_under_way == most


def test_control_characters_and_lone_surrogates_are_data() -> None:
    strange = "a\x00b\x1b[2J\u2028{answer}%s\ud800"
    with served(lambda question, before: says("x")) as endpoint:
        client(endpoint.base_url)([strange], max_tokens=1)
    assert endpoint.asked == [strange]


# faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        fails(429, Retry_After="0"),
        fails(429, "slow down"),
        fails(500),
        fails(503, Retry_After="soon"),
        Reply(body=b"{not json"),
        Reply(headers={"Content-Encoding": "gzip"}, body=b"no gzip"),
        Reply(body=b"[" * 100_000),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(body=b"null"),
        says("late")._replace(delay_s=0.6),
    ],
    ids=["429 wait", "429", "500", "503", "malformed", "encoding", "nested", "no choices", "no text", "null", "slow"],
)
def test_what_passes_is_asked_again(fault: Reply) -> None:
    with served(lambda question, before: fault if before < 2 else says("at last")) as endpoint:
        assert client(endpoint.base_url, timeout_s=0.3, retries=2)(["a"], max_tokens=1) == ["at last"]
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(form: str) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with served(
        lambda q, n: says("x") if n else fails(429, Retry_After="1" if form == "seconds" else until)
    ) as endpoint:
        began = time.perf_counter()
        client(endpoint.base_url)(["a"], max_tokens=1)
    assert time.perf_counter() - began > 0.7


def test_pauses_double() -> None:
    with served(lambda question, before: says("x") if before == 5 else fails(500)) as endpoint:
        began = time.perf_counter()
        client(endpoint.base_url, retries=5)(["a"], max_tokens=1)
    assert time.perf_counter() - began >= 0.01 * (2**5 - 1)
    assert len(endpoint.asked) == 6


def test_a_reply_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, all of them do not."""
    import socket
    from threading import Thread

    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
            for _ in range(30):
                time.sleep(0.1)
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = Thread(target=drip, daemon=True)
    thread.start()
    began = time.perf_counter()
    with pytest.raises(StudyError, match=r"no reply within 0\.4 s, 1 times"):
        client(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout_s=0.4, retries=0)(["a"], max_tokens=1)
    assert time.perf_counter() - began < 2
    thread.join()
    listener.close()


# faults that stay


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fails(429), r"judge 'm' at http\S+: status 429, 3 times; what was answered is kept"),
        (fails(500), r"status 500, 3 times; .* the same command goes on"),
        (says("x")._replace(delay_s=0.4), r"no reply within 0\.2 s, 3 times"),
        (fails(429, Retry_After="3600"), r"status 429, and asks to be left alone for 3600 s"),
    ],
)
def test_an_endpoint_that_stays_away_is_an_error(fault: Reply, message: str) -> None:
    with served(lambda question, before: fault) as endpoint, pytest.raises(StudyError, match=message):
        client(endpoint.base_url, timeout_s=0.2, retries=2)(["a"], max_tokens=1)


def test_nobody_listens() -> None:
    with pytest.raises(StudyError, match=r"no connection \(ConnectError\), 2 times"):
        client("http://127.0.0.1:9/v1", retries=1)(["a"], max_tokens=1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (fails(401, "bad\n\x1bkey"), r"status 401 \(bad key\); check the key in JUDGE_KEY"),
        (fails(403), r"status 403; check the key in JUDGE_KEY"),
        (fails(404, "no model m"), r"status 404 \(no model m\); check base_url and model"),
        (Reply(307, {"Location": "http://127.0.0.1:9/"}), r"status 307; check base_url and model"),
    ],
)
def test_what_only_the_user_can_mend_is_fatal_at_once(fault: Reply, message: str) -> None:
    with served(lambda question, before: fault) as endpoint, pytest.raises(FatalError, match=message):
        client(endpoint.base_url)(["a"], max_tokens=1)
    assert len(endpoint.asked) == 1


def test_an_error_stops_those_who_wait() -> None:
    script = {"bad": fails(401), "busy": fails(429, Retry_After="60")}
    with served(lambda question, before: script[question]) as endpoint:
        began = time.perf_counter()
        with pytest.raises(FatalError, match="401"):
            client(endpoint.base_url)(["busy", "bad"], max_tokens=1)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("fault", [Reply(body=b"<html>"), Reply(body=b'{"choices": []}'), fails(400, "filtered")])
def test_a_question_without_a_reply_abstains_and_the_others_count(fault: Reply) -> None:
    with served(lambda question, before: fault if question == "odd" else says("5")) as endpoint:
        assert client(endpoint.base_url, retries=1)(["a", "odd", "b"], max_tokens=1) == ["5", None, "5"]
    assert endpoint.asked.count("odd") == (1 if fault.status == 400 else 2)


def test_an_endpoint_that_refuses_everything_is_an_error() -> None:
    with served(lambda q, n: fails(400, "max_tokens?")) as endpoint, pytest.raises(
        StudyError, match=r"refuses every question: status 400 \(max_tokens\?\)"
    ):  # fmt: skip
        client(endpoint.base_url)(["a", "b"], max_tokens=1)


# the cache


def test_what_was_answered_is_not_asked_again(cache: Path) -> None:
    with served(lambda question, before: says("x")) as endpoint:
        for _ in range(2):
            assert client(endpoint.base_url)(["a", "b"], max_tokens=1) == ["x", "x"]
        assert len(endpoint.asked) == 2
        client(endpoint.base_url)(["a"], max_tokens=2)
        Endpoint(model="other", base_url=endpoint.base_url)(["a"], max_tokens=1)
        assert len(endpoint.asked) == 4
    files = [file for file in cache.rglob("*") if file.is_file()]
    assert len(files) == 4
    assert {file.suffix for file in files} == {".json"}, "no draft is left"
    assert {file.parent.parent.name for file in files} == {"judge"}


@pytest.mark.parametrize("damage", [b"", b'{"reply": ', b'{"reply": 7}', b"[]"])
def test_a_damaged_entry_is_made_again(cache: Path, damage: bytes) -> None:
    with served(lambda question, before: says("x")) as endpoint:
        client(endpoint.base_url)(["a"], max_tokens=1)
        (file,) = cache.rglob("*.json")
        file.write_bytes(damage)
        assert client(endpoint.base_url)(["a"], max_tokens=1) == ["x"]
    assert json.loads(file.read_bytes())["reply"] == "x"


def test_an_error_loses_nothing() -> None:
    with served(lambda question, before: says("x") if question != "c" else fails(401)) as endpoint:
        with pytest.raises(FatalError):
            client(endpoint.base_url, concurrency=1)(["a", "b", "c"], max_tokens=1)
        endpoint.script = lambda question, before: says("y")
        assert client(endpoint.base_url)(["a", "b", "c"], max_tokens=1) == ["x", "x", "y"]


def test_a_cache_that_cannot_be_written_says_so(cache: Path) -> None:
    cache.write_text("in the way")
    with served(lambda question, before: says("x")) as endpoint, pytest.raises(FatalError, match="set ABLATE_CACHE"):
        client(endpoint.base_url)(["a"], max_tokens=1)


# the budget


def test_the_budget_stops_asking_and_the_same_command_goes_on() -> None:
    questions = [str(i) for i in range(5)]
    with served(lambda question, before: says("x", tokens=40)) as endpoint:
        judge = client(endpoint.base_url, concurrency=1, max_tokens_total=100)
        with pytest.raises(FatalError, match=r"budget of 100 tokens is spent \(max_tokens_total\).*kept"):
            judge(questions, max_tokens=1)
        assert endpoint.asked == ["0", "1", "2"]
        assert judge.spent == 120
        with pytest.raises(FatalError, match="budget"):
            judge(questions, max_tokens=1)
        assert judge(["1"], max_tokens=1) == ["x"], "what is known costs nothing"
        again = client(endpoint.base_url, concurrency=1, max_tokens_total=100)
        assert again(questions, max_tokens=1) == ["x"] * 5
    assert endpoint.asked == questions


@pytest.mark.parametrize("usage", [None, -5, "many"])
def test_a_reply_that_reports_no_use_counts_its_bytes(usage: Any) -> None:
    with served(lambda question, before: says("x", tokens=usage)) as endpoint:
        judge = client(endpoint.base_url)
        judge(["a" * 1000], max_tokens=1)
    assert 1000 < judge.spent < 2000


# the key


def test_a_key_that_is_not_there_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(FatalError, match="environment variable JUDGE_KEY is not set"):
        client("http://127.0.0.1:9/v1")(["a"], max_tokens=1)


@pytest.mark.parametrize("key", ["two words", "new\nline", "sécret", "bell\x07"])
def test_a_key_that_cannot_be_one_is_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(FatalError, match="what JUDGE_KEY holds cannot be a key") as caught:
        client("http://127.0.0.1:9/v1")(["a"], max_tokens=1)
    assert key not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_is_nowhere(
    status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the cache, a message, a log, what is printed, how the judge looks; even where the endpoint repeats it."""
    caplog.set_level(logging.DEBUG)
    seen = [repr(client("http://127.0.0.1:9/v1"))]
    with served(lambda q, n: says(f"you are {KEY}") if status == 200 else fails(status, f"bad {KEY}")) as endpoint:
        judge = client(endpoint.base_url, retries=0)
        try:
            seen += judge(["a"], max_tokens=1)
        except StudyError as error:
            seen.append(str(error))
        assert endpoint.authorization == [f"Bearer {KEY}"]
    seen += [repr(vars(judge)), caplog.text, *capsys.readouterr()]
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) == (status == 200)
    seen += [file.read_bytes().decode() + str(file) for file in written]
    assert len([text for text in seen if text]) >= 3
    assert not [text for text in seen if KEY in text]


def test_no_torch_and_no_client_before_a_question() -> None:
    code = "import sys; from ablate.lm.http import Endpoint; print(*sorted({'torch', 'httpx'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
