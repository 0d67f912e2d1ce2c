"""Shell scripts of the documentation, each run in a sandbox of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMESPACES = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]


@cache
def isolation() -> list[str] | None:
    """The command that gives a process its own network and process ids; None where that is not allowed."""
    unshare = shutil.which("unshare")
    for user in ([], ["--user", "--map-root-user"]) if unshare else ():
        command = [str(unshare), *user, *NAMESPACES]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def bash(
    folder: Path,
    script: str,
    *,
    servers: Mapping[int, Path] | None = None,
    environ: Mapping[str, str] | None = None,
    typed: str = "",
) -> "subprocess.CompletedProcess[str]":
    """Run it in the folder. `servers` are the sockets behind ports of localhost; `typed` is what it may read.

    Where there are no namespaces, other ports take the place of those that the script and config.yaml name.
    """
    servers = servers or {}
    prefix = isolation()
    ports = {port: port for port in servers}
    if prefix is None:
        # Another program may hold the ports that the documentation names.
        free = 20000 + os.getpid() % 10000
        script = re.sub(r"(serve --config config.yaml)(?! --port)", rf"\1 --port {free}", script)
        ports = {port: free + number for number, port in enumerate(servers, start=2)}
        others = {8090: free, 8091: free + 1, 8079: free, 8080: free + 1, **ports}
        script = _renumbered(script, others)
        config = folder / "config.yaml"
        config.write_text(_renumbered(config.read_text(), others))
    task = {
        "folder": str(folder),
        "script": script,
        "typed": typed,
        "servers": {ports[port]: str(socket) for port, socket in servers.items()},
    }
    if 5432 in ports:
        environ = {**(environ or {}), "PGPORT": str(ports[5432])}
        for_port = Path(environ["PGHOST"], f".s.PGSQL.{ports[5432]}")
        if not for_port.is_symlink():
            for_port.symlink_to(servers[5432])
    return subprocess.run(
        [*(prefix or ()), sys.executable, "-m", "tests.e2e.sandbox"],
        input=json.dumps(task),
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def documented(page: str, part: str) -> str:
    """The only script on a page that holds this, for a folder with `./hector`."""
    text = (ROOT / "docs" / page).read_text()
    (found,) = (
        block for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if part in block
    )
    return str(found).replace(".venv/bin/hector", "./hector")


def _renumbered(text: str, ports: Mapping[int, int]) -> str:
    return re.sub(r"\b\d{4}\b", lambda found: str(ports.get(int(found[0]), found[0])), text)
