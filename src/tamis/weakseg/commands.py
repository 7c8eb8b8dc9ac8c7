"""Segment cancer from image labels.

The verbs of `tamis weakseg`: segment, check, train, evaluate, export. Light: what computes or trains is imported when a
verb runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis import __version__
from tamis.arguments import number_of_jobs, probability, um_per_px, whole_number
from tamis.batch import Item, Outcome, Told, plan, run
from tamis.errors import InputError
from tamis.processors import processors
from tamis.progress import Progress

if TYPE_CHECKING:
    from tamis.weakseg.network import Network

SAMPLES = Path(__file__).parent / "samples"
RECORD = ".summary.json"
SAMPLE_UM_PER_PX = 1.24
RECIPES = ("cdws", "cdws_thrice", "cdws_twice", "dws", "full", "mil")
"""Those of `recipe`, whose module needs PyTorch."""


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""
    segment = verbs.add_parser(
        "segment", parents=[common], help="image or slide -> map of cancer", description=_SEGMENT
    )
    _add_segment(segment)
    check = verbs.add_parser("check", parents=[common], help="say what is wrong with a dataset")
    check.add_argument("dataset", type=Path, metavar="DATASET", help="a folder with labels.csv and images")
    check.add_argument("--json", action="store_true", help="print one JSON record")
    check.set_defaults(run=_check, extra="slides")
    for name, add, text, description in (
        ("train", _add_train, "train from image labels, by cross-validation or on everything", _TRAIN),
        ("export", _add_export, "turn a trained run into a network for segment", _EXPORT),
        ("evaluate", _add_evaluate, "score probability maps against masks", _EVALUATE),
    ):
        add(
            verbs.add_parser(
                name,
                parents=[common],
                help=text,
                description=description,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


_SEGMENT = """Marks cancer. Writes DIR/STEM.probability.ome.tiff, .mask.geojson (QuPath), .overlay.png and .summary.json for
each input, and DIR/journal.jsonl. The weights that come with Tamis were trained on colon tissue stained with haematoxylin
and eosin, from images of research-only licence: they are for research, and no diagnosis."""


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE",
        help="slides or pictures: files, folders, patterns, or URLs that fsspec opens",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--mpp",
        type=um_per_px,
        metavar="UM",
        help="um per pixel at full resolution, where the file does not say it",
    )
    parser.add_argument(
        "--threshold", type=probability, metavar="P", help="of the mask; default: the network's own"
    )
    parser.add_argument("--weights", metavar="NAME.json", help="another network, as export wrote it")
    parser.add_argument(
        "--whole", action="store_true", help="look at everything, and not only at stained tissue"
    )
    parser.add_argument(
        "--jobs",
        type=number_of_jobs,
        default=1,
        metavar="N",
        help="inputs at the same time (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="skip what was done in the same way")
    parser.add_argument("--json", action="store_true", help="print one JSON record an input")
    parser.set_defaults(run=_segment, extra="slides")


# segment


def _segment(options: argparse.Namespace) -> int:
    from tamis.weakseg.source import expand_sources

    items = plan(expand_sources(options.inputs), options.output, RECORD)
    # All cores for one input; with several at a time each gets its share.
    threads = max(1, processors() // options.jobs)
    work = partial(
        _work,
        weights=options.weights,
        mpp=options.mpp,
        threshold=options.threshold,
        whole=options.whole,
        threads=threads,
    )
    record = _network(options.weights, threads).record  # a wrong --weights is told before anything is tried
    with Progress(f"{len(items)} images" if len(items) > 1 else items[0].input.name) as bar:
        outcomes = run(
            items,
            work,
            journal=options.output / "journal.jsonl",
            jobs=options.jobs,
            resume=options.resume,
            settings={
                "weights_sha256": record.sha256,
                "mpp": options.mpp,
                "threshold": options.threshold,
                "whole": options.whole,
                "tamis": __version__,
            },
            on_outcome=lambda outcome: _tell(outcome, bar, options.json),
            progress=bar,
        )
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    if len(items) > 1 or skipped:
        done = len(outcomes) - failed - skipped
        print(f"tamis: {done} segmented, {failed} failed, {skipped} done before.", file=sys.stderr)
    return 1 if failed else 0


def _work(
    item: Item,
    told: Told,
    *,
    weights: str | None,
    mpp: float | None,
    threshold: float | None,
    whole: bool,
    threads: int,
) -> dict[str, Any]:
    """One input of a batch, in a worker process."""
    from tamis.weakseg.segmentation import segment_file

    return segment_file(
        item.source,
        item.output.parent,
        _network(weights, threads),
        mpp=mpp,
        threshold=threshold,
        whole=whole,
        progress=told,
    )


@lru_cache(maxsize=1)
def _network(weights: str | None, threads: int) -> Network:
    """Loaded once a process."""
    from tamis.weakseg.network import load

    return load(weights, threads)


def _tell(outcome: Outcome, bar: Progress, as_json: bool) -> None:
    if outcome.status == "failed":
        bar.line(f"tamis: {outcome.error}")
    if as_json:
        record = {
            "input": outcome.item.source,
            "output": str(outcome.item.output),
            "status": outcome.status,
            "error": outcome.error,
            **outcome.result,
        }
        bar.wipe()
        print(json.dumps(record, ensure_ascii=False), flush=True)
    elif outcome.status == "done":
        bar.wipe()
        overlay = str(outcome.item.output).removesuffix(RECORD) + ".overlay.png"
        print(f"{outcome.item.input.name}: {_sentence(outcome.result)}; {overlay}", flush=True)


def _sentence(summary: Any) -> str:
    share = f"{summary['cancer_percent_of_tissue']:.1f} % of the tissue marked"
    if summary["cancer_mm2"] is None:
        return share
    parts = f"{summary['parts']} part{'s' * (summary['parts'] != 1)}"
    return f"{share}, {summary['cancer_mm2']:.3f} of {summary['tissue_mm2']:.3f} mm2, in {parts}"


# check, train, export, evaluate


def _check(options: argparse.Namespace) -> int:
    from tamis.weakseg.labels import check_dataset

    dataset, faults = check_dataset(options.dataset)
    positives, count = dataset.positives, len(dataset.images)
    masks = sum(image.mask is not None for image in dataset.images)
    areas = sum(image.area_low == image.area_low for image in dataset.images)  # NaN where unknown
    if options.json:
        record = {
            "dataset": str(options.dataset),
            "images": count,
            "positives": positives,
            "with_area": areas,
            "with_mask": masks,
            "patients_known": dataset.patients_known,
            "faults": faults,
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        for fault in faults:
            print(fault)
        unit = "patients are named" if dataset.patients_known else "no patients: folds are split by image"
        print(
            f"{options.dataset}: {count} sound images, {positives} with cancer ({areas} with an area), {count - positives} "
            f"without; {masks} masks; {unit}; {len(faults)} faults."
        )
    return 1 if faults else 0


_TRAIN = """Trains a network from image labels, by cross-validation or on everything.

    tamis weakseg train DATASET -o RUN --recipe cdws --folds 5 --seed 0
    tamis weakseg evaluate DATASET RUN/maps

RUN/recipe.json holds what was asked for; RUN/fold-K/checkpoint.pt and .metrics.jsonl each fold (fold-all without --folds);
RUN/maps/NAME.png the held-out probability maps (16 bits). A run that was killed goes on when the command is given again,
and with nothing else than recipe, dataset, folds and seed that it was begun with (RUN/begun.json).
Split by patient where labels.csv names them, else by image."""


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="a folder with labels.csv and images (see check)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="where the run lives")
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="cdws",
        help="cdws: labels and areas; _twice, _thrice: and again on its own marks; dws: without areas; mil: one output; "
        "full: with pixel masks (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="cross-validate; 0, the default, trains on everything",
    )
    parser.add_argument(
        "--fold", type=int, action="append", default=[], metavar="I", help="only this fold, from 0"
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="of weights and batches (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="of the products; auto: bfloat16 where the processor has it",
    )
    parser.add_argument("--threads", type=whole_number, default=0, help="of PyTorch; 0 leaves its default")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="leave what a frozen trunk makes of the images here, and read it back in other runs",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value for a field of the recipe or its objective, as JSON: steps=800, trunk=vgg, pooling=top_mean",
    )
    parser.set_defaults(run=_train, extra="train", trains=True)


def _train(options: argparse.Namespace) -> int:
    from tamis.weakseg import train

    train.main(options)
    return 0


_EXPORT = """Turns a trained run into a network for segment: one ONNX graph with weights in half precision, a record, a golden
input and output.

    tamis weakseg export RUN... -o FOLDER/NAME.json [--licence ...] [--score scores.json]

Several runs of one recipe with different seeds become one network, the mean of their maps. Refuses when ONNX Runtime and
PyTorch differ."""


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="what train wrote, without --folds")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="NAME.json",
        help="the record; the graph lies beside it",
    )
    parser.add_argument("--dataset", type=Path, help="whose first images ONNX and PyTorch are compared on")
    parser.add_argument(
        "--refine", action="store_true", help="lead the map's boundaries by the image (tamis.weakseg.refine)"
    )
    told = "for the record (default: %(default)s)"
    parser.add_argument("--licence", default="as the images it was trained on", help=told)
    parser.add_argument("--training-data", default="not stated", help=told)
    parser.add_argument("--command", default="not stated", help=told)
    parser.add_argument(
        "--score", type=Path, help="what  tamis weakseg evaluate --json  printed, of held-out images"
    )
    parser.set_defaults(run=_export, extra="train")


def _export(options: argparse.Namespace) -> int:
    from tamis.weakseg import export

    export.main(options)
    return 0


_EVALUATE = """Scores probability maps against masks.

    tamis weakseg evaluate DATASET MAPS [--json] [--sheet SHEET.png]

MAPS holds NAME.png (as cross-validation writes) or NAME.probability.ome.tiff (as segment writes) for the images of the
dataset; several folders, as of several seeds, are scored one by one, or with --mean as the mean of their maps. Every figure
has a 95 % bootstrap interval over images (patients where labels.csv names them) and stands beside the mask of all
foreground. A --threshold must not have been chosen on these images; --negatives 0.05 --folds 5 takes the lowest that marks
at most 5 % of the negatives of the other four folds: chosen from image labels alone, and never on the image that is scored."""


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="a folder with labels.csv, images and masks"
    )
    parser.add_argument("maps", type=Path, nargs="+", metavar="MAPS", help="a folder of maps")
    parser.add_argument("--mean", action="store_true", help="score the mean of all MAPS, as of several seeds")
    parser.add_argument(
        "--refine", type=um_per_px, metavar="UM", help="refine the maps by the images at this um per px first"
    )
    parser.add_argument(
        "--threshold", type=probability, default=0.5, metavar="P", help="default: %(default)s"
    )
    parser.add_argument(
        "--negatives",
        type=probability,
        metavar="SHARE",
        help="choose the threshold on the other folds instead",
    )
    parser.add_argument(
        "--folds", type=int, default=5, help="of --negatives: as in train (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.add_argument(
        "--sheet", type=Path, metavar="SHEET.png", help="worst, median and best images of the first MAPS"
    )
    parser.set_defaults(run=_evaluate, extra="slides")


def _evaluate(options: argparse.Namespace) -> int:
    from tamis.weakseg import evaluate

    evaluate.main(options)
    return 0


def demo(folder: Path) -> None:
    """Segment the bundled picture: areas, and its four files in `folder`."""
    from tamis.weakseg.network import load
    from tamis.weakseg.segmentation import segment_file

    pictures = sorted(SAMPLES.glob("*.jpg"))
    if not pictures:
        raise InputError(f"{SAMPLES} holds no picture: the installation is incomplete; install tamis again.")
    network = load()
    for picture in pictures:
        summary = segment_file(picture, folder, network, mpp=SAMPLE_UM_PER_PX)
        print(f"{picture.name} (drawn, not tissue): {_sentence(summary)}")
        print(
            f"written: {folder / picture.stem}.overlay.png, .probability.ome.tiff, .mask.geojson, .summary.json"
        )
