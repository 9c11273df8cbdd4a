"""Settings that nobody means: files that are none, ports and topics that there are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.settings import child_environment, load

DEEP = 5_000


def refusal(flags: dict[str, str] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, config, environ={})
    return str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "x = " + "[" * DEEP + "]" * DEEP,
        "x = " + "{a=" * DEEP + "1" + "}" * DEEP,
        "kafka." + "a." * DEEP + "b = 1",
        "[kafka." + "a." * DEEP + "b]\nc = 1",
        "[" + "a." * DEEP + "b]\nc = 1",
        "kafka.client_id." + "a." * DEEP + "b = 1",
        "kafka.client_id = " + "[" * 300 + "]" * 300,
    ],
    ids=["lists", "tables", "a key", "a table", "an unknown table", "under a setting", "in one"],
)
def test_a_settings_file_that_is_nested_deep_is_refused_in_one_line(
    tmp_path: Path, content: str
) -> None:
    """In a process of its own, where the stack's depth is a user's."""
    config = tmp_path / "s.toml"
    config.write_text(content)
    command = [sys.executable, "-P", "-m", "worker", "topics", "describe", "--config", str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=child_environment()
    )
    assert done.returncode == 2, done.stderr[-1000:]
    assert "Traceback" not in done.stderr
    head, told = done.stderr.splitlines()
    assert head == "streamlabel: wrong settings"
    assert len(told) < 1000


def test_a_byte_order_mark_is_no_part_of_a_settings_file(tmp_path: Path) -> None:
    """Some editors put one there."""
    config = tmp_path / "s.toml"
    config.write_bytes(b'\xef\xbb\xbf[kafka]\r\ngroup_id = "mine"\r\n')
    assert load(config=config, environ={}).settings.kafka.group_id == "mine"


def test_a_settings_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('[kafka]\ngroup_id = "mine"\n', encoding="utf-16")
    assert refusal(config=config) == (
        f"can't read the settings file {config}: it is no UTF-8 text (byte 0)"
    )


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_brokers_port_that_there_is_not_is_refused(port: str) -> None:
    told = refusal({"kafka.bootstrap_servers": f"a:9092, [::1]:{port}"})
    assert told.startswith(f"kafka.bootstrap_servers: [::1]:{port} has no port from 1 to 65535")


@pytest.mark.parametrize(
    "name",
    [".", "..", "__consumer_offsets", "__transaction_state", "__share_group_state"],
)
@pytest.mark.parametrize("option", ["input.topic", "output.topic", "output.dead_letter_topic"])
def test_a_topic_that_is_no_ones_to_name_is_refused(option: str, name: str) -> None:
    told = refusal({option: name})
    assert told.startswith(f"{option} = {name!r} ")
    assert len(told.splitlines()) == 1
