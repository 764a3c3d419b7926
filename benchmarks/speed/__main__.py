"""How fast is ddpmkit beside what people would use instead? ``make bench`` on a CPU, ``make bench-gpu`` on a GPU.

    python benchmarks/speed cpu                 # one thread, CPU seconds, networks for 8x8 and 28x28
    python benchmarks/speed gpu                 # within eight minutes on one H100; a dry run where there is no GPU
    python benchmarks/speed cpu --blocks 2 --only 8x8 --to /tmp/out

Contenders are processes that take turns, block by block; medians and spread are of the blocks. Compilation is printed
and not counted. Peers that are not installed have a row that says so: nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=("cpu", "gpu"), nargs="?")
    parser.add_argument("--blocks", type=int, default=5, help="blocks of each contender; medians are of these")
    parser.add_argument("--only", help="races whose title begins so")
    parser.add_argument("--small", action="store_true", help="networks asked a few times: that it runs, no figures")
    parser.add_argument("--dry", action="store_true", help="of gpu: on the CPU, toys, whatever is here")
    parser.add_argument("--no-peers", action="store_true", help="ddpmkit and plain torch alone")
    parser.add_argument("--seconds", type=float, default=465.0, help="of gpu: time for everything")
    parser.add_argument("--to", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--proof", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        import worker

        worker.main(json.loads(given.worker))
        return 0
    if given.proof:
        import proofs

        print(json.dumps(proofs.main(**json.loads(given.proof))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the contenders are ended
    if given.where is None:
        parser.error("say cpu or gpu")
    if given.where == "cpu":
        import cpu

        return cpu.main(given.blocks, given.to, only=given.only, small=given.small, peers=not given.no_peers)
    import gpu

    return gpu.main(given.blocks, given.to, dry=given.dry, peers=not given.no_peers, seconds=given.seconds)


if __name__ == "__main__":
    sys.exit(main())
