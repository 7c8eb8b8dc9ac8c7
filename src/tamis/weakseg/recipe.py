"""Everything that a trained network depends on, besides its dataset and seed. Stored as JSON beside the run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tamis.errors import UsageError
from tamis.pooling import POOLINGS
from tamis.weakseg.losses import Objective
from tamis.weakseg.networks import FUSIONS, TRUNKS
from tamis.writing import replacing


@dataclass(frozen=True, slots=True)
class Recipe:
    """Network, objective and schedule: everything that a result depends on, besides dataset and seed."""

    trunk: str = "lite0"
    sides: int = 3
    width: int = 32
    """Channels of the heads; 0 for plain 1x1 side outputs, which need a trunk that is trained."""
    fusion: str = "fixed"
    objective: Objective = field(default_factory=lambda: Objective(area_scale=2.0))
    um_per_px: float | None = 1.24
    """Working resolution; None takes images as they are (where no um/px exists, as in many radiographs)."""
    frozen: bool = True
    """Whether the trunk stays as it was pretrained: its features are then computed once, for `variants` of each image."""
    kept_stages: int = 0
    """How many of the first stages of a VGG stay as pretrained while the others are trained; computed once, as above."""
    variants: int = 6
    """Augmented versions of each image whose features are kept, the image itself among them."""
    steps: int = 400
    batch: int = 6
    """Half of it positives, half negatives."""
    negatives: bool = True
    """False draws positives alone, for areas without any image of no cancer (with mil=false)."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.98
    stained: bool = True
    """Augment as stained tissue; otherwise contrast and brightness."""
    pretrained: str = "package"
    self_training: int = 0
    """Steps of a second training, on what the first network marks in its training images (`own_marks`); 0 for none."""
    rounds: int = 1
    """How often that is done: each time on the marks of the network before."""


RECIPES = {
    "cdws": Recipe(),
    "cdws_twice": Recipe(self_training=300),
    "cdws_thrice": Recipe(self_training=300, rounds=2),
    "full": Recipe(objective=Objective(mil=False, area=False, pixels=True)),
    "dws": Recipe(objective=Objective(area=False)),
    "mil": Recipe(sides=1, objective=Objective(area=False)),
}
"""Constrained DWS-MIL, once and with a second and a third training on its own marks; the same network with pixel truth; without
the areas; one output and image labels alone."""
VGG = {
    "trunk": "vgg",
    "width": 0,
    "frozen": False,
    "kept_stages": 2,
    "learning_rate": 5e-4,
    "batch": 4,
    "weight_decay": 0.01,
}
"""What `--set trunk=vgg` brings along: the paper's own network. Its third stage is trained, which halves a step;
kept_stages=0 trains it whole."""


def recipe_from(text: str) -> Recipe:
    """A recipe from JSON, as `store` wrote it."""
    stored = json.loads(text)
    return Recipe(**(stored | {"objective": Objective(**stored["objective"])}))


def store(recipe: Recipe, run: Path) -> None:
    """RUN/recipe.json; refuses a run that was begun with another recipe. One of which no fold was begun is replaced."""
    path = run / "recipe.json"
    begun = path.exists() and any(run.glob("fold-*"))
    if begun and recipe_from(path.read_text(encoding="utf-8")) != recipe:
        raise UsageError(f"{run} holds a run with another recipe ({path}): give another folder with -o.")
    with replacing(path) as beside:
        beside.write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def changed(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with fields of its own or of its objective replaced.

    Raises UsageError for a field that does not exist, and for a value of another kind than the field's.
    """
    if "trunk=vgg" in assignments:
        recipe = replace(recipe, **VGG)  # type: ignore[arg-type]
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if name in Objective.__dataclass_fields__:
            _require_kind(assignment, value, getattr(recipe.objective, name))
            recipe = replace(recipe, objective=replace(recipe.objective, **{name: value}))
        elif name in Recipe.__dataclass_fields__ and name != "objective":
            _require_kind(assignment, value, getattr(Recipe(), name), absent=name == "um_per_px")
            recipe = replace(recipe, **{name: value})
        else:
            names = ", ".join([*Recipe.__dataclass_fields__, *Objective.__dataclass_fields__])
            raise UsageError(f"--set {assignment}: a recipe has no field {name!r}; it has {names}.")
    require_possible(recipe)
    return recipe


def require_possible(recipe: Recipe) -> None:
    """Raises UsageError for a name that is none and a number that cannot be, before anything is read."""
    objective = recipe.objective
    for name, value, known in (
        ("trunk", recipe.trunk, tuple(TRUNKS)),
        ("fusion", recipe.fusion, FUSIONS),
        ("sides", recipe.sides, (1, 2, 3)),
        ("pooling", objective.pooling, tuple(POOLINGS)),
    ):
        if value not in known:
            raise UsageError(f"--set {name}={value}: it is one of {', '.join(map(str, known))}.")
    for name, number, least in (
        ("steps", recipe.steps, 1),
        ("batch", recipe.batch, 2),
        ("variants", recipe.variants, 1),
        ("rounds", recipe.rounds, 1),
    ):
        if number < least:
            raise UsageError(f"--set {name}={number}: at least {least} was expected.")
    for name, real, most in (
        ("um_per_px", 1.0 if recipe.um_per_px is None else recipe.um_per_px, math.inf),
        ("learning_rate", recipe.learning_rate, math.inf),
        ("r", objective.r, math.inf),
        ("share", objective.share, 1.0),
    ):
        if not 0 < real <= most or math.isinf(real):
            bound = "" if math.isinf(most) else f" and at most {most:g}"
            raise UsageError(f"--set {name}={real}: a number above 0{bound} was expected.")
    if recipe.pretrained not in ("package", "none") and not recipe.trunk.startswith("vgg"):
        raise UsageError(
            f"--set pretrained={recipe.pretrained}: a file goes with trunk=vgg or trunk=vgg16; {recipe.trunk} has its package."
        )


def _require_kind(assignment: str, value: object, default: object, *, absent: bool = False) -> None:
    """Raises UsageError for a value of another kind than the field's default, which stands as the example."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float):
        fits = number
    elif isinstance(default, int) and not isinstance(default, bool):
        fits = number and isinstance(value, int) and value >= 0
    else:
        fits = type(value) is type(default)
    if not (fits or (absent and value is None)):
        raise UsageError(f"--set {assignment}: a value such as {json.dumps(default)} was expected.")
