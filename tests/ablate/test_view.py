"""The report as it is served: to this machine alone, two paths, and newer when runs have landed."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import Quiet, run, study, unsynced
from serving import serving

from ablate import view
from ablate.cli import main
from ablate.errors import StudyError
from ablate.store import Store
from ablate.view import Live, Server, server
from ablate.workflow import label_study


def ask(own: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """The status, the headers and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", own.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host if host is not None else f"127.0.0.1:{own.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    said = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    connection.close()
    return said


@pytest.fixture(scope="module")
def served(small: Path) -> Iterator[Server]:
    with serving(small) as own:
        yield own


def test_the_page_is_the_report_that_follows_its_server(served: Server, small: Path) -> None:
    status, headers, body = ask(served, "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "connect-src &#39;self&#39;" in body
    assert re.sub(r' data-version="\w+"|; connect-src [^"]*| <span id="live".*?</span>', "", body) == (
        small / "report.html"
    ).read_text(encoding="utf-8")


def test_every_answer_closes_what_a_browser_would_leave_open(served: Server) -> None:
    for path in ("/", "/version", "/nothing"):
        headers = ask(served, path)[1]
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert headers["server"] == "ablate"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/journal.jsonl",
        "/report.html",
        "/artifacts/",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/version/../journal.jsonl",
        "/\\..\\..",
        "http://127.0.0.1/journal.jsonl",
        "http://[",
    ],
)
def test_nothing_else_is_served(served: Server, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(served, path)[::2] == (404, "only the report is here: /\n")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(served: Server, method: str) -> None:
    assert ask(served, "/", method=method)[0] == 501


def test_head_has_no_body(served: Server) -> None:
    status, headers, body = ask(served, "/", method="HEAD")
    assert (status, body, int(headers["content-length"]) > 10_000) == (200, "", True)


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("127.0.0.1:PORT", True),
        ("localhost:PORT", True),
        ("LocalHost:PORT", True),
        ("[::1]:PORT", True),
        ("127.0.0.2:PORT", True),
        ("evil.example:PORT", False),
        ("localhost.evil.example:PORT", False),
        ("127.0.0.1.evil.example:PORT", False),
        ("10.0.0.1:PORT", False),
        ("127.0.0.1", False),
        ("127.0.0.1:1", False),
        ("127.0.0.1:PORT.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_of_somebody_else_that_leads_here_is_refused(served: Server, host: str, trusted: bool) -> None:
    for path in ("/", "/version"):
        status, _, body = ask(served, path, host.replace("PORT", str(served.server_port)))
        assert status == (200 if trusted else 421)
        assert trusted or body == "this server has another name\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com", ""])
def test_an_interface_that_others_reach_is_refused(small: Path, host: str) -> None:
    with pytest.raises(
        StudyError, match=f"--host {re.escape(host)}: other machines could read the answers of this study"
    ):
        server(small, host=host)


def test_an_interface_that_others_reach_is_opened_when_asked(small: Path) -> None:
    with serving(small, host="0.0.0.0", allow_remote=True) as own:
        port = own.server_port
        for host, status in (
            (f"10.0.0.7:{port}", 200),
            (f"{socket.gethostname()}:{port}", 200),
            (f"evil.example:{port}", 421),
        ):
            assert ask(own, "/version", host)[0] == status


def test_a_port_that_is_taken_is_named(served: Server, small: Path) -> None:
    with pytest.raises(
        StudyError, match=f"cannot listen on 127.0.0.1, port {served.server_port} .*choose another --port"
    ):
        server(small, port=served.server_port)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no cube yet; `ablate study` writes it"):
        server(tmp_path)


def test_the_page_follows_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PAUSE_S", 0.0)
    monkeypatch.setattr(view, "REST", 0)
    Store(tmp_path).put("study.resolved.yaml", study(name="followed").dump())
    with serving(tmp_path) as own:
        seen = []
        for step in ("begun", "labeled", "finished", "nothing new"):
            with unsynced():
                if step == "labeled":
                    label_study(study(name="followed"), tmp_path, Quiet())
                elif step == "finished":
                    run(study(name="followed"), tmp_path)
            said = json.loads(ask(own, "/version")[2])
            page = ask(own, "/")[2]
            assert f'data-version="{said["version"]}"' in page
            assert said["problem"] == ""
            seen.append((said["version"], said["finished"], "0 of 8 runs have results" in page, '"taken":[' in page))
    assert [rest for _, *rest in seen] == [
        [False, True, False],
        [False, True, True],
        [True, False, True],
        [True, False, True],
    ]
    assert [seen[i][0] == seen[i + 1][0] for i in range(3)] == [False, False, True]


def test_what_cannot_be_read_just_now_leaves_the_last_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PAUSE_S", 0.0)
    monkeypatch.setattr(view, "REST", 0)
    store = Store(tmp_path)
    store.put("study.resolved.yaml", study(name="followed").dump())
    live = Live(tmp_path)
    html, version = live.html, live.version
    (tmp_path / "study.resolved.yaml").write_text("question: [")
    live.refresh()
    assert (live.html, live.version) == (html, version)
    assert live.problem.startswith("not up to date: ")
    store.put("study.resolved.yaml", study("train.epochs=4", name="followed").dump())
    live.refresh()
    assert (live.problem, live.version != version) == ("", True)


def test_a_page_is_not_made_anew_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).put("study.resolved.yaml", study(name="followed").dump())
    live = Live(tmp_path)
    version = live.version
    Store(tmp_path).log(run="something")
    live.refresh()
    assert live.version == version  # it was made just now
    monkeypatch.setattr(live, "_due", 0.0)
    live.refresh()
    assert live.version != version


def test_the_command_says_where_it_is_and_ends_with_ctrl_c(small: Path) -> None:
    command = [sys.executable, "-m", "ablate", "view", str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends\)\n", said)
        assert found is not None, said
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        connection.request("GET", "/")
        assert b"Verdict" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "ended\n")


def test_the_command_refuses_in_one_line(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["view", str(small), "--host", "0.0.0.0"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "add --allow-remote if that is meant" in said.err
