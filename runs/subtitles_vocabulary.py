"""Write the Han characters of the vocabulary, from the official lists. Run: python runs/subtitles_vocabulary.py DATA

DATA is the folder that holds `subtitles/charlists/`. The result is src/tamis/subtitles/hanzi.txt.
"""

import sys
from pathlib import Path

LISTS = ("gb2312_hanzi_6763", "tgscc_8105", "big5_hanzi", "jisx0208_kanji")


def is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or ord(character) >= 0x20000


def main() -> None:
    folder = Path(sys.argv[1]) / "subtitles" / "charlists"
    characters = {
        c for name in LISTS for c in (folder / f"{name}.txt").read_text(encoding="utf-8") if is_han(c)
    }
    ordered = "".join(sorted(characters))
    rows = [ordered[i : i + 64] for i in range(0, len(ordered), 64)]
    target = Path(__file__).parent.parent / "src" / "tamis" / "subtitles" / "hanzi.txt"
    target.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(ordered)} characters -> {target.name}")


if __name__ == "__main__":
    main()
