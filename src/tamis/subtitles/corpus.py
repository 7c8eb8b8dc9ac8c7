"""The text that the language models are made of: where it comes from, what it counts, how it is cut into lines.

Film subtitles are short. Sentences are cut at their punctuation into lines of up to 25 characters, in the three manners
of real subtitles: as written; one clause a line without its closing comma or full stop; several clauses with spaces
instead of commas. No free text of films is known, but word frequencies of films are: they come in as fragments.

    python -m tamis.subtitles.corpus DATA LANGUAGE [-o FOLDER]     make a language model and print its perplexities

DATA is the folder with `text/` and `words/`. Needs the package opencc.
"""

from __future__ import annotations

import argparse
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tamis import weights
from tamis.subtitles import characters, kneser_ney
from tamis.subtitles.language import LANGUAGES, UNKNOWN, LanguageModel

LONGEST_LINE = 25
# A clause with the punctuation that closes it; that of ASCII closes one only before a space or the end (not in 3.5).
CLAUSE = re.compile(r""".+?(?:[，。！？；…]+[」』”’）]*|[,.!?;]+["')]*(?=\s|$)|$)""")
UNSAID = re.compile(r"[，。；,;、\s]+$|(?<!\.)\.$")  # closing punctuation that subtitles leave out
SIMPLIFIED_MACHINE_LINE = 74_600  # zh_hans.txt from this line on is machine-generated (counselling dialogues)

LICENCE = "CC BY-SA 4.0: statistics of texts under CC0, MIT, Unlicense, Apache-2.0, CC BY 2.0 FR, CC BY-SA 3.0 and 4.0"

# (line number, text, times) of each sentence or word under a data folder
Reader = Callable[[Path], Iterator[tuple[int, str, int]]]


@dataclass(frozen=True, slots=True)
class Source:
    """Sentences, or words (fragments without begin and end), of one origin.

    weight  what one occurrence counts against the other sources
    """

    name: str
    weight: float
    read: Reader
    words: bool = False


def part(number: int) -> str:
    """The part a line of a text file belongs to, by its number: every 20th is for testing, the one after for tuning."""
    return {0: "test", 1: "dev"}.get(number % 20, "train")


def lines_of(sentence: str, manner: int) -> list[str]:
    """A sentence cut into subtitle lines. `manner` 0: as written, 1: clause by clause, 2: spaces instead of commas.

    >>> lines_of("我知道，你不会来。", 1)
    ['我知道', '你不会来']
    >>> lines_of("我知道，你不会来。", 2)
    ['我知道 你不会来']
    """
    clauses = [clause.strip() for clause in CLAUSE.findall(sentence)]
    if manner == 1:
        lines = [UNSAID.sub("", clause) for clause in clauses]
    elif manner == 2:
        lines = _grouped([UNSAID.sub("", clause) for clause in clauses], " ")
    else:
        lines = _grouped(clauses, " " if re.search(r"[A-Za-z가-힣]", sentence) else "")
    return [piece for line in lines for piece in _broken(line) if piece]


def _grouped(clauses: list[str], between: str) -> list[str]:
    """Neighbouring clauses joined as long as the line stays short enough."""
    lines: list[str] = []
    for clause in clauses:
        if lines and len(lines[-1]) + len(between) + len(clause) <= LONGEST_LINE:
            lines[-1] += between + clause
        else:
            lines.append(clause)
    return lines


def _broken(line: str) -> list[str]:
    """A line with spaces broken at them into short enough ones."""
    if len(line) <= LONGEST_LINE or " " not in line:
        return [line]
    return _grouped(line.split(), " ")


def _sentences(name: str, first: int = 0, last: int | None = None) -> Reader:
    def read(data: Path) -> Iterator[tuple[int, str, int]]:
        with lzma.open(data / "text" / name, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number >= first and (last is None or number < last):
                    yield number, line.strip(), 1

    return read


def _tatoeba(configuration: str) -> Reader:
    """All Chinese sentences, converted to one script. A sentence that a held-out line has as well is left out."""

    def read(data: Path) -> Iterator[tuple[int, str, int]]:
        to_simplified, to_script = _converter("t2s"), _converter(configuration)
        with (data / "text" / "tatoeba_cmn_eng.txt").open(encoding="utf-8") as file:
            sentences = [(number, line.split("\t")[1]) for number, line in enumerate(file)]
        key = {text: re.sub(r"\W", "", to_simplified(text)) for _, text in sentences}
        held_out = {key[text] for number, text in sentences if part(number) != "train"}
        for number, text in sentences:
            if part(number) != "train" or key[text] not in held_out:
                yield number, to_script(text), 1

    return read


def _words(name: str, power: float) -> Reader:
    """Words of a frequency list, each as often as a power of its count; never held out, so all numbered 2."""

    def read(data: Path) -> Iterator[tuple[int, str, int]]:
        with (data / "words" / name).open(encoding="utf-8") as file:
            for line in file:
                fields = line.split()
                if len(fields) >= 2 and len(fields[0]) > 1:
                    yield 2, fields[0], max(1, round(float(fields[1]) ** power))

    return read


def _converted(read: Reader, configuration: str, share: int) -> Reader:
    """Training lines of another script, one in `share`, through OpenCC."""

    def converted(data: Path) -> Iterator[tuple[int, str, int]]:
        convert = _converter(configuration)
        for number, text, times in read(data):
            if part(number) == "train" and number // 20 % share == 0:
                yield number, convert(text), times

    return converted


@cache
def _converter(configuration: str) -> Callable[[str], str]:
    import opencc  # only when models are made

    return opencc.OpenCC(configuration).convert


# What each language is made of. Weights and powers were chosen by the perplexity of the held-out lines (see LOG.md).
SOURCES: dict[str, tuple[Source, ...]] = {
    "zh-hans": (
        Source("human", 1.0, _sentences("zh_hans.txt.xz", last=SIMPLIFIED_MACHINE_LINE)),
        Source("machine", 0.5, _sentences("zh_hans.txt.xz", first=SIMPLIFIED_MACHINE_LINE)),
        Source("tatoeba", 3.0, _tatoeba("t2s")),
        Source("converted", 0.3, _converted(_sentences("zh_hant.txt.xz"), "tw2sp", 2)),
        Source("film words", 0.1, _words("freqwords_zh_cn_50k.txt", 0.5), words=True),
        Source("dictionary", 0.05, _words("jieba_dict.txt", 0.3), words=True),
    ),
    "zh-hant": (
        Source("human", 0.3, _sentences("zh_hant.txt.xz")),
        Source("tatoeba", 3.0, _tatoeba("s2twp")),
        Source(
            "converted",
            1.0,
            _converted(_sentences("zh_hans.txt.xz", last=SIMPLIFIED_MACHINE_LINE), "s2twp", 1),
        ),
        Source("film words", 0.1, _words("freqwords_zh_tw_50k.txt", 0.5), words=True),
        Source("dictionary", 0.05, _converted(_words("jieba_dict.txt", 0.3), "s2twp", 1), words=True),
    ),
    "ja": (
        Source("human", 1.0, _sentences("ja.txt.xz")),
        Source("film words", 1.0, _words("freqwords_ja_full.txt", 0.5), words=True),
    ),
    "ko": (
        Source("human", 1.0, _sentences("ko.txt.xz")),
        Source("film words", 0.3, _words("freqwords_ko_50k.txt", 0.5), words=True),
    ),
}


def text_of(source: Source, data: Path, wanted: str) -> kneser_ney.Text:
    """The lines (or words) of one part of a source. Those with characters outside the vocabulary are left out."""
    pieces, times = [], []
    for number, text, count in source.read(data):
        if part(number) != wanted:
            continue
        if source.words:
            found = [characters.encode(text)]
        else:
            # The manner must not depend on the number that decides the part.
            found = [kneser_ney.line(line) for line in lines_of(text, zlib.crc32(text.encode()) % 3)]
        for piece in found:
            if len(piece) > 1 and not (piece == UNKNOWN).any():
                pieces.append(piece)
                times.append(count)
    return kneser_ney.Text.of(pieces, times, [source.weight] * len(pieces))


def make(data: Path, language: str, order: int, keep: int) -> tuple[LanguageModel, dict[str, float]]:
    """The language model, and its perplexity on the held-out lines of each source."""
    sources = SOURCES[language]
    train = kneser_ney.Text.join([text_of(source, data, "train") for source in sources])
    estimated = kneser_ney.estimate(train, order)
    model = kneser_ney.finish(estimated, kneser_ney.prune(estimated, keep))
    held_out = {source.name: text_of(source, data, "dev") for source in sources}
    return model, {
        name: kneser_ney.perplexity(model, text) for name, text in held_out.items() if len(text.labels)
    }


def publish(model: LanguageModel, language: str, perplexities: dict[str, float], folder: Path) -> Path:
    """Write `lm.LANGUAGE.npz` and its record into a folder. Returns the path of the model."""
    path = folder / f"lm.{language}.npz"
    model.save(path)
    record = weights.Weights(
        name=f"lm.{language}",
        file=path.name,
        sha256="",
        licence=LICENCE,
        training_data="the shared texts and word lists, lines n % 20 > 1 (sources and files: corpus.SOURCES), with weights: "
        + ", ".join(f"{source.name} {source.weight:g}" for source in SOURCES[language]),
        command=f"runs/subtitles_language.sh (python -m tamis.subtitles.corpus DATA {language} -o FOLDER)",
        preprocessing={"fold": "tamis.subtitles.characters.fold"},
        vocabulary=f"tamis.subtitles.characters.classes(), {len(model.alphabet)} of them seen",
        score={
            f"perplexity, {name}, lines n % 20 == 1": round(value, 2) for name, value in perplexities.items()
        },
    )
    weights.publish(record, folder)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the language model of one language.")
    parser.add_argument("data", type=Path, help="folder with text/ and words/")
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("-o", "--output", type=Path, help="folder for the model and its record")
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--keep", type=int, default=1_000_000, help="n-grams above order 1 to keep")
    arguments = parser.parse_args()
    model, perplexities = make(arguments.data, arguments.language, arguments.order, arguments.keep)
    for name, value in perplexities.items():
        print(f"{arguments.language}, {name}: perplexity {value:.2f}")
    if arguments.output:
        path = publish(model, arguments.language, perplexities, arguments.output)
        print(f"{path.name}: {len(model.keys)} n-grams, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
