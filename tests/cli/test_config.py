"""``gateway config`` and the reference of settings in the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.docs_settings import settings_reference
from gateway.settings.loading import FIELDS, option_name, variable_name

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from the machine that the tests run on."""
    monkeypatch.chdir(tmp_path)
    for name in [*map(variable_name, FIELDS), "GATEWAY_CONFIG"]:
        monkeypatch.delenv(name, raising=False)


def in_force(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What ``gateway config --json`` says."""
    assert main(["config", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_setting_has_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The options come from the fields, so none is missing, and serve takes the same."""
    for command in ("config", "serve"):
        assert main([command, "--help"]) == 0
        helped = capsys.readouterr().out
        assert [name for name in FIELDS if f"  {option_name(name)} " not in helped] == []


def test_json_contains_value_and_source(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting, each with where it came from; the types are JSON's own."""
    monkeypatch.setenv("GATEWAY_HTTP", "127.0.0.1:0")
    Path("my.toml").write_text("offline_grace_seconds = 2.5", encoding="utf-8")
    document = in_force(
        capsys, "--config", "my.toml", "--models", "a,b", "--insecure-listen", "--no-mqtt-tls-advertise"
    )
    settings = document["settings"]
    assert list(settings) == list(FIELDS)
    assert document["config_file"] == "my.toml"
    assert settings["http"] == {"value": "127.0.0.1:0", "source": "environment GATEWAY_HTTP"}
    assert settings["offline_grace_seconds"] == {"value": 2.5, "source": "my.toml:offline_grace_seconds"}
    assert settings["models"] == {"value": ["a", "b"], "source": "option --models"}
    assert settings["insecure_listen"] == {"value": True, "source": "option --insecure-listen"}
    assert settings["mqtt_tls_advertise"] == {"value": False, "source": "option --no-mqtt-tls-advertise"}
    assert settings["gateway_id"] == {"value": None, "source": "default"}


def test_an_option_can_switch_a_setting_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment switched on, the command line can switch off."""
    monkeypatch.setenv("GATEWAY_INSECURE_LISTEN", "true")
    assert in_force(capsys, "--no-insecure-listen")["settings"]["insecure_listen"]["value"] is False


def test_the_table_shows_value_and_source(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line per setting with value and source, whole through a pipe; 0 and 1 are numbers."""
    long = "d" * 200
    monkeypatch.setenv("GATEWAY_REFUSALS_KEPT", "1")
    assert main(["config", "--data-dir", long, "--rate-limit-per-minute", "0"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["data_dir", long, "option", "--data-dir"] in lines
    assert ["refusals_kept", "1", "environment", "GATEWAY_REFUSALS_KEPT"] in lines
    assert ["rate_limit_per_minute", "0", "option", "--rate-limit-per-minute"] in lines
    assert ["models", "bota_pin,bota_note,bota_pin_pro", "default"] in lines
    assert {line[0] for line in lines if line} >= set(FIELDS)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_password_is_masked(
    form: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both forms the user stays and the password goes."""
    monkeypatch.setenv("GATEWAY_BROKER", "mqtts://gateway:hunter22@b")
    assert main(["config", *form]) == 0
    shown = capsys.readouterr().out
    assert "mqtts://gateway:********@b:8883" in shown
    assert "hunter22" not in shown


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd, not wrong: said beside the output, which stays JSON."""
    monkeypatch.setenv("GATEWAY_HTPP", "x")
    assert main(["config", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("warning: environment GATEWAY_HTPP is not a setting and has no effect; did you mean")
    assert json.loads(told.out)["warnings"] == [told.err.removeprefix("warning: ").strip()]


def test_documentation_has_the_table_of_settings() -> None:
    """docs/settings.md holds what ``python -m gateway.cli.docs_settings`` prints, so no setting is undocumented."""
    assert f"\n{settings_reference()}\n" in DOCS.read_text(encoding="utf-8"), "run: python -m gateway.cli.docs_settings"


def test_reference_names_every_setting_in_each_source() -> None:
    """With its names in file, command line and environment, and its default."""
    for name in FIELDS:
        assert f"| `{name}`<br>`{option_name(name)}`<br>`{variable_name(name)}` |" in settings_reference()
