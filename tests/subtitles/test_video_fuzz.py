"""Damaged files give frames or a sentence, never a crash, a hang or a flood of memory.

pytest tests/subtitles/test_video_fuzz.py
TAMIS_FUZZ=500 pytest tests/subtitles/test_video_fuzz.py    more damage per container format
"""

import os
import random
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("TAMIS_FUZZ", "20"))
EXTREMES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00010000]
MOST_MEMORY = 3 << 30  # address space: libraries alone map about 1 GiB
SECONDS_PER_FILE = 4


def damaged(data: bytes, dice: random.Random) -> bytes:
    """The file after one accident; half of them strike the first kilobyte, where headers are."""
    out = bytearray(data)
    place = dice.randrange(min(len(out), 1024) if dice.random() < 0.5 else len(out))
    length = dice.randrange(1, 400)
    match dice.randrange(6):
        case 0:
            for _ in range(dice.randrange(1, 40)):
                out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
        case 1:
            out[place : place + length] = bytes(length)
        case 2:
            del out[place : place + length]
        case 3:
            out[place:place] = out[place : place + length]
        case 4:
            out[place : place + 4] = dice.choice(EXTREMES).to_bytes(4, dice.choice(["big", "little"]))
        case 5:
            del out[place:]
    return bytes(out)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_damaged_files_give_frames_or_a_sentence(tmp_path, ending):
    from films import film

    options = {"movflags": "faststart"} if ending == "mp4" else {}
    whole = film(
        tmp_path / f"whole.{ending}", range(25), time_base=Fraction(1, 25), container_options=options
    )
    data = whole.read_bytes()
    whole.unlink()
    for seed in range(ROUNDS):
        (tmp_path / f"{seed:04d}.{ending}").write_bytes(damaged(data, random.Random(seed)))
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30 + SECONDS_PER_FILE * ROUNDS,
    )
    outcomes = done.stdout.splitlines()
    assert done.returncode == 0, f"{outcomes[-1:]} {done.stderr[-2000:]}"
    assert len(outcomes) == ROUNDS
    assert any(
        outcome.endswith(" 25 frames") for outcome in outcomes
    )  # the test can read sound frames at all


def read_all(folder: Path) -> None:
    from tamis.errors import TamisError
    from tamis.subtitles.video import open_video

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for path in sorted(folder.iterdir()):
        print(path.name, end=" ", flush=True)
        try:
            with open_video(path, threads=2) as video:
                count, before = 0, Fraction(-1)
                for frame in video.frames():
                    assert frame.luma.shape == (video.height, video.width)
                    assert frame.time > before and frame.duration > 0
                    count, before = count + 1, frame.time
            print(count, "frames", flush=True)
        except TamisError as error:
            assert str(error).endswith(".")
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
