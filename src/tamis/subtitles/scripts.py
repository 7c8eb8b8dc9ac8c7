"""Which characters a language is written with, and which language a text is written in.

`scripts.txt` holds, for each language, every character of its script that the vocabulary knows, commonest first (as the
alphabets of the language models are). Latin letters, digits and punctuation belong to all of them. So Simplified text
never shows a Traditional form, nor the other way round; a form that both use (后 里 台 干 了 着) is in both.

    python -m tamis.subtitles.scripts DATA      make scripts.txt again: DATA is the folder with charlists/, text/, words/

needs the package opencc and the language models; reading text needs neither.
"""

from __future__ import annotations

import argparse
import lzma
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamis.errors import UsageError
from tamis.subtitles import characters
from tamis.subtitles.language import LANGUAGES, LanguageModel
from tamis.subtitles.lattice import Lattice

# Zipf's law for characters: the r-th commonest has a share of about 1 / (r + 20) (Mandelbrot's shift).
ZIPF_SHIFT = 20
FOREIGN = 1e-7  # share of a character that the language is not written with: a misread one, say
EVIDENCE = 0.5  # neighbouring characters are not independent: each counts for half a one


@cache
def script(language: str) -> str:
    """The characters of one language, commonest first. Raises `UsageError` for an unknown language."""
    if language not in LANGUAGES:
        raise UsageError(f"The language is {language!r}; use one of {', '.join(LANGUAGES)}.")
    return _scripts()[language]


@cache
def _scripts() -> dict[str, str]:
    lines = resources.files(__package__).joinpath("scripts.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


@cache
def allowed(language: str) -> NDArray[np.bool_]:
    """Classes that a text in this language may have, [number of classes] (read-only)."""
    mask = np.zeros(len(characters.classes()), bool)
    mask[characters.numbers_of(script(language) + characters.ASCII + characters.PUNCTUATION)] = True
    mask.flags.writeable = False
    return mask


@cache
def common(number: int = 2500) -> NDArray[np.bool_]:
    """The commonest characters of every script, with Latin and punctuation: classes [number of classes] (read-only)."""
    mask = np.zeros(len(characters.classes()), bool)
    for language in LANGUAGES:
        mask[characters.numbers_of(script(language)[:number])] = True
    mask[characters.numbers_of(characters.ASCII + characters.PUNCTUATION)] = True
    mask.flags.writeable = False
    return mask


def zipf(number: int) -> NDArray[np.float64]:
    """The shares in a text of this many characters, commonest first."""
    weight = 1 / (np.arange(number) + ZIPF_SHIFT)
    share: NDArray[np.float64] = weight / weight.sum()
    return share


@cache
def shares() -> NDArray[np.float64]:
    """Share of each class in a text of each language, [languages, number of classes]; 0 for Latin and punctuation."""
    table = np.full((len(LANGUAGES), len(characters.classes())), FOREIGN)
    for row, language in enumerate(LANGUAGES):
        labels = characters.numbers_of(script(language))
        table[row, labels] = zipf(len(labels))
    table[:, characters.numbers_of(characters.ASCII + characters.PUNCTUATION)] = 0
    return table


def detect_language(read: Iterable[Lattice | str]) -> tuple[str, float]:
    """The language of some lines, of their lattices or their text, and its posterior probability.

    Every candidate gives its evidence in proportion to the probability that it is a character at all; Latin letters,
    digits and punctuation give none. Without any evidence the probability is 1 / 4.
    """
    evidence = np.zeros(len(LANGUAGES))
    for line in read:
        evidence += _evidence_of_text(line) if isinstance(line, str) else _evidence_of_lattice(line)
    posterior = np.exp(EVIDENCE * (evidence - evidence.max()))
    posterior /= posterior.sum()
    best = int(posterior.argmax())
    return LANGUAGES[best], float(posterior[best])


def _evidence_of_text(text: str) -> NDArray[np.float64]:
    labels = characters.encode(text)
    share = shares()[:, labels[labels >= 0]]
    evidence: NDArray[np.float64] = np.log(share[:, share.any(axis=0)]).sum(axis=1)
    return evidence


def _evidence_of_lattice(lattice: Lattice) -> NDArray[np.float64]:
    if len(lattice) == 0:
        return np.zeros(len(LANGUAGES))
    share = shares()[:, lattice.labels]  # [languages, n, k]
    tells = share.any(axis=0)
    probability = np.where(tells, np.exp(lattice.log_class.astype(float)), 0)  # [n, k]
    telling = probability.sum(axis=1)
    weight = np.exp(lattice.log_centre.astype(float)) * np.minimum(telling, 1)
    mixed = (share * probability).sum(axis=2) / np.maximum(telling, 1e-9) + FOREIGN
    evidence: NDArray[np.float64] = (weight * np.log(mixed)).sum(axis=1)
    return evidence


def _make(data: Path, models: Path) -> dict[str, str]:
    """The characters of each language, from character tables, OpenCC's tables and what texts really use."""
    vocabulary = set(characters.hanzi())
    table = {
        path.stem: set(path.read_text(encoding="utf-8").split())
        for path in (data / "charlists").glob("*.txt")
    }
    to_traditional, to_simplified = _opencc("STCharacters"), _opencc("TSCharacters")
    standard = {
        form for name in ("TWVariants", "HKVariants") for forms in _opencc(name).values() for form in forms
    }
    simplified_only = {c for c in vocabulary if c in to_traditional and c not in to_traditional[c]}
    traditional_only = {c for c in vocabulary if c in to_simplified and c not in to_simplified[c]}
    seen, entries = _usage(data)
    # Big 5 holds some Simplified forms as rare characters of their own (体 机 听): only those that Traditional texts
    # or dictionaries use are kept (床 群 晒), or that are the standard form there.
    kept = {
        c
        for c in simplified_only
        if c in standard
        or entries[c] >= 4
        or seen[c] >= max(10, 0.01 * sum(seen[form] for form in to_traditional[c]))
    }
    used = {c for c in vocabulary - simplified_only if seen[c] >= 12}  # 裏 爲 and others that Big 5 lacks
    wanted = {
        "zh-hans": table["tgscc_8105"] | (table["gb2312_hanzi_6763"] - traditional_only) | set("囧〇"),
        "zh-hant": table["big5_hanzi"] - (simplified_only - kept) | used | set("〇着" + characters.BOPOMOFO),
        "ja": table["jisx0208_kanji"] | set(characters.KANA),
        "ko": _hanja() | set(characters.classes()[-characters.HANGUL_COUNT :]) | set(characters.JAMO),
    }  # fmt: skip
    return {
        language: _by_frequency(found, LanguageModel.load(models / f"lm.{language}.npz"))
        for language, found in wanted.items()
    }


def _opencc(name: str) -> dict[str, Sequence[str]]:
    """One of OpenCC's tables: a form and the forms it turns into."""
    import opencc

    text = (Path(opencc.__file__).parent / "dictionary" / f"{name}.txt").read_text(encoding="utf-8")
    return {line.split("\t")[0]: line.split("\t")[1].split() for line in text.splitlines() if "\t" in line}


def _usage(data: Path) -> tuple[Counter[str], Counter[str]]:
    """How often Traditional training text has each character, and in how many dictionary words it stands."""
    seen: Counter[str] = Counter()
    with lzma.open(data / "text" / "zh_hant.txt.xz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number % 20 > 1:
                seen.update(line)
    entries: Counter[str] = Counter()
    for line in (data / "words" / "rime_essay.txt").read_text(encoding="utf-8").splitlines():
        entries.update(line.split("\t")[0])
    return seen, entries


def _hanja() -> set[str]:
    """The 4,888 Han characters of KS X 1001, by the codec."""
    pairs = (bytes([row, cell]) for row in range(0xCA, 0xFE) for cell in range(0xA1, 0xFF))
    return {characters.fold(pair.decode("euc_kr", errors="ignore")) for pair in pairs} - {""}


def _by_frequency(wanted: Iterable[str], model: LanguageModel) -> str:
    rank = {character: number for number, character in enumerate(model.alphabet)}
    known = set(wanted) & set(characters.classes())
    return "".join(sorted(known, key=lambda character: (rank.get(character, len(rank)), character)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the table of scripts.")
    parser.add_argument("data", type=Path, help="folder with charlists/, text/ and words/")
    here = Path(__file__).parent
    parser.add_argument("--models", type=Path, default=here / "weights", help="folder of the language models")
    parser.add_argument("-o", "--output", type=Path, default=here / "scripts.txt")
    arguments = parser.parse_args()
    made = _make(arguments.data, arguments.models)
    arguments.output.write_text(
        "".join(f"{language}\t{found}\n" for language, found in made.items()), encoding="utf-8"
    )
    for language, found in made.items():
        print(f"{language}: {len(found)} characters")


if __name__ == "__main__":
    main()
