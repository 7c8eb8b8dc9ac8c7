"""Training end to end on drawn tissue, in seconds.  python -m pytest tests/weakseg/test_train.py"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from saved import write_table  # noqa: E402

from tamis.cli import build_parser  # noqa: E402
from tamis.errors import InputError, TrainingError, UsageError  # noqa: E402
from tamis.training import load_weights  # noqa: E402
from tamis.weakseg import commands, evaluate, export, train  # noqa: E402
from tamis.weakseg.bags import batches, load_samples  # noqa: E402
from tamis.weakseg.beginning import begin  # noqa: E402
from tamis.weakseg.labels import read_dataset  # noqa: E402
from tamis.weakseg.maps import read_map  # noqa: E402
from tamis.weakseg.network import load  # noqa: E402
from tamis.weakseg.networks import SideOutputNetwork  # noqa: E402
from tamis.weakseg.own_marks import among_alike, marked_bank  # noqa: E402
from tamis.weakseg.recipe import RECIPES, Recipe, changed  # noqa: E402
from tamis.weakseg.train import build, make_bank  # noqa: E402

SMALL = ["steps=4", "batch=2", "variants=2", "width=4", "pretrained=none", "um_per_px=2.0"]


def options(verb: str, *arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["weakseg", verb, *arguments])


def run(dataset: Path, target: Path, *arguments: str) -> None:
    small = [part for field in SMALL for part in ("--set", field)]
    train.main(options("train", str(dataset), "-o", str(target), *small, *arguments))


def test_the_command_offers_every_recipe_and_the_documented_threshold() -> None:
    assert list(commands.RECIPES) == sorted(RECIPES)
    assert options("evaluate", "D", "MAPS").threshold == evaluate.THRESHOLD


def test_cross_validation_maps_each_image_once_and_resumes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "run"
    run(dataset, target, "--folds", "2", "--fold", "0")
    assert f"{target}: 1 of 2 folds are done" in capsys.readouterr().out
    assert len(list((target / "maps").iterdir())) == 4
    first = (target / "fold-0" / "checkpoint.pt").stat().st_mtime_ns
    run(dataset, target, "--folds", "2")
    assert (target / "fold-0" / "checkpoint.pt").stat().st_mtime_ns == first
    maps = sorted((target / "maps").iterdir())
    assert [path.stem for path in maps] == [f"field_{i}" for i in range(8)]
    assert read_map(maps[0]).shape == (64, 96)
    assert (
        json.loads((target / "fold-0" / "checkpoint.metrics.jsonl").read_text().splitlines()[-1])["step"] == 4
    )


@pytest.mark.parametrize("recipe", ["cdws", "mil"])
def test_every_recipe_trains_and_can_be_exported(
    dataset: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target, record = tmp_path / "run", tmp_path / "weights" / "side_outputs.test.json"
    run(dataset, target, "--recipe", recipe)
    export.main(options("export", str(target), "-o", str(record), "--dataset", str(dataset)))
    assert "largest difference" in capsys.readouterr().out
    network = load(record, threads=1)
    with np.load(tmp_path / "weights" / "side_outputs.test.golden.npz") as golden:
        np.testing.assert_allclose(network(golden["input"]), golden["output"], atol=1e-5)
    assert network.geometry.um_per_px == 2.0


def test_features_are_left_for_other_runs_and_read_back(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset, tmp_path / "first", "--features", str(tmp_path / "features"))
    left = sorted((tmp_path / "features").iterdir())
    assert left

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(SideOutputNetwork, "begin", never)
    run(dataset, tmp_path / "second", "--features", str(tmp_path / "features"))
    weights = [load_weights(tmp_path / name / "fold-all" / "checkpoint.pt") for name in ("first", "second")]
    assert sorted((tmp_path / "features").iterdir()) == left
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])


def test_a_second_training_on_own_maps(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", "--set", "self_training=3", "--set", "rounds=2")
    for number in (2, 3):
        assert (tmp_path / "run" / "fold-all" / f"training-{number}.pt").exists()
    export.load_network(tmp_path / "run")


def test_places_that_look_alike_are_averaged() -> None:
    """Two textures, marks with noise: the mean over what looks alike parts them; equal features keep the mean."""
    generator = np.random.default_rng(0)
    left = np.arange(20)[None].repeat(16, 0) < 10
    features = np.where(left[..., None], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]) + generator.normal(
        0, 0.2, (16, 20, 3)
    )
    p = (0.2 * left + 0.8 * generator.random((16, 20))).astype(np.float32)
    q = among_alike(p, features.astype(np.float32))
    assert ((q > np.median(q)) == left).mean() > 0.97
    assert ((p > np.median(p)) == left).mean() < 0.75
    np.testing.assert_allclose(among_alike(p, np.ones((16, 20, 3), np.float32)), p.mean(), atol=1e-5)


def test_own_marks_have_the_stated_area_and_turn_with_their_variant(dataset: Path) -> None:
    recipe = changed(Recipe(), SMALL)
    samples = load_samples(read_dataset(dataset).images, recipe)
    bank = make_bank(samples, changed(recipe, ["variants=4"]), 0)
    network = build(recipe)
    for output in network.outputs:
        torch.nn.init.normal_(output[-1].weight)  # an untrained network says the same everywhere
    marked = marked_bank(network, samples, bank)
    for sample, versions in zip(samples, marked, strict=True):
        stated = sample.label.area_low if sample.label.positive else 0.0
        for version in versions:
            height, width = (length // 8 for length in sample.image.shape[:2])
            truth = version.truth[:height, :width]
            assert float(truth.mean()) == pytest.approx(stated, abs=0.03)
            again = truth.flip(
                [axis for axis, turned in ((0, version.flip_y), (1, version.flip_x)) if turned]
            )
            torch.testing.assert_close(again, versions[0].truth[:height, :width])


@pytest.mark.parametrize("stages", [0, 2])
def test_the_paper_s_network_is_trained_whole_or_in_its_last_stage(
    dataset: Path, tmp_path: Path, stages: int
) -> None:
    run(dataset, tmp_path / "run", "--set", "trunk=vgg", "--set", "width=0", "--set", f"kept_stages={stages}")
    network, recipe = export.load_network(tmp_path / "run")
    assert recipe.trunk == "vgg" and not recipe.frozen
    convolutions = zip(network.trunk.convolutions(), build(recipe).trunk.convolutions(), strict=True)
    changed_ones = [not torch.equal(now.weight, before.weight) for now, before in convolutions]
    assert changed_ones == [stages == 0] * 4 + [True] * 3


def test_weak_recipes_never_read_a_mask(dataset: Path) -> None:
    for mask in (dataset / "masks").iterdir():
        mask.write_bytes(b"not to be read")
    for name in ("cdws", "dws", "mil"):
        samples = load_samples(read_dataset(dataset).images, changed(RECIPES[name], SMALL))
        assert all(sample.truth is None for sample in samples)
    with pytest.raises(InputError, match="broken"):
        load_samples(read_dataset(dataset).images, changed(RECIPES["full"], SMALL))


def test_batches_are_balanced_and_depend_on_their_step_alone(dataset: Path) -> None:
    recipe = changed(Recipe(), [*SMALL, "batch=4"])
    samples = load_samples(read_dataset(dataset).images, recipe)
    network, bank = build(recipe), make_bank(samples, recipe, 0)
    from_start = batches(samples, recipe, network, bank, 0)(0)
    next(from_start), next(from_start)
    third, again = next(from_start), next(batches(samples, recipe, network, bank, 0)(2))
    assert third.positive.sum() == 2
    for one, other in zip(third.features, again.features, strict=True):
        assert torch.equal(one, other)


def test_areas_alone_train_without_negatives(dataset: Path, tmp_path: Path) -> None:
    write_table(
        dataset,
        ["name", "label", "area", "um_per_px"],
        [[f"field_{i}", "1", f"0.{i + 1}", "2"] for i in range(8)],
    )
    run(dataset, tmp_path / "run", "--set", "negatives=false", "--set", "mil=false")
    recipe = export.load_network(tmp_path / "run")[1]
    assert not recipe.negatives and not recipe.objective.mil and recipe.objective.area
    metrics = (tmp_path / "run" / "fold-all" / "checkpoint.metrics.jsonl").read_text().splitlines()
    assert "area_on_positives" in metrics[-1] and "area_on_negatives" not in metrics[-1]


def test_another_recipe_in_the_same_folder_is_refused(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run")
    with pytest.raises(UsageError, match="another recipe"):
        run(dataset, tmp_path / "run", "--set", "learning_rate=0.1")


def test_a_finished_run_is_not_taken_for_one_of_a_dataset_that_has_grown(
    dataset: Path, tmp_path: Path
) -> None:
    table = dataset / "labels.csv"
    whole = table.read_text()
    begin(tmp_path, changed(Recipe(), SMALL), read_dataset(dataset), folds=2, seed=0)
    (tmp_path / "fold-0").mkdir()
    (tmp_path / "fold-0" / "finished").touch()
    (dataset / "images" / "field_7.png").unlink()
    table.write_text("\n".join(whole.splitlines()[:-1]))
    with pytest.raises(UsageError, match="begun on 8 images"):
        run(dataset, tmp_path, "--folds", "2")


def test_a_record_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.onnx does not end in \.json"):
        export.main(options("export", str(tmp_path), "-o", str(tmp_path / "mine.onnx")))


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"figures": {}, "threshold": 0.5}', '{"threshold": "x"}']
)
def test_a_score_that_evaluate_did_not_print_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"scores\.json is not what  tamis weakseg evaluate"):
        export.read_score(tmp_path / "scores.json")


def test_a_damaged_run_is_told(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.json is missing: .* no finished training of fold 'all'"):
        export.load_network(tmp_path)
    run(dataset, tmp_path)
    (tmp_path / "fold-all" / "network.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"network\.pt is damaged or of another recipe"):
        export.load_network(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match=r"recipe\.json is no recipe"):
        export.load_network(tmp_path)


def test_an_unknown_field_is_refused() -> None:
    for wrong in (
        "steps=many",
        "steps=4.5",
        "steps=-1",
        "frozen=1",
        "trunk=3",
        "learning_rate=null",
        "r=true",
    ):
        with pytest.raises(UsageError, match=f"--set {wrong}: a value such as"):
            changed(Recipe(), [wrong])
    assert changed(Recipe(), ["um_per_px=null", "learning_rate=1"]).um_per_px is None
    with pytest.raises(UsageError, match="no field 'stepps'"):
        changed(Recipe(), ["stepps=3"])


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("trunk=resnet", "it is one of vgg, vgg16, lite0"),
        ("fusion=none", "it is one of fixed, learned, joint"),
        ("pooling=mean", "it is one of generalised_mean"),
        ("sides=4", "it is one of 1, 2, 3"),
        ("steps=0", "at least 1"),
        ("batch=1", "at least 2"),
        ("variants=0", "at least 1"),
        ("um_per_px=0", "a number above 0 was"),
        ("share=1.5", "a number above 0 and at most 1 was"),
        ("r=-1", "a number above 0 was"),
        ("learning_rate=NaN", "a number above 0 was"),
        ("pretrained=vgg16.pth", "a file goes with trunk=vgg"),
    ],
)
def test_values_that_cannot_be_are_refused(assignment: str, sentence: str) -> None:
    """Each would end in a fault later, or, like an unknown fusion, train something else without a word."""
    with pytest.raises(UsageError, match=f"--set {assignment.split('=')[0]}=.*{sentence}"):
        changed(Recipe(), [assignment])


def test_one_class_is_refused(dataset: Path, tmp_path: Path) -> None:
    write_table(dataset, ["name", "label"], [[f"field_{i}", "1"] for i in range(8)])
    with pytest.raises(InputError, match="images of both kinds"):
        run(dataset, tmp_path / "run")


def test_unknown_resolution_is_refused_or_taken_as_it_is(dataset: Path, tmp_path: Path) -> None:
    write_table(dataset, ["name", "label"], [[f"field_{i}", "1" if i < 4 else "0"] for i in range(8)])
    with pytest.raises(InputError, match="um/px is unknown"):
        run(dataset, tmp_path / "run")
    # The same folder: nothing was trained in it, so that another recipe is no other run.
    run(dataset, tmp_path / "run", "--set", "um_per_px=null", "--set", "stained=false")
    assert export.load_network(tmp_path / "run")[1].um_per_px is None


@pytest.mark.parametrize(
    "arguments", [["--folds", "1"], ["--folds", "-2"], ["--folds", "2", "--fold", "2"], ["--fold", "0"]]
)
def test_folds_that_there_are_not_are_wrong_usage(
    dataset: Path, tmp_path: Path, arguments: list[str]
) -> None:
    with pytest.raises(UsageError, match="--fold"):
        run(dataset, tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_more_folds_than_images_leave_no_run(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 images with cancer, and 5 folds"):
        run(dataset, tmp_path / "run", "--folds", "5")
    assert not (tmp_path / "run").exists()


def test_evaluation_prints_figures_beside_all_foreground(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(dataset, tmp_path / "run", "--folds", "2")
    capsys.readouterr()
    sheet = tmp_path / "sheet.png"
    evaluate.main(
        options("evaluate", str(dataset), str(tmp_path / "run" / "maps"), "--json", "--sheet", str(sheet))
    )
    record = json.loads(capsys.readouterr().out)
    assert set(record["figures"]) == {"maps", "all foreground"}
    assert record["figures"]["all foreground"]["area_on_negatives"]["value"] == 1
    assert record["figures"]["maps"]["pooled_f1"]["n"] == 8
    assert sheet.stat().st_size > 10_000
    with pytest.raises(InputError, match="no map of field_0"):
        evaluate.main(options("evaluate", str(dataset), str(tmp_path)))


def test_the_mean_of_two_seeds_is_exported_over_one_trunk(dataset: Path, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        run(dataset, tmp_path / seed, "--seed", seed, "--set", "pretrained=package")
    runs = [tmp_path / "0", tmp_path / "1"]
    singles = [export.load_network(path)[0] for path in runs]
    image = train.read_image(read_dataset(dataset).images[0].path)
    both, _ = export.load_networks(runs)
    expected = (train.predict(singles[0], image) + train.predict(singles[1], image)) / 2
    np.testing.assert_allclose(train.predict(both, image), expected, atol=1e-5)
    record = tmp_path / "w" / "a.json"
    export.main(options("export", *map(str, runs), "-o", str(record)))
    np.testing.assert_allclose(load(record, threads=1)(image), expected, atol=0.01)
    run(dataset, tmp_path / "other", "--set", "pretrained=package", "--set", "batch=4")
    with pytest.raises(InputError, match="more than its seed"):
        export.load_networks([runs[0], tmp_path / "other"])


def test_an_export_that_differs_is_not_written(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset, tmp_path / "run")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(TrainingError, match="nothing was written"):
        export.main(options("export", str(tmp_path / "run"), "-o", str(tmp_path / "w" / "a.json")))
    assert not (tmp_path / "w").exists()
