"""A server answers to its own names alone, and sends nobody elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_builder
from app_client import Client
from hypothesis import given
from hypothesis import strategies as st
from live_server import get_request, live, predict_request

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError
from graftwork.serving.engine import Engine
from graftwork.serving.hosts import AllowedHosts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_builder.write_table_run(tmp_path_factory.mktemp("hosts"))


def test_names_that_are_allowed() -> None:
    hosts = AllowedHosts(["Models.Example.org", "*.example.net", "2001:db8::7"], "10.0.0.7")
    good = ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "10.0.0.7", "models.example.org", "a.b.example.net:80"]
    assert all(map(hosts.allow, [*good, "[2001:db8::7]", "localhost.", "localhost.:80"]))
    bad = [
        "",
        "example.org",
        "example.net",
        "evil.org",
        "localhost.evil.org",
        "evilexample.net",
        "127.0.0.1.evil.org",
        "10.0.0.8",
    ]
    bad += [
        "localhost@evil.org",
        "evil.org/localhost",
        "localhost:80:80",
        "localhost:x",
        " localhost",
        "local host",
        "127.0.0.1\n",
    ]
    assert not any(map(hosts.allow, bad))


def test_the_address_a_connection_came_to_counts_where_all_are_listened_on() -> None:
    assert AllowedHosts([], "0.0.0.0").allow("192.0.2.7:8000", "192.0.2.7")
    assert AllowedHosts([], "::").allow("[2001:db8::7]:8000", "2001:db8::7")
    assert AllowedHosts([], "::").allow("192.0.2.7:8000", "::ffff:192.0.2.7")
    assert not AllowedHosts([], "0.0.0.0").allow("192.0.2.8", "192.0.2.7")
    assert not AllowedHosts([], "0.0.0.0").allow("evil.org", "192.0.2.7")
    assert not AllowedHosts([], "127.0.0.1").allow("192.0.2.7", "192.0.2.7")


@given(st.text(max_size=20))
def test_a_star_allows_any_name_and_nothing_else_does(name: str) -> None:
    assert AllowedHosts(["*"]).allow(name)
    known = name.lower().partition(":")[0].rstrip(".") in ("localhost", "127.0.0.1") or "[::1]" in name
    assert known or not AllowedHosts().allow(name)


@pytest.mark.parametrize("name", ["http://example.org", "example.org:80", "example.org/x", "", "a b", "*.", "exa*mple.org"])
def test_what_is_no_name_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"no names of hosts.*without scheme, port and path"):
        AllowedHosts([name])
    if name.strip():
        assert main(["serve", str(folder), "--port", "0", "--allowed-hosts", f"good.org,{name}"]) == 2
        assert repr(name) in capsys.readouterr().err


def test_requests_for_another_name_get_421(folder: Path) -> None:
    with live(folder, hosts=("models.example.org",)) as server:
        for path in ("/", "/health", "/model", "/assets/try.js", "/nothing"):
            status, _, body = server.ask(get_request(path, host="evil.org"))
            assert status == 421
            assert b"--allowed-hosts" in body
        assert server.ask(predict_request(host=f"evil.org:{server.port}"))[0] == 421
        for name in ("localhost", f"127.0.0.1:{server.port}", "models.example.org"):
            assert server.ask(predict_request(host=name))[0] == 200
        # Two names, or none, which no browser sends.
        assert server.ask(get_request("/health").replace(b"\r\n\r\n", b"\r\nHost: evil.org\r\n\r\n"))[0] == 400
        assert server.ask(b"GET /health HTTP/1.0\r\n\r\n")[0] == 421


@pytest.mark.parametrize("path", ["/predict/", "/docs/", "/health/?next=http://evil.org", "http://evil.org/x"])
def test_nothing_redirects(folder: Path, path: str) -> None:
    engine = Engine(folder, threads=1)
    try:
        client = Client(engine)
        for method in ("GET", "POST"):
            answer = client.ask(method, path if path.startswith("/") else "/" + path, headers={"Host": "evil.org"})
            assert answer.status_code in (404, 405)
            assert "location" not in answer.headers
    finally:
        engine.close()
