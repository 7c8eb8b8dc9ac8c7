"""What choosing the fullest window does to a count. Run: python benchmarks/proliferation_hot_spot.py

Mitoses are strewn evenly over a square of tissue, so that every window has the same density and none is hot. Beside the hot
spot's count stand the scores that it gives, how often the Poisson interval around it holds the density there is, and what
`hot_spot_if_even` of score.json expects. Arguments: --area MM2 (default 100), --slides N (default 60), --seed.
"""

from __future__ import annotations

import argparse

import numpy as np

from tamis.proliferation.grading import TUPAC, count_interval
from tamis.proliferation.hotspot import hot_spot, spread_evenly
from tamis.proliferation.mitosis import Mitosis


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--area", type=float, default=100.0)
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    side = 1000 * options.area**0.5
    tissue = np.ones((100, 100), bool)
    print(f"{options.slides} slides of {options.area:g} mm2, mitoses everywhere alike, seed {options.seed}")
    print(
        f"{'per 2 mm2':>9} {'score':>5}  {'hot spot':>8} {'expected':>8} {'scores 1, 2, 3':>15}  interval holds"
    )
    for per_mm2 in (0.5, 1.0, 2.0, 4.0):
        counts, expected, scores, held = [], [], [0, 0, 0], 0
        for _ in range(options.slides):
            places = generator.uniform(0, side, (generator.poisson(per_mm2 * options.area), 2))
            found = hot_spot([Mitosis(x, y, 1.0) for x, y in places.tolist()])
            count = found.count if found else 0
            counts.append(count)
            even = spread_evenly(len(places), tissue, side / 100, TUPAC.area_mm2)
            expected.append(even[0] if even else 0.0)
            scores[TUPAC.score(count) - 1] += 1
            low, high = count_interval(count)
            held += low <= per_mm2 * TUPAC.area_mm2 <= high
        true = per_mm2 * TUPAC.area_mm2
        print(
            f"{true:9.1f} {TUPAC.score(true):5}  {np.mean(counts):8.1f} {np.mean(expected):8.1f} "
            f"{'{:5}{:5}{:5}'.format(*scores)}  {held} of {options.slides}"
        )


if __name__ == "__main__":
    main()
