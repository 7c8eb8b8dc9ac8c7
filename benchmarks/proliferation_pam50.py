"""What TUPAC16's own tables allow for PAM50 proliferation. Run: python benchmarks/proliferation_pam50.py DATA [--publish]

The challenge's slides are not here, but the scores of all 500 are: how well does the pathologists' mitotic score order the
PAM50 values, and how well does the SVR that is fitted to it? No detector that feeds a mitotic score alone can do better
on these rows. `--publish` writes the published model, svr.tupac16-scores. DATA is the folder of the shared data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from tamis.agreement import fisher_interval, spearman
from tamis.proliferation import train_score
from tamis.proliferation.submission import read_truth

FOLDER = Path(__file__).parent.parent / "src" / "tamis" / "proliferation" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    truth = read_truth(options.data / "pathology" / "tables" / "tupac16_train_scores.csv").scores
    assert truth is not None and truth.mitotic_score is not None and truth.pam50_proliferation is not None
    score, pam50 = truth.mitotic_score, truth.pam50_proliferation
    n = len(score)
    whole = fisher_interval(spearman(score, pam50), n)
    print(f"n = {n} slides, mitotic scores 1 2 3: {np.bincount(score.astype(int))[1:].tolist()}")
    print(f"rho of the true mitotic score              {whole.value:.3f} [{whole.low:.3f}, {whole.high:.3f}]")

    found = train_score.cross_validated(train_score.regression, score[:, None], pam50, score, seed=0)
    folds = [
        test for _, test in StratifiedKFold(10, shuffle=True, random_state=0).split(score[:, None], score)
    ]  # those of cross_validated
    within = [spearman(found[test], pam50[test]) for test in folds]
    plain = [spearman(score[test], pam50[test]) for test in folds]
    pooled = fisher_interval(spearman(found, pam50), n)
    print(
        f"rho of the SVR on it, within each fold     {np.mean(within):.3f} (the score itself: {np.mean(plain):.3f})"
    )
    print(
        f"rho of the SVR on it, pooled over folds    {pooled.value:.3f} [{pooled.low:.3f}, {pooled.high:.3f}]"
    )
    print(
        "  (pooled, each fold's machine calls the same score a slightly different value, which reorders ties)"
    )
    error = float(np.sqrt(np.mean((pam50 - found) ** 2)))
    print(f"root mean square error                     {error:.3f} (of the mean alone: {pam50.std():.3f})")
    machine, _ = train_score.fit(train_score.regression, score[:, None], pam50, score, 0, pam50 - found)
    for value in (1.0, 2.0, 3.0):
        centre = float(machine.predict(np.array([value])))
        low, high = machine.interval(centre)
        held = np.mean((pam50[score == value] >= low) & (pam50[score == value] <= high))
        print(
            f"score {value:.0f}: {centre:+.2f} [{low:+.2f}, {high:+.2f}], which holds {held:.1%} of these slides"
        )
    if options.publish:
        record = train_score.write(
            FOLDER,
            "svr.tupac16-scores",
            {"pam50_proliferation": machine},
            names=("mitotic_score",),
            score={
                "rho_of_true_mitotic_score_500_rows": round(whole.value, 4),
                "rho_within_folds": round(float(np.mean(within)), 4),
                "root_mean_square_error": round(error, 4),
                "note": "on pathologists' mitotic scores; with detected mitoses it can only be lower",
            },
            training_data="mitotic scores and PAM50 values of the 500 training slides of TUPAC16 (tables; no pixels)",
            licence="challenge data, research use only",
            command="runs/proliferation_score.sh",
        )
        print(f"written: {record}")


if __name__ == "__main__":
    main()
