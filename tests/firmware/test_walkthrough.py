"""docs/micropython.md, its part on one's own machine, typed as it stands but for the ports."""

import json
import os
from pathlib import Path

from tests.e2e.program import Program, clean_environment, run, script, started
from tests.support.ports import free_port
from tests.support.snippets import ROOT, run_by
from tests.support.wait import eventually


async def test_the_walkthrough(tmp_path: Path) -> None:
    """A device from nothing to a reset, in the blocks of the page."""
    http, mqtt = (f"127.0.0.1:{free_port()}" for _ in range(2))
    serve, bind, live, reset = (
        each.code.replace("127.0.0.1:8080", http) for each in run_by("micropython", ROOT / "docs" / "micropython.md")
    )
    path = f"{Path(script('gateway')).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(GATEWAY_HTTP=http, GATEWAY_MQTT=mqtt, PATH=path)
    (tmp_path / "firmware").symlink_to(ROOT / "firmware")

    def program(name: str, code: str, **more: str) -> Program:
        line = f"cd {tmp_path}; exec {code}" if name == "gateway" else f"cd {tmp_path}; {code}"
        return Program(tmp_path, name, "bash", "-c", line, environment={**environment, **more})

    async with started(program("gateway", serve)) as gateway:
        await gateway.said("is ready")
        keep = f"{bind}\necho $GATEWAY_API_KEY > key"
        outcome = await run("bash", "-euc", keep, environment=environment, folder=tmp_path)
        assert outcome.code == 0, outcome.err
        key = (tmp_path / "key").read_text().strip()
        # A person's terminal stays open as the serial line; here a pipe that nobody closes does.
        os.mkfifo(tmp_path / "terminal")
        async with started(program("device", live.replace("jsonl -", "jsonl terminal"))) as device:
            with (tmp_path / "terminal").open("r+b", buffering=0) as terminal:
                await device.said('"kind": "heartbeat"')
                terminal.write(b'{"do": "info"}\n')
                await device.said('"state": "online"')
                outcome = await run(
                    "bash", "-euc", reset, environment=environment | {"GATEWAY_API_KEY": key}, folder=tmp_path
                )
                assert outcome.code == 0, outcome.err
                await eventually(lambda: device.out.count('"powered_on"') == 2, "it is unpaired")
                assert json.loads(device.out.splitlines()[-1])["pairing"] == "unpaired"
                terminal.write(b'{"do": "shutdown"}\n')
                await device.said('{"ok": true}')
        assert list((tmp_path / "flash" / "wiped").iterdir()) == []
