"""`python -m tests.chaos`: kill running servers and look for what was lost."""

import argparse
import asyncio
import random
import signal
import sys

from tests.chaos.stores import DATABASES
from tests.chaos.suite import Settings, run

_SAFEGUARDS = ("guard", "begin", "commit", "lease", "places", "calls", "results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how many faults (50)")
    parser.add_argument("--minutes", type=float, metavar="M", help="as many faults as fit into M minutes")
    parser.add_argument(
        "--seed", type=int, help="choose the same faults again; their moments differ a little"
    )
    parser.add_argument(
        "--database", choices=DATABASES, default="sqlite", help="where the sessions are kept (sqlite)"
    )
    parser.add_argument(
        "--without", choices=_SAFEGUARDS, help="take this safeguard out: anomalies must be found"
    )
    asked = parser.parse_args()
    if asked.without == "commit" and asked.database == "sqlite":
        parser.error("a commit to a file always has an answer; name another --database")
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    # As Ctrl-C, after which everything is ended and cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # More than any hour has room for.
    faults = asked.kills if asked.minutes is None else 10**6
    settings = Settings(faults, seed, asked.without, asked.database, asked.minutes)
    try:
        report = asyncio.run(run(settings, lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        return 130
    print("\n".join(report.lines()))
    for anomaly in report.anomalies[:20]:
        print(f"ANOMALY {anomaly[:1000]}")
    if report.anomalies:
        which = f"--database {asked.database} --kills {asked.kills} --seed {seed}"
        print(f"again: python -m tests.chaos {which}")
    return 1 if report.anomalies else 0


if __name__ == "__main__":
    sys.exit(main())
