"""`python -m tests.servers [postgres|mysql]...` runs servers until Ctrl-C."""

import argparse
import asyncio
from contextlib import suppress

from tests.servers import SERVERS, StartError, running


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description="Runs servers until Ctrl-C.")
    parser.add_argument("drivers", nargs="*", metavar="DRIVER", help="postgres, mysql; both if none is given")
    parser.add_argument("--durable", action="store_true", help="with the servers' default durability")
    asked = parser.parse_args()
    if unknown := set(asked.drivers) - set(SERVERS):
        parser.error(f"no driver named {unknown.pop()!r} (known: {', '.join(SERVERS)})")
    try:
        async with running(*asked.drivers, durable=asked.durable) as servers:
            for server in servers.values():
                db = await server.create_database(owner=True)
                print(db.dsn, f"log: {server.address.log}", sep="\n  ", flush=True)
            await asyncio.Event().wait()
    except StartError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
