"""What ships computes what was trained: ONNX Runtime against PyTorch, and records that verify."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from tamis import weights  # noqa: E402
from tamis.subtitles.networks import Recogniser as Member  # noqa: E402
from tamis.subtitles.publish import Ensemble, quantised_head, to_onnx  # noqa: E402
from tamis.subtitles.published import CLASSES, FOLDER, TRUNKS, default_recogniser  # noqa: E402
from tamis.subtitles.recognise import ClassVectors, Recogniser  # noqa: E402


@pytest.fixture(scope="module")
def members() -> list[Member]:
    torch.manual_seed(3)
    return [Member("vgg").eval(), Member("dense").eval()]


@pytest.mark.filterwarnings("ignore")  # of the exporter, about its own age
def test_onnx_equals_pytorch_at_any_width(members: list[Member], tmp_path: Path) -> None:
    import io

    ensemble = Ensemble(members).eval()
    head = io.BytesIO()
    np.savez(head, **quantised_head(members[0]))  # type: ignore[arg-type]
    graphs = [to_onnx(Ensemble([member]).eval()) for member in members]
    recogniser = Recogniser(graphs[0], ClassVectors.load(head.getvalue()), others=graphs[1])
    for width in (32, 100, 612):
        strip = np.random.default_rng(width).integers(0, 255, (2, 40, width)).astype(np.uint8)
        features, states = recogniser.look(strip)
        with torch.no_grad():
            f, s = ensemble(torch.from_numpy(strip[None].astype(np.float32) / 255))
        assert np.abs(features - f.mean(0).T.numpy()).max() < 0.01 * float(f.abs().max())
        assert np.abs(states - s.mean(0).T.numpy()).max() < 0.01
        glance = recogniser.glance(strip)
        assert np.abs(glance.states[0] - s[0].numpy()).max() < 0.01  # the first alone
        after = recogniser.look(strip, glance)
        assert np.array_equal(after[0], features) and np.array_equal(after[1], states)


def test_int8_rows_stay_within_half_a_step(members: list[Member]) -> None:
    stored = quantised_head(members[0])
    exact = members[0].head.base.weight.detach().numpy()
    error = np.abs(stored["vectors"] * stored["scale"][:, None] - exact)
    assert (error <= 0.5001 * stored["scale"][:, None]).all()


def test_published_weights_give_the_golden_output() -> None:
    import io

    record = weights.load(FOLDER / f"{TRUNKS}.json")
    weights.read(weights.load(FOLDER / f"{CLASSES}.json"))
    with np.load(io.BytesIO(weights.read_golden(record)), allow_pickle=False) as golden:
        recogniser = default_recogniser()
        _, states = recogniser.look(golden["input"])
        assert np.abs(states - golden["output_states"].astype(np.float32)).max() < 0.02
        lattice = recogniser.lattice(recogniser.sight(golden["input"]))
        assert (lattice.labels[:, 0] == golden["output_labels"]).mean() > 0.95
