"""Turn the trained detector into the files that ship, with the figures measured on cases that nothing was trained or tuned on.

    python -m tamis.proliferation.publish_mitosis --work work/mitosis

Two checkpoints become one network that averages their probabilities. The threshold is the one of best F1 on validation cases,
mitoses against the darkest third of mined nuclei and all expert look-alikes, or the one given, fixed on composed validation
slides, as is the candidates' bound. The test cases are looked at once, after both are fixed. Writes mitosis.lite0 and
mitosis.candidates below src/tamis/proliferation/weights, and WORK/scores.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from tamis.agreement import Estimate, bootstrap
from tamis.errors import TrainingError
from tamis.proliferation.candidates import CandidateScorer
from tamis.proliferation.compose import WHOLE_PX
from tamis.proliferation.detect import CANDIDATES, FOLDER, NETWORK, Detector
from tamis.proliferation.fields import DARKEST_THIRD, PARTS, SPLIT_SEED, Field, part_of, read_fields
from tamis.proliferation.networks import MitosisNetwork
from tamis.proliferation.stain import haematoxylin
from tamis.proliferation.train_candidates import THRESHOLDS, curve
from tamis.proliferation.train_glance import composed_validation
from tamis.proliferation.train_mitosis import network_of
from tamis.proliferation.windows import setting, window
from tamis.training import load_weights
from tamis.weights import Weights, publish, sha256_of

LEAST_LOG_ODDS, THOROUGH_LOG_ODDS = 0.0, -4.0  # without a choice on a curve
PARTS_TOO = "test, parts too"
TOLERANCE = 1e-3  # of a probability
LICENCE = (
    "research use only: trained on TUPAC16 and ICPR 2012 challenge pixels, which are for research; "
    "MIDOG 2021 pixels are CC0; the trunk starts from EfficientNet-Lite0 (Apache-2.0)"
)
TRAINED_ON = (
    "AMi-Br patches (MIDOG 2021, TUPAC16 auxiliary set) and ICPR 2012 crops of the cases that "
    f"tamis.proliferation.fields.split_cases(seed={SPLIT_SEED}) calls train. Cite AMi-Br (Bertram 2025), MIDOG++ "
    "(Aubreville 2023), TUPAC16 (Veta 2019), ICPR 2012 (Roux 2013)"
)


class Exported(nn.Module):
    """uint8 [B, H, W, 3] -> probabilities [B, H / 16 - 7, W / 16 - 7], the mean over the networks."""

    def __init__(self, networks: Sequence[MitosisNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).float()
        chances = [torch.sigmoid(network(planes)) for network in self.networks]
        return cast(Tensor, sum(chances) / len(chances))


@dataclass(frozen=True)
class Scored:
    """One nucleus of a held-out case. `kind`: mitosis, mined, darkest (mined too), expert or whole (an expert's too)."""

    case: str
    kind: str
    probability: float
    darkness: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="publish_mitosis", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"))
    parser.add_argument("--checkpoint", nargs="+", default=["second"])
    parser.add_argument(
        "--average",
        nargs=2,
        metavar=("FILE", "SHARE"),
        help="mix in so much of the weights that the checkpoint was trained on from",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="fixed on composed validation slides, where mitoses are rarer than among the labelled nuclei",
    )
    parser.add_argument(
        "--field-threshold", type=float, help="for pictures of at most 0.3 mm2 (default: the same)"
    )
    parser.add_argument("--least", type=float, default=LEAST_LOG_ODDS, help="log-odds of the candidates")
    parser.add_argument(
        "--windows-per-mm2", type=float, help="of stained tissue that the network sees at most (default: any)"
    )
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    networks = []
    for name in options.checkpoint:
        network = MitosisNetwork()
        network.load_state_dict(load_weights(options.work / f"{name}.pt"))
        if options.average:
            network = averaged(network, network_of(Path(options.average[0])), float(options.average[1]))
        networks.append(network.eval())
    content = to_onnx(networks)
    scorer_bytes = (options.work / "candidates.npz").read_bytes()
    scorer = CandidateScorer.load(scorer_bytes)
    fields = read_fields(options.data)
    made_from = [sha256_of(options.work / f"{name}.pt") for name in options.checkpoint]
    asked = [options.threshold, options.field_threshold, *(options.average or ())]
    kept = options.work / "scores.json"
    scores = json.loads(kept.read_text()) if kept.exists() else {}
    if (scores.get("checkpoints"), scores.get("asked")) != (made_from, asked):
        detector = Detector(content, scorer, 0.5, options.least)
        parts_too = part_of(read_fields(options.data, parts_too=True), "test")
        scores = _measured(detector, fields, options.threshold, options.field_threshold, parts_too)
        scores |= {"checkpoints": made_from, "asked": asked}
        kept.write_text(json.dumps(scores, indent=2))
    print(table(scores))
    sieves = candidates_score(part_of(fields, "validation"), scorer, options.least)
    if (options.work / "grounds").exists():
        composed = composed_validation(options.work, options.data)
        sieves["composed"] = candidates_score(composed, scorer, options.least)
    print(json.dumps(sieves))
    bounds = {"least_log_odds": options.least, "thorough_log_odds": min(options.least, THOROUGH_LOG_ODDS)}
    if options.windows_per_mm2 is not None:
        bounds["windows_per_mm2"] = options.windows_per_mm2
    point = {"threshold": scores["threshold"], "field_threshold": scores["field_threshold"]}
    _write(networks, content, scorer_bytes, scores, point, bounds, sieves, options.to, fields)


def averaged(network: MitosisNetwork, other: MitosisNetwork, share: float) -> MitosisNetwork:
    """The mean of both weights, `share` of the other's. One must have been trained on from the other."""
    mixed = MitosisNetwork()
    theirs = other.state_dict()
    mixed.load_state_dict(
        {name: (1 - share) * own + share * theirs[name] for name, own in network.state_dict().items()}
    )
    return mixed


def _measured(
    detector: Detector,
    fields: Sequence[Field],
    threshold: float | None,
    of_fields: float | None,
    parts_too: Sequence[Field],
) -> dict[str, Any]:
    """`parts_too`: the test fields with the negatives that may be parts of mitoses, as figures before 2026-11-26 had them."""
    validation = score_nuclei(detector, part_of(fields, "validation"))
    threshold = best_threshold(validation) if threshold is None else threshold
    of_fields = threshold if of_fields is None else of_fields
    test = score_nuclei(detector, part_of(fields, "test"))
    return {
        "threshold": threshold,
        "field_threshold": of_fields,
        "validation": figures(validation, of_fields, threshold),
        "test": figures(test, of_fields, threshold),
        PARTS_TOO: figures(score_nuclei(detector, parts_too), of_fields, threshold),
        "cases": {part: len({f.case for f in part_of(fields, part)}) for part in PARTS},
    }


def to_onnx(networks: Sequence[MitosisNetwork]) -> bytes:
    """The graph, any batch and size; kernels in single precision: 2.8 MB a network."""
    buffer = io.BytesIO()
    torch.onnx.export(
        Exported(networks).eval(),
        (torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8),),
        buffer,  # type: ignore[arg-type]
        input_names=["pixels"],
        output_names=["probability"],
        dynamic_axes={
            "pixels": {0: "n", 1: "height", 2: "width"},
            "probability": {0: "n", 1: "rows", 2: "columns"},
        },
        dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def score_nuclei(detector: Detector, fields: Sequence[Field], seed: int = 0) -> list[Scored]:
    """Every labelled nucleus, shown as in `windows`: neither the patch's edge nor its central mitosis tells anything."""
    generator = np.random.default_rng(seed)
    places = [(x, y) for f in fields for x, y, _ in f.mined] + [p for f in fields for p in f.lookalikes]
    windows, known = [], []
    for field in fields:
        height, width = field.pixels.shape[:2]
        rest = [(x, y, "mitosis") for x, y in field.mitoses]
        for x, y in field.lookalikes:
            whole = min(x, y, width - x, height - y) >= WHOLE_PX
            rest.append((x, y, "whole" if whole else "expert"))
        rest += [(x, y, "darkest" if rank >= DARKEST_THIRD else "mined") for x, y, rank in field.mined]
        for x, y, kind in rest:
            shown = setting(field, x, y, int(kind == "mitosis"), places, generator)
            windows.append(window(shown.pixels, x, y, shown.box))
            known.append((field, kind, x, y))
    chances = detector.probabilities(np.stack(windows))
    return [
        Scored(field.case, kind, float(p), _darkness(field, x, y))
        for (field, kind, x, y), p in zip(known, chances, strict=True)
    ]


def _darkness(field: Field, x: float, y: float) -> float:
    """Mean haematoxylin of the darkest tenth within 5 um: what the network has to beat."""
    half = 20
    part = field.pixels[max(0, round(y) - half) : round(y) + half, max(0, round(x) - half) : round(x) + half]
    values = np.sort(haematoxylin(part).ravel())
    return float(values[-max(1, len(values) // 10) :].mean())


def best_threshold(scored: Sequence[Scored]) -> float:
    """The threshold of best F1 of mitoses against the darkest third and expert look-alikes; of equals the middle."""
    chosen = [s for s in scored if s.kind != "mined"]
    steps = np.linspace(0.05, 0.95, 181)
    f1 = np.array([_f1(chosen, float(t)) for t in steps])
    return round(float(steps[f1 >= f1.max() - 0.002].mean()), 3)


NEGATIVES = {
    "mined": ("mined", "darkest"),
    "darkest third": ("darkest",),
    "expert": ("expert", "whole"),
    "whole expert": (
        "whole",
    ),  # at least 3 um inside their patch: of the others less than the nucleus is seen
}


def figures(scored: Sequence[Scored], threshold: float, of_slides: float | None = None) -> dict[str, Any]:
    """For each kind of negatives: AP, AUC, F1 at both thresholds, and AUC of darkness, with intervals over cases."""
    report: dict[str, Any] = {}
    for name, kinds in NEGATIVES.items():
        chosen = [s for s in scored if s.kind == "mitosis" or s.kind in kinds]
        if len({s.kind == "mitosis" for s in chosen}) < 2:
            continue
        cases = sorted({s.case for s in chosen})
        units = [[s for s in chosen if s.case == case] for case in cases]
        report[name] = {
            "mitoses": sum(s.kind == "mitosis" for s in chosen),
            "negatives": sum(s.kind != "mitosis" for s in chosen),
            "average_precision": _interval(units, lambda s: _ranked(average_precision_score, s)),
            "auc": _interval(units, lambda s: _ranked(roc_auc_score, s)),
            "auc_of_darkness": _interval(units, lambda s: _ranked(roc_auc_score, s, darkness=True)),
            "f1": _interval(units, lambda s: _f1(s, threshold)),
            "f1_of_slides": _interval(units, lambda s: _f1(s, threshold if of_slides is None else of_slides)),
        }
    return report


def table(scores: dict[str, Any]) -> str:
    lines = [
        f"threshold {scores['threshold']}, of fields {scores['field_threshold']} (validation); cases {scores['cases']}"
    ]
    for part in ("validation", "test", PARTS_TOO):
        for name, row in scores[part].items():
            shown = "  ".join(
                f"{key} {row[key]['value']:.3f} [{row[key]['low']:.3f}, {row[key]['high']:.3f}]"
                for key in ("average_precision", "f1", "f1_of_slides", "auc", "auc_of_darkness")
            )
            lines.append(f"{part:15} against {name:14} {row['mitoses']:4} : {row['negatives']:4}  {shown}")
    return "\n".join(lines)


def _interval(
    units: Sequence[Sequence[Scored]], statistic: Callable[[Sequence[Scored]], float]
) -> dict[str, float]:
    estimate: Estimate = bootstrap(
        units,
        lambda drawn: statistic([s for unit in drawn for s in unit]),
        generator=np.random.default_rng(0),
        resamples=200,
    )
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "cases": estimate.n}


def _ranked(
    score: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
    scored: Sequence[Scored],
    *,
    darkness: bool = False,
) -> float:
    labels = np.array([s.kind == "mitosis" for s in scored])
    if labels.all() or not labels.any():
        return float("nan")
    return float(score(labels, np.array([s.darkness if darkness else s.probability for s in scored])))


def _f1(scored: Sequence[Scored], threshold: float) -> float:
    taken = np.array([s.probability >= threshold for s in scored])
    real = np.array([s.kind == "mitosis" for s in scored])
    return 2 * int((taken & real).sum()) / max(1, int(taken.sum() + real.sum()))


def _write(
    networks: Sequence[MitosisNetwork],
    content: bytes,
    scorer: bytes,
    scores: dict[str, Any],
    point: dict[str, float],
    bounds: dict[str, float],
    sieves: dict[str, Any],
    folder: Path,
    fields: Sequence[Field],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    detector = Detector(content, CandidateScorer.load(scorer), point["threshold"], bounds["least_log_odds"])
    # A smooth drawing, not a real field: challenge pixels are not shipped.
    golden = golden_windows()
    real = np.stack([window(f.pixels, *f.mitoses[0]) for f in fields if f.mitoses][:16])
    for windows in (real, golden):
        with torch.no_grad():
            wanted = Exported(networks).eval()(torch.from_numpy(windows)).numpy()
        (output,) = detector.session.run(None, {"pixels": windows})
        if np.abs(output - wanted).max() > TOLERANCE:
            raise TrainingError(
                f"ONNX Runtime and PyTorch differ by {np.abs(output - wanted).max():.3f}; nothing was published."
            )
    (folder / f"{NETWORK}.onnx").write_bytes(content)
    np.savez(folder / f"{NETWORK}.golden.npz", input=golden, output=output)
    (folder / f"{CANDIDATES}.npz").write_bytes(scorer)
    compact = {
        name: {
            key: value if isinstance(value, int) else round(value["value"], 3) for key, value in row.items()
        }
        for name, row in scores["test"].items()
    }
    publish(
        Weights(
            NETWORK,
            f"{NETWORK}.onnx",
            "",
            LICENCE,
            TRAINED_ON,
            "runs/proliferation_mitosis.sh",
            {"window_px": 128, "pooled_px": 64, "input": "uint8 RGB [n, height, width, 3]", "mirrored": 4},
            point,
            um_per_px=0.25,
            score={"on": f"test cases of split_cases(seed={SPLIT_SEED})", **compact},
            golden=f"{NETWORK}.golden.npz",
        ),
        folder,
    )
    publish(
        Weights(
            CANDIDATES,
            f"{CANDIDATES}.npz",
            "",
            LICENCE,
            TRAINED_ON,
            "runs/proliferation_mitosis.sh",
            {
                "perceptron": "tamis.proliferation.candidates.samples_at",
                "glance": "tamis.proliferation.candidates.glances_at",
            },
            bounds,
            um_per_px=0.25,
            score=sieves,
        ),
        folder,
    )


def candidates_score(fields: Sequence[Field], scorer: CandidateScorer, least: float) -> dict[str, Any]:
    """Share of mitoses with a candidate within 7.5 um at both bounds, and other candidates per mm2."""
    kept, per_mm2 = curve(fields, scorer)
    bound, thorough = (int(np.abs(THRESHOLDS - t).argmin()) for t in (least, min(least, THOROUGH_LOG_ODDS)))
    return {
        "on": "validation cases, on which the bounds were chosen",
        "mitoses_kept": round(float(kept[bound]), 3),
        "mitoses_kept_thorough": round(float(kept[thorough]), 3),
        "others_per_mm2": round(float(per_mm2[bound]), 1),
        "others_per_mm2_thorough": round(float(per_mm2[thorough]), 1),
    }


def golden_windows() -> NDArray[np.uint8]:
    """[3, 128, 128, 3]: dark blobs on pink, drawn; their shapes make the outputs differ."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:128, :128]
    drawn = []
    for radius in (6.0, 11.0, 18.0):
        picture = np.full((128, 128, 3), (225, 170, 205), np.float64) + generator.normal(0, 4, (128, 128, 1))
        for at_x, at_y in [(64, 64), *generator.uniform(5, 123, (12, 2))]:
            inside = np.clip(radius - np.hypot((x - at_x) * 1.4, y - at_y), 0, 2)[..., None] / 2
            picture = picture * (1 - inside) + np.array([70, 40, 110]) * inside
        drawn.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(drawn)


if __name__ == "__main__":
    main()
