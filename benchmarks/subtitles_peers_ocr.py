"""Run a peer's OCR over frames of a video: subtitles_peers_ocr.py ppocr|tesseract VIDEO OUT.json [--language zh-hans]

Started by subtitles_peers.py with the interpreter of the peers' own environment, since their packages are none of
Tamis's. Four frames a second. Writes

    {"interval_s", "cpu_s", "frames": [{"time_s", "lines": [{"text", "score", "box": [left, top, right, bottom]}]}]}

PP-OCRv6 small sees the whole frame with `Det.limit_type=max`, its longest side at most 1280: by default RapidOCR would
enlarge it, at three to six times the CPU and without better text; at 736 it costs 0.4 of that and loses commas. Tesseract is
told the language and given what suits it best: the lower part of the frame, white letters made black on white.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

RATE = 4.0  # frames a second, as the peers' users are advised
TESSERACT = {
    "zh-hans": "chi_sim",
    "zh-hant": "chi_tra",
    "ja": "jpn",
    "ko": "kor",
    "none": "chi_sim",
    "": "chi_sim",
}
WHITE = 215  # grey level above which Tesseract's binarisation takes a pixel for a letter
LOWER = 0.6  # Tesseract sees the frame from this share of its height down


def sampled(video: str) -> Iterator[tuple[float, Any]]:
    """(seconds, BGR frame), four a second."""
    capture = cv2.VideoCapture(video)
    due = 0.0
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if time + 1e-6 < due:
            continue
        due = max(due + 1 / RATE, time - 1 / RATE)
        ok, frame = capture.retrieve()
        if ok:
            yield time, frame


class PaddleOcr:
    def __init__(self, side: int) -> None:
        from rapidocr import RapidOCR

        # One thread: more only spin, which would be counted as CPU time.
        self.engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.use_cls": False,
                "Global.text_score": 0.3,
                "Det.limit_type": "max",
                "Det.limit_side_len": side,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def __call__(self, frame: Any) -> list[dict[str, Any]]:
        found = self.engine(frame)
        if found.boxes is None:
            return []
        lines = []
        for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            xs, ys = [float(p[0]) for p in box], [float(p[1]) for p in box]
            lines.append({"text": text, "score": float(score), "box": [min(xs), min(ys), max(xs), max(ys)]})
        return lines


class Tesseract:
    def __init__(self, language: str) -> None:
        self.command = ["tesseract", "stdin", "stdout", "-l", TESSERACT[language], "--psm", "6", "tsv"]
        self.spaced = language == "ko"
        self.environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}

    def __call__(self, frame: Any) -> list[dict[str, Any]]:
        top = int(LOWER * frame.shape[0])
        grey = cv2.cvtColor(frame[top:], cv2.COLOR_BGR2GRAY)
        black_on_white = cv2.threshold(grey, WHITE, 255, cv2.THRESH_BINARY_INV)[1]
        png = cv2.imencode(".png", black_on_white)[1].tobytes()
        told = subprocess.run(self.command, input=png, capture_output=True, check=True, env=self.environment)
        lines: dict[tuple[str, ...], list[list[str]]] = {}
        for row in told.stdout.decode().splitlines()[1:]:
            fields = row.split("\t")
            if len(fields) == 12 and fields[11].strip() and float(fields[10]) >= 0:
                lines.setdefault(tuple(fields[1:5]), []).append(fields)
        return [self._line(words, top) for words in lines.values()]

    def _line(self, words: list[list[str]], top: int) -> dict[str, Any]:
        boxes = [[int(v) for v in w[6:10]] for w in words]  # left, top, width, height
        left, upper = min(b[0] for b in boxes), min(b[1] for b in boxes) + top
        right, lower = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes) + top
        text = (" " if self.spaced else "").join(w[11] for w in words)
        score = sum(float(w[10]) for w in words) / len(words) / 100
        return {"text": text, "score": score, "box": [left, upper, right, lower]}


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=["ppocr", "tesseract"])
    parser.add_argument("video")
    parser.add_argument("out", type=Path)
    parser.add_argument("--language", default="zh-hans", choices=sorted(TESSERACT))
    parser.add_argument("--side", type=int, default=1280, help="longest side that the detector sees")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    engine = PaddleOcr(options.side) if options.engine == "ppocr" else Tesseract(options.language)
    before = cpu_seconds()
    frames = [{"time_s": time, "lines": engine(frame)} for time, frame in sampled(options.video)]
    record = {"interval_s": 1 / RATE, "cpu_s": cpu_seconds() - before, "frames": frames}
    options.out.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
