"""The `tamis` command: `tamis CAPABILITY VERB INPUT... [-o OUT]`, `tamis demo`, `tamis doctor`,
`tamis serve`.

Each capability describes its own verbs in a light module, `tamis.CAPABILITY.commands`, and imports what is heavy only
when a verb runs. Here: the common options, and what becomes of an error.

Exit status: 0 all done; 1 at least one input failed; 2 wrong usage; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

from tamis import __version__, doctor
from tamis.arguments import Parser
from tamis.batch import DEBUG
from tamis.errors import MissingExtraError, TamisError
from tamis.proliferation import commands as proliferation
from tamis.spark import commands as spark
from tamis.subtitles import commands as subtitles
from tamis.weakseg import commands as weakseg

EXAMPLES = """examples:
  tamis subtitles read film.mp4 -o film.srt --review film.html
  tamis weakseg segment slide.svs -o results
  tamis proliferation score slides/ -o results
  tamis spark generate spark-1m.text-en "The design of the website" --max-tokens 13
"""
CAPABILITIES = {"subtitles": subtitles, "spark": spark, "weakseg": weakseg, "proliferation": proliferation}
EXTRAS = {"subtitles": "subtitles", "spark": "spark", "weakseg": "slides", "proliferation": "slides"}
"""What each capability's demo needs; a verb names its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status; raises SystemExit(2) on wrong usage, as argparse does."""
    _show_anything()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, extra, goes_on = "--debug" in arguments, "subtitles", ""
    os.environ[DEBUG] = "1" if debug else ""
    try:
        options = build_parser().parse_args(arguments)
        extra, goes_on = options.extra, _how_it_goes_on(options)
        status: int = options.run(options)
        sys.stdout.flush()  # a full disk or a closed pipe shows here, and not at exit
    except KeyboardInterrupt as stop:
        left: list[str] = getattr(stop, "__notes__", [])
        return _say(
            " ".join([f"Stopped{'' if left else '. Nothing half-written was left'}{goes_on}.", *left]), 130
        )
    except BrokenPipeError:
        # The reader of our output has gone (`tamis ... | head`): there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except TamisError as error:
        return _failed(error, str(error), debug, error.exit_status)
    except ModuleNotFoundError as error:
        return _failed(error, str(MissingExtraError(error.name or "?", extra)), debug, 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, f"{where}{error.strerror or error}.", debug, 1)
    except Exception as fault:  # noqa: BLE001 - the outermost frame: a fault is told in a sentence, its story on request
        sentence = f"An unexpected fault, {type(fault).__name__}: {fault}. "
        return _failed(
            fault, sentence + "Run again with --debug, and please report what that prints.", debug, 1
        )
    return status


def _show_anything() -> None:
    """File names need not be text, and few terminals show every script: what cannot be encoded is shown escaped."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _how_it_goes_on(options: argparse.Namespace) -> str:
    if hasattr(options, "resume"):
        return "; a batch goes on with --resume"
    return "; the same command goes on from the last checkpoint" if options.trains else ""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tamis",
        description="Finds the few things that matter in large media.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tamis {__version__}")
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the whole story of an error")
    parser.set_defaults(extra="subtitles", debug=False, trains=False)
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = parts.add_parser(
        "demo", parents=[common], help="the main job of each capability on bundled samples"
    )
    demo.add_argument(
        "-o", "--output", metavar="DIR", default="tamis-demo", help="where results go (default: %(default)s)"
    )
    demo.set_defaults(run=_demo)

    doctor = parts.add_parser(
        "doctor", parents=[common], help="versions, native kernels, threads, weights and their hashes"
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON record")
    doctor.set_defaults(run=_doctor)

    serve = parts.add_parser("serve", parents=[common], help="look at a folder of results in a browser")
    serve.add_argument(
        "folder", metavar="DIR", type=Path, help="what a command wrote with -o, or the demo's folder"
    )
    serve.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0 takes a free one")
    serve.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this computer alone")
    serve.set_defaults(run=_serve)

    for name, capability in CAPABILITIES.items():
        part = parts.add_parser(name, help=capability.__doc__.splitlines()[0].rstrip("."))  # type: ignore[union-attr]
        capability.add_commands(part.add_subparsers(title="verbs", metavar="VERB", required=True), common)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from tamis import gallery  # with the web server of the standard library, which nothing else needs

    folder, told, status = Path(options.output), {}, 0
    for name, capability in CAPABILITIES.items():
        with redirect_stdout(_Copied(sys.stdout)) as copy:
            try:
                capability.demo(folder / name)
            except (ModuleNotFoundError, MissingExtraError) as error:
                lacking = error.module if isinstance(error, MissingExtraError) else error.name or "?"
                sentence = f"{name} was skipped. {MissingExtraError(lacking, EXTRAS.get(name, name))}"
                copy.keep(sentence)
                status = _failed(error, sentence, options.debug, 1)
        told[name] = copy.getvalue()
    print(f"all of it on one page: {gallery.write_index(folder, 'Tamis: demo', told)}")
    return status


class _Copied(StringIO):
    """What is printed, kept as well as shown."""

    def __init__(self, shown: TextIO) -> None:
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(text)
        self._shown.flush()
        return super().write(text)

    def keep(self, text: str) -> None:
        """What was said elsewhere."""
        super().write(text)


def _serve(options: argparse.Namespace) -> int:
    from tamis import gallery

    gallery.serve(options.folder, options.port, options.host)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    return doctor.main(as_json=options.json)


def _failed(error: BaseException, sentence: str, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exception(error)
    return _say(sentence, status)


def _say(sentence: str, status: int) -> int:
    print(f"tamis: {sentence}", file=sys.stderr)
    return status
