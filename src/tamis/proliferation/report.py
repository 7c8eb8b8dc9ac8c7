"""report.html: one page about one slide, whole in one file.

The scores with their intervals; the slide with the tissue that was searched, the mitoses and the hot spot; the likeliest
mitoses as pictures; what was not read; and what made it. Pictures are inside the page, so that it can be sent alone.
"""

from __future__ import annotations

import base64
import html
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.outputs import DENSITY_SIGMA_UM, density_picture
from tamis.proliferation.score import SlideScore

if TYPE_CHECKING:
    from tamis.slides import Slide

Pixels = NDArray[np.uint8]
LIKELIEST = 30
OVERVIEW_PX = 760
CROP_UM, CROP_PX = 32.0, 128
COARSE_UM_PER_PX = 0.3  # between a 40x and a 20x scan
HOT, SEARCHED, TISSUE = (255, 176, 0), (40, 90, 160), (30, 120, 60)
MITOSIS = (200, 0, 40)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a2330; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.purpose { color: #a02010; margin: .2rem 0 1.5rem; }
.scores { display: grid; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr)); gap: 1rem; }
.score { border: 1px solid #ccd3dc; border-radius: .5rem; padding: .7rem 1.1rem; }
.score b { display: block; font-size: 2rem; line-height: 1.2; } .score span { color: #556; font-size: .9rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; align-items: start; }
.maps img { max-width: 100%; max-height: 44rem; border: 1px solid #ccd3dc; } figure { margin: 0; }
.maps .scale { width: 9rem; height: .8em; border: 0; margin: 0 .4em; vertical-align: -.05em; }
figcaption { font-size: .85rem; color: #445; max-width: 60rem; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .9em; border: 2px solid; vertical-align: -.05em; }
.cells { display: grid; grid-template-columns: repeat(auto-fill, 8rem); gap: .6rem; max-width: 52rem; }
.cells img { width: 8rem; height: 8rem; display: block; }
.cells figcaption { text-align: center; } .hot figcaption { font-weight: 600; }
table { border-collapse: collapse; font-size: .9rem; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
td:first-child { color: #556; white-space: nowrap; } td { overflow-wrap: anywhere; }
"""


def page(slide: Slide, found: SlideScore, record: dict[str, Any], density: NDArray[np.float32]) -> str:
    """The page as HTML. `record` is what score.json holds."""
    title = html.escape(str(record["slide"]))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}: proliferation</title><style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><p class='purpose'>{html.escape(record['purpose'])}</p>",
        _scores(found, record),
        _maps(slide, found, density),
        _cells(slide, found),
        _not_read(found, slide.um_per_px),
        _made_with(record),
        "</body></html>",
    ]
    return "\n".join(parts)


def _scores(found: SlideScore, record: dict[str, Any]) -> str:
    low, high = found.interval
    lowest, highest = found.mitotic_score_interval
    area = found.counted_mm2
    boxes = [
        (
            "Mitotic score",
            str(found.mitotic_score),
            f"preset {found.grading.name}; {_range(lowest, highest)} at the ends of the count's interval",
        ),
        (
            f"Mitoses in {area:.3g} mm²",
            str(found.count),
            f"95 % interval {low:.1f} to {high:.1f} (of a fixed window)",
        ),
        ("Mitoses per mm²", f"{found.per_mm2:.1f}", f"95 % interval {low / area:.1f} to {high / area:.1f}"),
    ]
    for task, predicted in record["predicted"].items():
        name = {"mitotic_score": "Mitotic score (SVM)", "pam50_proliferation": "PAM50 proliferation"}[task]
        told = html.escape(predicted["model"])
        if predicted["low"] is not None:
            told = f"{predicted['low']:.2f} to {predicted['high']:.2f} by 95 % of the errors in cross-validation; {told}"
        value = f"{predicted['value']:.0f}" if task == "mitotic_score" else f"{predicted['value']:.2f}"
        boxes.append((name, value, told))
    cards = [
        f"<div class='score'><span>{name}</span><b>{value}</b><span>{told}</span></div>"
        for name, value, told in boxes
    ]
    return f"<div class='scores'>{''.join(cards)}</div>"


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _maps(slide: Slide, found: SlideScore, density: NDArray[np.float32]) -> str:
    plain = _fit(slide.thumbnail(max_px=OVERVIEW_PX), OVERVIEW_PX)
    heat, scale = (
        _heat(plain, found, density),
        density_picture(np.linspace(0, 1, 128, dtype=np.float32)[None]),
    )
    keys = "".join(
        f"<span class='key' style='border-color:rgb{colour}'></span>{name}"
        for colour, name in (
            (HOT, "hot spot"),
            (SEARCHED, "searched"),
            (TISSUE, "tissue"),
            (MITOSIS, "mitosis"),
        )
        if not (name == "searched" and found.whole is None)
    )
    overview = _overview(plain, slide.size_um[0], found)
    return (
        "<h2>Where</h2><div class='maps'>"
        f"<figure><img alt='The slide with its hot spot' src='{_jpeg(overview)}'><figcaption>{keys}</figcaption></figure>"
        f"<figure><img alt='Density of mitoses' src='{_jpeg(heat)}'><figcaption>Mitoses per mm²: 0"
        f"<img class='scale' alt='colours' src='{_png(scale)}'>{float(density.max()):.1f}, smoothed over "
        f"{DENSITY_SIGMA_UM:.0f} µm</figcaption></figure></div>"
    )


def _heat(plain: Pixels, found: SlideScore, density: NDArray[np.float32]) -> Pixels:
    """The density in colours on the tissue of the slide, which is grey."""
    size = plain.shape[1], plain.shape[0]
    grey = cv2.cvtColor(cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    smooth = cv2.resize(density, size, interpolation=cv2.INTER_LINEAR)
    tissue = cv2.resize(found.tissue[0].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    seen = smooth / max(float(density.max()), 1e-9)
    strength = (0.75 * np.clip(3 * seen, 0, 1) * tissue)[..., None]
    return np.round(grey * (1 - strength) + density_picture(smooth) * strength).astype(np.uint8)


def _overview(plain: Pixels, width_um: float, found: SlideScore) -> Pixels:
    """The slide, small [h, w, 3], with outlines and marks."""
    picture = plain.copy()
    scale = picture.shape[1] / width_um  # px per um

    def px(x_um: float, y_um: float) -> tuple[int, int]:
        return round(x_um * scale), round(y_um * scale)

    size = picture.shape[1], picture.shape[0]
    for mask, colour, thickness in ((found.tissue[0], TISSUE, 1), (found.searched, SEARCHED, 2)):
        resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(resized, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, outlines, -1, colour, thickness)
    radius = 3 if len(found.mitoses) <= 100 else 2 if len(found.mitoses) <= 400 else 1
    for mitosis in found.mitoses:
        cv2.circle(picture, px(mitosis.x_um, mitosis.y_um), radius, MITOSIS, -1, cv2.LINE_AA)
    if (spot := found.hot_spot) is not None:
        half = spot.size_um / 2
        if spot.shape == "square":
            low, high = px(spot.x_um - half, spot.y_um - half), px(spot.x_um + half, spot.y_um + half)
            # Drawn inside the picture also where the window is wider than the slide.
            low, high = (
                (max(low[0], 1), max(low[1], 1)),
                (min(high[0], size[0] - 2), min(high[1], size[1] - 2)),
            )
            cv2.rectangle(picture, low, high, HOT, 3)
        else:
            cv2.circle(picture, px(spot.x_um, spot.y_um), round(half * scale), HOT, 3, cv2.LINE_AA)
    return picture


def _cells(slide: Slide, found: SlideScore) -> str:
    """The likeliest mitoses, 32 um wide, those of the hot spot in bold. What states no probability was marked as certain."""
    likeliest = sorted(found.mitoses, key=lambda m: -_told(m.probability, 1.0))[:LIKELIEST]
    if not likeliest:
        return "<h2>Mitoses</h2><p>No mitosis was found.</p>"
    um_per_px = CROP_UM / CROP_PX
    figures = []
    for mitosis in likeliest:
        x_um, y_um = mitosis.x_um - CROP_UM / 2, mitosis.y_um - CROP_UM / 2
        crop = slide.read_region(x_um, y_um, CROP_PX, CROP_PX, um_per_px)
        hot = " class='hot'" if _in_hot_spot(found, mitosis.x_um, mitosis.y_um) else ""
        certainty = "marked" if math.isnan(mitosis.probability) else f"{mitosis.probability:.0%}"
        place = f"{mitosis.x_um / 1000:.2f}, {mitosis.y_um / 1000:.2f} mm"
        figures.append(
            f"<figure{hot}><img alt='Cell at {place}' title='{place}' src='{_jpeg(crop)}'>"
            f"<figcaption>{certainty}</figcaption></figure>"
        )
    ranked = any(not math.isnan(mitosis.probability) for mitosis in likeliest)
    head = f"The {len(likeliest)} likeliest of" if ranked else f"{len(likeliest)} of"
    head += f" {len(found.mitoses)} mitoses"
    note = f"<p>Each picture is {CROP_UM:.0f} µm wide. Bold: inside the hot spot.</p>"
    return f"<h2>{head}</h2>{note}<div class='cells'>{''.join(figures)}</div>"


def _told(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def _in_hot_spot(found: SlideScore, x_um: float, y_um: float) -> bool:
    spot = found.hot_spot
    if spot is None:
        return False
    dx, dy, half = abs(x_um - spot.x_um), abs(y_um - spot.y_um), spot.size_um / 2 + 1e-3
    return max(dx, dy) <= half if spot.shape == "square" else math.hypot(dx, dy) <= half


def _search(found: SlideScore) -> list[str]:
    """What was searched, in sentences."""
    if found.whole is None:
        return ["Positions were given; what was looked at to find them is not known, nor what was left out."]
    left = max(0.0, found.tissue_mm2 - found.searched_mm2)
    return [
        f"Searched: {found.searched_mm2:.2f} mm² of {found.tissue_mm2:.2f} mm² of tissue"
        + ("." if found.whole else f", in the {len(found.regions)} regions that hold most cells."),
        f"Not searched: {left:.2f} mm² of tissue"
        + ("; a hot spot there would be missed." if left >= 0.005 else "; everything was looked at."),
    ]


def _not_read(found: SlideScore, um_per_px: float) -> str:
    told = _search(found)
    who = "the detector" if found.whole is not None else "whoever marked the mitoses"
    verbs = ("misses", "invents") if found.whole is not None else ("missed", "invented")
    told.append(
        "The interval of the count is a Poisson interval, that of a window fixed beforehand. Mitoses that "
        f"{who} {verbs[0]} or {verbs[1]} are not in it, nor that the hot spot was chosen as the fullest of all windows."
    )
    if found.even is not None:
        mean, low, high = found.even
        told.append(
            f"{len(found.mitoses)} mitoses lying evenly over the searched tissue, {found.per_searched_mm2:.2f} per mm², "
            f"would have a hot spot of {mean:.1f} (95 %: {low:.0f} to {high:.0f}), and the slide's holds {found.count}: "
            + ("more than chance gathers." if found.count > high else "no more than chance gathers.")
        )
    if any("mitotic_score" in model.preprocessing.get("features", []) for model in found.models):
        told.append(
            "The PAM50 model was fitted to pathologists' mitotic scores: its interval holds its own errors, and none of the "
            "detector's."
        )
    if um_per_px > COARSE_UM_PER_PX and "sha256" in found.detector:
        told.append(
            f"The slide was scanned at {um_per_px:.2f} µm per pixel; the detector learned at 0.25. At this scale its "
            "figures do not hold: expect more mistakes."
        )
    if found.tissue_mm2 < found.grading.area_mm2:
        told.append(
            f"The slide holds less tissue than the {found.grading.area_mm2:.2f} mm² that the score is defined for: "
            "the count, and so the score, is too low; the density is per mm² of its tissue."
        )
    return "<h2>What was not read</h2><ul>" + "".join(f"<li>{line}</li>" for line in told) + "</ul>"


def _made_with(record: dict[str, Any]) -> str:
    provenance = record["provenance"]
    detector = provenance["detector"]
    threshold = f", threshold {detector['threshold']:.3f}" if "threshold" in detector else ""
    rows = [
        ("Tamis", provenance["tamis"]),
        ("Reader", provenance["reader"]),
        ("Resolution", f"{provenance['um_per_px']:.4f} µm per pixel, {' x '.join(map(str, provenance['size_px']))} px"),
        ("Slide, SHA-256", provenance["input_sha256"]),
        ("Mitoses found by", f"{detector['name']}{threshold}"),
        *[("Model", f"{model['name']} ({model['licence']})") for model in provenance["models"]],
        ("Seconds", ", ".join(f"{step} {seconds:.1f}" for step, seconds in provenance["seconds"].items())),
    ]  # fmt: skip
    cells = "".join(f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
    return f"<h2>Made with</h2><table>{cells}</table>"


def _fit(picture: Pixels, longest: int) -> Pixels:
    scale = longest / max(picture.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=how))


def _jpeg(picture: Pixels) -> str:
    return _data(".jpg", "jpeg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def _png(picture: Pixels) -> str:
    return _data(".png", "png", picture, [])


def _data(ending: str, kind: str, picture: Pixels, options: list[int]) -> str:
    _, content = cv2.imencode(ending, picture[..., ::-1], options)
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
