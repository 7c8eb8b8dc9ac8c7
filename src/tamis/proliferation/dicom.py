"""The same result for a DICOM archive: a structured report (TID 1500) and bulk annotations, through highdicom.

    score.sr.dcm      the hot spot as a region with count, density, scores and their intervals
    mitoses.ann.dcm   every mitosis as a point, with its probability if known (Microscopy Bulk Simple Annotations, Supplement 222)

A DICOM slide is referenced as it is, with its patient and study. Any other slide gets identifiers derived from the hash of
its file, the same every time, and no patient: whoever archives it fills those in together with the converted image.
Concepts without a settled code stand under the private scheme 99TAMIS.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tamis import __version__
from tamis.dicom_series import series_of
from tamis.proliferation.outputs import outline
from tamis.proliferation.score import SlideScore

if TYPE_CHECKING:
    from tamis.slides import Slide

SCHEME = "99TAMIS"
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
MAKER, MODEL = "Tamis", "tamis proliferation"


def write(folder: Path, image: Any, um_per_px: float, found: SlideScore, record: dict[str, Any]) -> None:
    """Write both files into `folder`. `record` is what score.json holds. Without a mitosis there are no annotations.

    image   the `source_image` of the slide
    """
    report(image, found, record, um_per_px).save_as(folder / "score.sr.dcm", enforce_file_format=True)
    if found.mitoses:
        bulk_annotations(image, found, record, um_per_px).save_as(
            folder / "mitoses.ann.dcm", enforce_file_format=True
        )


def source_image(slide: Slide, record: dict[str, Any]) -> Any:
    """The dataset of the slide's full resolution: its own if it is DICOM, or what is known of it.

    Of a series one file is named, or its folder; openslide then opens all of it, and so the full resolution may be another.
    """
    path = slide.path
    if path.is_dir():
        path = max(path.glob("*.dcm"), key=lambda p: p.stat().st_size, default=path)
    instances = list(series_of(path)) if path.suffix.lower() == ".dcm" and path.is_file() else []
    volumes = [i for i in instances if i.get("SOPClassUID") == SLIDE_IMAGE and "TotalPixelMatrixColumns" in i]
    image = (
        max(volumes, key=lambda i: int(i.TotalPixelMatrixColumns)) if volumes else _described(slide, record)
    )
    for name in UIDS:
        if name not in image:
            setattr(image, name, _uid(record, name))
    for name in MAY_BE_EMPTY:  # a slide stripped of its patient lacks even the empty fields
        if name not in image:
            setattr(image, name, "")
    return image


def _described(slide: Slide, record: dict[str, Any]) -> Any:
    from pydicom.dataset import Dataset

    image = Dataset()
    image.SOPClassUID = SLIDE_IMAGE
    image.SpecificCharacterSet = "ISO_IR 192"
    image.Modality = "SM"
    image.ContainerIdentifier = str(record["slide"])[:64]
    image.Rows = image.Columns = 256
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = slide.size_px
    return image


def report(image: Any, found: SlideScore, record: dict[str, Any], um_per_px: float) -> Any:
    """TID 1500: one group about the hot spot, or about the slide where there is none."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    context = sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=_uid(record, "device"), manufacturer_name=MAKER, model_name=MODEL, name=MODEL
            ),
        )
    )
    measured = [
        _measurement("MITCOUNT", "Mitoses in the area of the score", record["count"], "{mitoses}"),
        _measurement("MITCOUNTLOW", "Lower 95 % limit of the count", record["count_low"], "{mitoses}"),
        _measurement("MITCOUNTHIGH", "Upper 95 % limit of the count", record["count_high"], "{mitoses}"),
        _measurement("MITAREA", "Area of the score", record["area_mm2"], "mm2"),
        _measurement("MITDENSITY", "Mitoses per square millimetre", record["mitoses_per_mm2"], "/mm2"),
        _measurement("MITSCORE", f"Mitotic score ({found.grading.name})", record["mitotic_score"], "{score}"),
    ]
    names = {"mitotic_score": "Mitotic score, SVM", "pam50_proliferation": "PAM50 proliferation, SVR"}
    measured += [
        _measurement(f"PRED{n}", names[task], predicted["value"], "1")
        for n, (task, predicted) in enumerate(record["predicted"].items(), 1)
    ]
    tracking = sr.TrackingIdentifier(uid=_result_uid(record, "hot spot"), identifier="Mitotic hot spot")
    algorithm = None  # a person's marks are no algorithm's
    if not found.given:
        algorithm = sr.AlgorithmIdentification(
            name=record["provenance"]["detector"]["name"], version=__version__
        )
    finding = sr.CodedConcept("MITACT", SCHEME, "Mitotic activity")
    group: Any
    if found.hot_spot is None:
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking, measurements=measured, finding_type=finding, algorithm_id=algorithm,
            source_images=[sr.SourceImageForMeasurementGroup.from_source_image(image)],
        )  # fmt: skip
    else:
        size_px = int(image.TotalPixelMatrixColumns), int(image.TotalPixelMatrixRows)
        region = sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=outline(found, um_per_px, size_px),
            source_image=sr.SourceImageForRegion.from_source_image(image),
            pixel_origin_interpretation=sr.PixelOriginInterpretationValues.VOLUME,
        )
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking,
            referenced_region=region,
            measurements=measured,
            finding_type=finding,
            algorithm_id=algorithm,
        )
    content = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=sr.CodedConcept("MITHE", SCHEME, "Mitosis count on haematoxylin and eosin"),
        imaging_measurements=[group],
    )
    return sr.ComprehensiveSR(
        evidence=[image],
        content=content[0],
        series_instance_uid=_uid(record, "sr series"),
        series_number=901,
        sop_instance_uid=_result_uid(record, "sr instance"),
        instance_number=1,
        manufacturer=MAKER,
        series_description="Proliferation score; research use only",
    )


def bulk_annotations(image: Any, found: SlideScore, record: dict[str, Any], um_per_px: float) -> Any:
    """All mitoses as one group of points in pixels of the whole slide, with their probabilities.

    Given positions are manual annotations, and have a probability only where one was given with them.
    """
    from highdicom import AlgorithmIdentificationSequence, ann
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    points = [np.array([[m.x_um / um_per_px, m.y_um / um_per_px]], np.float32) for m in found.mitoses]
    probabilities = np.array([m.probability for m in found.mitoses], np.float32)
    algorithm = None
    if not found.given:
        algorithm = AlgorithmIdentificationSequence(
            name=record["provenance"]["detector"]["name"],
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
        )
    measured = None
    if not np.isnan(probabilities).all():
        measured = [
            ann.Measurements(
                name=Code("MITPROB", SCHEME, "Probability of a mitotic figure"),
                values=probabilities,
                unit=Code("1", "UCUM", "no units"),
            )
        ]
    kinds = ann.AnnotationGroupGenerationTypeValues
    group = ann.AnnotationGroup(
        number=1,
        uid=_result_uid(record, "mitoses"),
        label="Mitoses",
        annotated_property_category=Code("91723000", "SCT", "Anatomical structure"),
        annotated_property_type=Code("MITFIG", SCHEME, "Mitotic figure"),
        graphic_type=ann.GraphicTypeValues.POINT,
        graphic_data=points,
        algorithm_type=kinds.MANUAL if found.given else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        measurements=measured,
    )
    return ann.MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type=ann.AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=[group],
        series_instance_uid=_uid(record, "ann series"),
        series_number=902,
        sop_instance_uid=_result_uid(record, "ann instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="MITOSES",
        content_description="Mitotic figures; research use only",
        series_description="Mitotic figures; research use only",
    )


def _measurement(code: str, meaning: str, value: float, unit: str) -> Any:
    from highdicom import sr

    return sr.Measurement(
        name=sr.CodedConcept(code, SCHEME, meaning[:64]),
        value=value,
        unit=sr.CodedConcept(unit, "UCUM", unit),
    )


def _result_uid(record: dict[str, Any], what: str) -> str:
    """Of what other settings, marks or weights make another: an archive drops a second object under a UID that it holds."""
    return _uid(record, f"{what} {json.dumps(record['provenance'].get('job'), sort_keys=True)}")


def _uid(record: dict[str, Any], what: str) -> str:
    """A UID under 2.25 (a UUID as a number) that the slide, the version and the purpose decide."""
    text = f"{record['provenance']['input_sha256']} {__version__} {what}"
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}"
