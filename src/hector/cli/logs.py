"""Where log lines go and how they look."""

import json
import logging
import sys
import time
from typing import Literal

_TEXT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s {mark}%(name)s: %(message)s"


def set_up_logging(level: str, style: Literal["text", "json"], *, worker: int | None = None) -> None:
    """All of this process's logs, to standard error; of a worker, each line tells its number."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(worker) if style == "json" else text_lines(worker))
    # What libraries tell below that holds contents of conversations.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hector").setLevel(level.upper())


def warn_only() -> None:
    """For commands whose standard error is read by people."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


def text_lines(worker: int | None = None) -> logging.Formatter:
    mark = "" if worker is None else f"[worker {worker}] "
    lines = logging.Formatter(_TEXT.format(mark=mark), "%Y-%m-%dT%H:%M:%S")
    lines.converter = time.gmtime
    return lines


class JsonLines(logging.Formatter):
    """One JSON object for each record; an exception is in it, line breaks and all."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._whose = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, str | int] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._whose,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
