"""Where log lines go and how they look."""

import json
import logging
import sys
import time
from typing import Literal

_TEXT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"


def set_up_logging(level: str, style: Literal["text", "json"]) -> None:
    """All of this process's logs, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else _text_lines())
    # What libraries tell below that holds contents of conversations.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("hector").setLevel(level.upper())


def warn_only() -> None:
    """For commands whose standard error is read by people."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


def _text_lines() -> logging.Formatter:
    lines = logging.Formatter(_TEXT, "%Y-%m-%dT%H:%M:%S")
    lines.converter = time.gmtime
    return lines


class JsonLines(logging.Formatter):
    """One JSON object for each record; an exception is in it, line breaks and all."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
