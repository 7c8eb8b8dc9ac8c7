"""A page over a folder of results: `index.html` of `tamis demo`, and `tamis serve DIR`.

One section a folder: what was said about it, then pages (shown small, where they are few), then pictures, then every other
file with its size. The page refers to its files by relative links, so the folder can be moved or zipped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tamis.errors import InputError, UsageError
from tamis.writing import replacing

INDEX = "index.html"
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp"})
PAGES = frozenset({".html", ".htm"})
MOST_SHOWN = 8  # pages that are shown small: each is loaded whole
MOST_FILES = 2000  # named on one page; a folder of ten thousand slides is looked at a part at a time
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #8886; }
.pages a { display: inline-block; margin: 0 1rem .5rem 0; font-weight: 600; }
.page { width: 34rem; max-width: 100%; height: 22rem; overflow: hidden; border: 1px solid #8884; margin: 0 0 .3rem; }
.page iframe { width: 200%; height: 200%; border: 0; background: #fff; transform: scale(.5); transform-origin: 0 0; }
pre { font-size: .85rem; overflow-x: auto; padding: .7rem 1rem; background: #8881; border-radius: .4rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.pictures img { max-width: 20rem; max-height: 15rem; display: block; border: 1px solid #8884; background: #fff; }
ul { columns: 18rem; padding-left: 1.2rem; font-size: .9rem; } .size { opacity: .6; }
"""


def write_index(folder: Path, title: str, told: Mapping[str, str] | None = None) -> Path:
    """Write `folder/index.html` over everything that lies in `folder`. Returns its path.

    told   text to stand above the files of a sub-folder, by its name; also where there are no files
    """
    path = folder / INDEX
    with replacing(path) as beside:
        beside.write_text(page(folder, title, told), encoding="utf-8")
    return path


def page(folder: Path, title: str, told: Mapping[str, str] | None = None) -> str:
    """The page over a folder and its sub-folders, as HTML without scripts."""
    told, (groups, more) = told or {}, _groups(folder)
    groups += [(name, []) for name in told if name not in dict(groups)]
    few = sum(_is_page(path) for _, files in groups for path in files) <= MOST_SHOWN
    sections = "".join(_section(folder, name, files, told.get(name, ""), few) for name, files in groups)
    if not sections:
        sections = "<p>There is nothing here yet.</p>"
    if more:
        sections += f"<p>{more} more files are not named here: look at a folder below this one.</p>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n{sections}</html>\n"
    )


def _groups(folder: Path) -> tuple[list[tuple[str, list[Path]]], int]:
    """(name relative to `folder`, its files) for the folder itself and each one below it that holds files, MOST_FILES at the
    most together; and how many files there are besides."""
    groups: list[tuple[str, list[Path]]] = []
    left, more = MOST_FILES, 0
    for place in [folder, *sorted(p for p in folder.rglob("*") if p.is_dir() and not _hidden(p, folder))]:
        files = sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
        files = [p for p in files if p != folder / INDEX]
        named, more = files[:left], more + len(files[left:])
        left -= len(named)
        if named:
            groups.append(("" if place == folder else place.relative_to(folder).as_posix(), named))
    return groups, more


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in PAGES


def _section(folder: Path, name: str, files: list[Path], told: str, show: bool) -> str:
    def link(path: Path) -> str:
        return html.escape(quote(path.relative_to(folder).as_posix()), quote=True)

    pages = [p for p in files if _is_page(p)]
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    others = [p for p in files if p not in pages and p not in pictures]
    heading = f"<h2>{html.escape(name)}</h2>\n" if name else ""
    said = f"<pre>{html.escape(told.strip())}</pre>\n" if told.strip() else ""
    frame = '<div class="page"><iframe loading="lazy" tabindex="-1" src="{0}" title="{1}"></iframe></div>'
    shown = "".join(
        (frame.format(link(p), html.escape(p.name)) if show else "")
        + f'<a href="{link(p)}">{html.escape(p.name)}</a>'
        for p in pages
    )
    seen = "".join(
        f'<figure><a href="{link(p)}"><img loading="lazy" src="{link(p)}" alt="{html.escape(p.stem)}"></a>'
        f"<figcaption>{html.escape(p.name)}</figcaption></figure>"
        for p in pictures
    )
    rest = "".join(
        f'<li><a href="{link(p)}">{html.escape(p.name)}</a> <span class="size">{_size(p)}</span></li>'
        for p in others
    )
    return (
        heading
        + said
        + (f'<div class="pages">{shown}</div>\n' if shown else "")
        + (f'<div class="pictures">{seen}</div>\n' if seen else "")
        + (f"<ul>{rest}</ul>\n" if rest else "")
    )


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, and the gallery in place of a directory listing. Reads only, never outside the folder."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".srt": "text/plain; charset=utf-8",
        ".vtt": "text/vtt; charset=utf-8",
        ".ass": "text/plain; charset=utf-8",
        ".jsonl": "text/plain; charset=utf-8",
        ".geojson": "application/json",
    }

    def translate_path(self, path: str) -> str:
        """The file that a request names; a link that leads out of the folder is answered as absent."""
        root = Path(self.directory).resolve()
        wanted = (root / unquote(urlsplit(path).path).lstrip("/")).resolve()
        return str(wanted if wanted.is_relative_to(root) else root / "absent")

    def list_directory(self, path: str | object) -> BytesIO | None:
        folder = Path(str(path))
        try:
            body = page(folder, folder.name or "results").encode()
        except OSError as error:  # not for us to read, or gone meanwhile
            self.send_error(403, f"{folder.name}: {error.strerror or error}")
            return None
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return BytesIO(body)

    def end_headers(self) -> None:
        # A result is looked at again after the next run: never an old copy.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the command line belongs to the person who serves."""


def server(folder: Path, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of `folder`, not yet running. Port 0 takes a free one.

    Raises InputError when there is no such folder, and UsageError when the port cannot be had.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the folder that holds the results.")
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Port {port} of {host} cannot be had ({error}): choose another with --port."
        ) from error


def serve(folder: Path, port: int, host: str = "127.0.0.1") -> None:
    """Serve until Ctrl-C, which is the way to end it and no failure."""
    with server(folder, port, host) as running:
        print(f"{folder} is at http://{host}:{running.server_port}/   (Ctrl-C ends it)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
