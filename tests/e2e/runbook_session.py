"""An operator on a bad session: a site, a shell, and the runbook, block by block as it stands there."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.program import Outcome, clean_environment, run, script
from tests.e2e.support import BrokerKind, Site, running_site
from tests.support.measured import MEASURED, Measured
from tests.support.snippets import ROOT, Block, run_by

RunbookSessions = Callable[..., AbstractAsyncContextManager["RunbookSession"]]
BLOCKS = run_by("runbook", ROOT / "docs" / "runbook.md")


@dataclass
class RunbookSession:
    """A site, and an operator with a shell who has nothing but the runbook."""

    site: Site
    folder: Path
    record: Measured
    commands_took: float = 0.0
    """Seconds that the runbook's blocks took."""
    variables: dict[str, str] = field(default_factory=dict)

    async def follow(self, heading: str, number: int = 0) -> Outcome:
        """Run a block of this section; how its last command ended, and all that was said."""
        began, code = time.monotonic(), self._here(blocks_of(heading)[number].code)
        said = [await self._do(step) for step in _steps(code)]
        self.commands_took += time.monotonic() - began
        return Outcome(said[-1].code, "".join(each.out for each in said), "".join(each.err for each in said))

    @contextmanager
    def recovery(self, until: str) -> Iterator[None]:
        """Measure what happens inside: from the start of the repair, or its end, to ``until``."""
        began, before = time.monotonic(), self.commands_took
        yield
        seconds, commands = time.monotonic() - began, self.commands_took - before
        self.record(MEASURED, f"{until} after {seconds:.1f} s, {commands:.1f} s of it for the runbook's commands")

    def _here(self, code: str) -> str:
        """Map the places of a real installation to the folder of the test."""
        code = code.replace("/var/lib/gateway", str(self.site.gateway.data))
        return code.replace("/backup", str(self.folder / "backup"))

    async def _do(self, step: str) -> Outcome:
        words = step.split()
        if words[:1] != ["systemctl"]:
            return await run("bash", "-c", step, environment=self.environment, folder=self.folder)
        await {"stop": self._stop, "start": self._start}[words[1]](words[2])
        return Outcome(0, "", "")

    async def _stop(self, service: str) -> None:
        assert service == "gateway"
        if self.site.gateway.runs:
            await self.site.gateway.stop()

    async def _start(self, service: str) -> None:
        if service == "mosquitto":
            await self.site.broker.start()
        else:
            await self.site.gateway.restart()
        await self.site.synced()

    @property
    def environment(self) -> dict[str, str]:
        """The gateway's settings in the environment, its programs on the PATH, and what a person knows."""
        settings = {f"GATEWAY_{name.upper()}": text for name, text in self.site.gateway.settings.items()}
        path = f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}"
        data = str(self.site.gateway.data)
        return clean_environment(**settings, GATEWAY_DATA_DIR=data, PATH=path, **self.variables)


def blocks_of(heading: str) -> list[Block]:
    """The blocks of a section."""
    found = [block for block in BLOCKS if block.heading == heading]
    assert found, f"the runbook has no section {heading!r} with a block"
    return found


def _steps(code: str) -> list[str]:
    """Calls of systemctl apart, since there is no systemd here: the test starts and stops what it names."""
    steps: list[str] = [""]
    for line in code.splitlines(keepends=True):
        if line.startswith("systemctl "):
            steps += [line, ""]
        else:
            steps[-1] += line
    return [step for step in steps if step.strip()]


@asynccontextmanager
async def runbook_session(
    folder: Path, kind: BrokerKind, record: Measured, *options: str
) -> AsyncIterator[RunbookSession]:
    """A site that is well, as yet, with a backup of an earlier day where the runbook looks for it."""
    async with running_site(folder / "site", kind, *options) as site:
        (folder / "backup").mkdir()
        yield RunbookSession(site, folder, record)
