"""How many candidates a second are costed on one core, all of a space in one go and one by one, in the same run.

Each candidate gets its operators, latency with its interval, peak memory and file size. The fit of a calibrated
profile's views, once a process, is in the first figure and not in the others.

    python benchmarks/search/rate.py --profile rpi4 --profile /tmp/here.toml
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from edgekd.core.propose import candidate_of, propose
from edgekd.core.spaces import SPACES, every_choice
from edgekd.load import load_profile
from edgekd.records import Budget

NATIVE = {"ds-cnn": (6, 1, 128), "inverted-residual": (1, 28, 28)}
ROUNDS, OUTPUTS = 5, 10


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="append", required=True)
    for name in parser.parse_args().profile:
        profile = load_profile(name)
        for space_name, native in NATIVE.items():
            space, budget = SPACES[space_name], Budget()
            choices = list(every_choice(space, native, {}))

            def together() -> object:
                return propose(space, native, OUTPUTS, profile, budget, {}, 6)  # noqa: B023 - called in this turn

            def apart() -> object:
                return [candidate_of(space, one, native, OUTPUTS, profile, budget) for one in choices]  # noqa: B023

            first = len(choices) / seconds(together)
            rounds = [(seconds(together), seconds(apart)) for _ in range(ROUNDS)]
            whole, alone = (len(choices) / min(times) for times in zip(*rounds, strict=True))
            sys.stdout.write(
                f"{profile.name}, {space_name}: {len(choices)} candidates; {first:.0f} a second the first time, then "
                f"{whole:.0f}, one by one {alone:.0f}: {whole / alone:.2f} times as many\n"
            )


if __name__ == "__main__":
    main()
