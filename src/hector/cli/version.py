"""`hector version`."""

import json
import platform

from hector import __version__


def show_version(*, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"hector": __version__, "python": platform.python_version()}))
    else:
        print(f"hector {__version__}")
    return 0
