"""`hector config check`."""

import json
from pathlib import Path

import pytest

from hector.cli.check import check_config
from hector.domain.errors import ConfigError

GOOD = """\
llms: {s: {type: scripted}}
session_stores: {main: {backend: memory}}
agents:
  one: {llm: s, session_store: main}
  two: {llm: s}
"""
BAD = "agents:\n  one:\n    llm: local\n    promt: x\n  two: {llm: local, session_store: nope}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_a_sound_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, GOOD)
    assert check_config(path, as_json=False) == 0
    assert capsys.readouterr().out == f"{path}: ok (2 agents, 1 session store)\n"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        check_config(written(tmp_path, BAD), as_json=False)
    assert [problem.line for problem in raised.value.problems] == [4, 5]


def test_a_program_is_given_the_faults_and_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, BAD)
    assert check_config(path, as_json=True) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["problems"][0] == {
        "file": str(path),
        "line": 4,
        "path": "agents.one.promt",
        "text": "unknown key (did you mean 'prompt'?)",
    }


def test_a_program_is_told_that_a_file_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_config(written(tmp_path, GOOD), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_what_is_wrong_with_the_providers_variables_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    path = written(tmp_path, "llms: {m: {type: openai, model: x}}\nagents: {a: {llm: m}, b: {llm: gpt-4o}}\n")
    with pytest.raises(ConfigError) as raised:
        check_config(path, as_json=False)
    assert [problem.path for problem in raised.value.problems] == ["llms.m.host", "agents.b.llm"]
    assert all("OPENAI_BASE_URL holds no URL" in problem.text for problem in raised.value.problems)
