"""Fit the mitotic score and PAM50 proliferation to the features of slides: SVM and SVR, chosen by cross-validation.

    features [n, d] of slides, their mitotic scores and PAM50 values -> NAME.npz and NAME.json

Kernel width, cost and tube are chosen inside each training part alone (nested, ten folds, stratified by the mitotic
score), so that the figures of the record belong to slides which neither trained nor tuned what scored them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from tamis.agreement import Estimate, confusion, fisher_interval, quadratic_kappa_interval, spearman
from tamis.errors import TrainingError
from tamis.proliferation.submission import CATEGORIES
from tamis.proliferation.svm import Machine, to_arrays
from tamis.weights import Weights, publish
from tamis.writing import replacing

Floats = NDArray[np.float64]
FOLDS = 10
COSTS = (0.1, 1.0, 10.0, 100.0)
GAMMAS = (0.003, 0.03, 0.3)
TUBES = (0.1, 0.3)
"""Of the SVR, in standard deviations of the target."""


def classifier(seed: int) -> GridSearchCV:
    """SVM of the mitotic score. Classes weigh alike: kappa punishes a class that is never given."""
    grid = {"svc__C": COSTS, "svc__gamma": GAMMAS}
    pipeline = make_pipeline(StandardScaler(), SVC(kernel="rbf", class_weight="balanced"))
    return GridSearchCV(pipeline, grid, scoring=_scored(_kappa), cv=_inner(seed))


def regression(seed: int) -> GridSearchCV:
    """SVR of PAM50 proliferation, tuned for squared error: rho alone cannot tell a flat machine from a steep one."""
    grid = {"svr__C": COSTS, "svr__gamma": GAMMAS, "svr__epsilon": TUBES}
    pipeline = make_pipeline(StandardScaler(), SVR(kernel="rbf"))
    return GridSearchCV(pipeline, grid, scoring="neg_mean_squared_error", cv=_inner(seed))


def cross_validated(
    make: Callable[[int], GridSearchCV], features: Floats, target: Floats, strata: NDArray[Any], seed: int
) -> Floats:
    """Every slide's prediction by a machine that was tuned and fitted without its fold: [n]."""
    predicted = np.full(len(target), np.nan)
    for train, test in StratifiedKFold(_folds(strata), shuffle=True, random_state=seed).split(
        features, strata
    ):
        search = make(seed)
        search.cv = list(_inner(seed).split(features[train], strata[train]))
        predicted[test] = search.fit(features[train], target[train]).predict(features[test])
    return predicted


def fit(
    make: Callable[[int], GridSearchCV], features: Floats, target: Floats, strata: NDArray[Any], seed: int,
    errors: Floats | None = None,
) -> tuple[Machine, GridSearchCV]:  # fmt: skip
    """The machine of all slides, as plain arrays, and the scikit-learn one it was made of."""
    search = make(seed)
    search.cv = list(_inner(seed).split(features, strata))
    search.fit(features, target)
    return as_machine(search.best_estimator_, errors), search


def as_machine(pipeline: Pipeline, errors: Floats | None = None) -> Machine:
    """A fitted StandardScaler and SVC or SVR as plain arrays."""
    scaler, machine = (step for _, step in pipeline.steps)
    classes = getattr(machine, "classes_", np.empty(0))
    # scikit-learn turns the signs of a problem of two classes round.
    sign = -1.0 if len(classes) == 2 else 1.0
    return Machine(
        mean=scaler.mean_,
        scale=scaler.scale_,
        vectors=machine.support_vectors_,
        coefficients=sign * machine.dual_coef_,
        intercepts=sign * machine.intercept_,
        gamma=float(machine._gamma),
        classes=np.asarray(classes, np.float64),
        counts=np.asarray(machine.n_support_ if len(classes) else [], np.int64),
        errors=np.sort(errors) if errors is not None else np.empty(0),
    )


def train(
    features: Floats, mitotic_score: Floats | None, pam50: Floats | None, *, seed: int = 0
) -> tuple[dict[str, Machine], dict[str, Estimate], dict[str, Floats]]:
    """Machines, their cross-validated figures, and every slide's cross-validated prediction, by task.

    Raises TrainingError where there are too few slides.
    """
    if mitotic_score is not None:
        strata = mitotic_score
    elif pam50 is not None:
        strata = np.digitize(pam50, np.quantile(pam50, [1 / 3, 2 / 3])).astype(np.float64)
    else:
        raise TrainingError("There is neither a mitotic score nor a PAM50 value to learn.")
    counts = np.unique(strata, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 4:
        raise TrainingError(
            f"{len(features)} slides with {counts.tolist()} of each mitotic score are too few: at least two scores "
            "with four slides each are needed."
        )
    machines, estimates, predictions = {}, {}, {}
    if mitotic_score is not None:
        found = cross_validated(classifier, features, mitotic_score, strata, seed)
        estimates["task1"] = quadratic_kappa_interval(confusion(mitotic_score, found, CATEGORIES))
        machines["mitotic_score"], _ = fit(classifier, features, mitotic_score, strata, seed)
        predictions["mitotic_score"] = found
    if pam50 is not None:
        found = cross_validated(regression, features, pam50, strata, seed)
        estimates["task2"] = fisher_interval(spearman(pam50, found), len(pam50))
        machines["pam50_proliferation"], _ = fit(regression, features, pam50, strata, seed, pam50 - found)
        predictions["pam50_proliferation"] = found
    return machines, estimates, predictions


def write(
    folder: Path, name: str, machines: Mapping[str, Machine], *, names: tuple[str, ...], score: Mapping[str, Any],
    training_data: str, licence: str, command: str,
) -> Path:  # fmt: skip
    """FOLDER/NAME.npz and its record NAME.json, which `tamis proliferation score --model` takes."""
    arrays: dict[str, Any] = {
        key: array for task, machine in machines.items() for key, array in to_arrays(task, machine).items()
    }
    with replacing(folder / f"{name}.npz") as beside:
        np.savez_compressed(beside, **arrays)
    generator = np.random.default_rng(0)
    some = next(iter(machines.values()))
    inputs = some.mean + some.scale * generator.normal(size=(8, len(some.mean)))
    outputs: dict[str, Any] = {
        f"output.{task}": machine.predict(inputs) for task, machine in machines.items()
    }
    with replacing(folder / f"{name}.golden.npz") as beside:
        np.savez_compressed(beside, input=inputs, **outputs)
    record = Weights(
        name=name,
        file=f"{name}.npz",
        sha256="",
        licence=licence,
        training_data=training_data,
        command=command,
        preprocessing={"features": list(names)},
        vocabulary="mitotic score 1, 2, 3; PAM50 proliferation",
        score=score,
        golden=f"{name}.golden.npz",
    )
    return publish(record, folder)


def _kappa(truth: Floats, found: Floats) -> float:
    return quadratic_kappa_interval(confusion(truth, found, CATEGORIES)).value


def _scored(statistic: Callable[[Floats, Floats], float]) -> Callable[[Any, Floats, Floats], float]:
    return lambda machine, features, target: statistic(target, machine.predict(features))


def _inner(seed: int) -> StratifiedKFold:
    return StratifiedKFold(4, shuffle=True, random_state=seed + 1)


def _folds(strata: NDArray[Any]) -> int:
    """Ten, or as many as the rarest score allows."""
    return int(min(FOLDS, np.unique(strata, return_counts=True)[1].min()))
