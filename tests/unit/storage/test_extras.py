import subprocess
import sys

import pytest

from hector.storage.extras import ServerKind, missing_driver


@pytest.mark.parametrize("driver", ["postgres", "mysql"])
def test_nothing_is_missing_where_the_packages_are(driver: ServerKind) -> None:
    assert missing_driver(driver) is None


@pytest.mark.parametrize(
    ("driver", "module"),
    [("postgres", "asyncpg"), ("postgres", "greenlet"), ("mysql", "asyncmy"), ("mysql", "greenlet")],
)
def test_a_missing_package_is_told_with_the_command(
    driver: ServerKind, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    assert missing_driver(driver) == (
        f"driver {driver} needs a package that is not installed: pip install 'hector[{driver}]'"
    )


def test_to_look_imports_nothing() -> None:
    code = """
import sys
from hector.storage.extras import missing_driver
missing_driver("postgres"), missing_driver("mysql")
sys.exit(bool({"asyncpg", "asyncmy", "greenlet"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
