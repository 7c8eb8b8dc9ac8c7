"""The page over a folder of results, and the server that shows it.

python -m pytest tests/test_gallery.py
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tamis import gallery
from tamis.errors import InputError, UsageError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "slides" / "a & b").mkdir(parents=True)
    (folder / "film.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n雨\n", encoding="utf-8")
    (folder / "slides" / "a & b" / "report.html").write_text("<p>report</p>")
    (folder / "slides" / "a & b" / "density 1.png").write_bytes(b"png")
    (folder / ".part-1.png").write_bytes(b"half")
    (tmp_path / "secret.txt").write_text("outside")
    return folder


def test_every_file_is_linked_once_and_hidden_ones_are_not(results: Path) -> None:
    text = gallery.page(results, "Results <1>")
    assert "<title>Results &lt;1&gt;</title>" in text
    assert text.count('href="film.srt"') == 1
    assert text.count('href="slides/a%20%26%20b/report.html"') == 1
    assert '<img loading="lazy" src="slides/a%20%26%20b/density%201.png"' in text
    assert "<h2>slides/a &amp; b</h2>" in text
    assert ".part-1" not in text


def test_what_was_said_stands_above_the_files(results: Path) -> None:
    text = gallery.write_index(results, "Results", {"slides/a & b": "3 < 4 mitoses\n"}).read_text(
        encoding="utf-8"
    )
    assert text.index("<pre>3 &lt; 4 mitoses</pre>") < text.index("density%201.png")


def test_what_was_said_stands_also_where_no_file_is(results: Path) -> None:
    assert "<h2>films</h2>\n<pre>none was read</pre>" in gallery.page(
        results, "R", {"films": "none was read"}
    )


def test_few_pages_are_shown_small(results: Path) -> None:
    frame = '<iframe loading="lazy" tabindex="-1" src="slides/a%20%26%20b/report.html"'
    assert frame in gallery.page(results, "Results")
    for n in range(gallery.MOST_SHOWN):
        (results / f"{n}.html").write_text("page")
    assert "<iframe" not in gallery.page(results, "Results")


def test_index_does_not_list_itself(results: Path) -> None:
    gallery.write_index(results, "Results")
    path = gallery.write_index(results, "Results")
    assert path.read_text(encoding="utf-8").count("index.html") == 0


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "nothing here yet" in gallery.page(tmp_path, "Results")


@pytest.fixture
def connection(results: Path) -> Iterator[HTTPConnection]:
    with gallery.server(results, 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        client = HTTPConnection("127.0.0.1", running.server_port, timeout=10)
        yield client
        client.close()
        running.shutdown()
        thread.join()


def get(client: HTTPConnection, path: str) -> tuple[int, str, str]:
    client.request("GET", path)
    answer = client.getresponse()
    return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()


def test_serves_the_gallery_and_its_files(connection: HTTPConnection) -> None:
    status, kind, text = get(connection, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "density%201.png" in text
    assert get(connection, "/film.srt")[:2] == (200, "text/plain; charset=utf-8")
    assert get(connection, "/slides/a%20%26%20b/report.html")[2] == "<p>report</p>"


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/slides/../../secret.txt", "/link.txt"]
)
def test_nothing_outside_is_served(connection: HTTPConnection, results: Path, path: str) -> None:
    (results / "link.txt").symlink_to(results.parent / "secret.txt")
    status, _, text = get(connection, path)
    assert status == 404
    assert "outside" not in text


def test_a_folder_that_cannot_be_listed_is_an_answer_and_no_traceback(
    connection: HTTPConnection, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gallery, "page", denied)
    status, _, text = get(connection, "/")
    assert status == 403 and "Permission denied" in text
    assert capfd.readouterr().err == ""


def test_no_folder_and_no_port_are_sentences(results: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        gallery.server(results / "nothing", 0)
    with gallery.server(results, 0) as first, pytest.raises(UsageError, match="choose another with --port"):
        gallery.server(results, first.server_port)


def test_what_is_not_named_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_FILES", 3)
    for name in ("a/1.txt", "a/2.txt", "b/3.txt", "b/4.txt", "c/5.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = gallery.page(tmp_path, "Results")
    assert [name for name in "12345" if f"{name}.txt</a>" in text] == ["1", "2", "3"]
    assert "2 more files are not named here" in text
    monkeypatch.setattr(gallery, "MOST_FILES", 5)
    assert "not named" not in gallery.page(tmp_path, "Results")
