"""Fault campaigns: `python tests/campaign.py` runs all and prints the table of docs/reliability.md.

Faults are real where they can be: processes are killed, disks are full, memory ends, power is cut.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

import torch  # noqa: E402

from campaigns import costs, deaths, numbers, power, search_faults, searches, storage  # noqa: E402
from campaigns.table import Place, Row  # noqa: E402
from support.corpora import write_corpus  # noqa: E402

CAMPAIGNS: dict[str, Callable[[Place, random.Random], Row | list[Row]]] = {
    campaign.__name__: campaign
    for campaign in (
        deaths.kills, power.power_cuts, deaths.rollbacks, deaths.signals, deaths.loaders, deaths.hangs, storage.resumes,
        storage.damages, storage.full_disks, numbers.faults, numbers.memory, storage.foreign_code, costs.cost,
        costs.verifying, searches.searches, searches.confirmations, search_faults.search_faults,
    )
}  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", default=list(CAMPAIGNS), help=f"some of {', '.join(CAMPAIGNS)} (default: all)")
    p.add_argument("--seed", type=int, default=1234)
    p.add_argument("--share", type=float, default=1.0, help="of the repetitions, such as 0.05 for a quick look")
    args = p.parse_args()
    if unknown := set(args.names) - set(CAMPAIGNS):
        p.error(f"no campaign is called {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    torch.set_num_threads(1)
    is_kept = True
    print("| fault | outcome | kept |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACOTRON2_CACHE"] = str(Path(folder) / "cache")
        place = Place(Path(folder), write_corpus(Path(folder) / "data"), args.share)
        for name in args.names:
            began = time.perf_counter()
            done = CAMPAIGNS[name](place, random.Random(f"{args.seed} {name}"))
            for row in done if isinstance(done, list) else [done]:
                print(row, flush=True)
                is_kept &= row.is_kept
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
