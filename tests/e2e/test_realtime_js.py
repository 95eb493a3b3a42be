"""Updates reach Supabase's own JavaScript client, through a stand-in for its Realtime server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.test_realtime import broadcasting, leads
from tests.support.factories import an_email_job
from tests.support.phoenix import phoenix

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("npm") is None and "CI" not in os.environ, reason="npm is not installed"
    ),
]

PACKAGES = ("@supabase/realtime-js@2", "ws@8")
SCRIPT = """
const { RealtimeClient } = require("@supabase/realtime-js");
const [url, topic, isPrivate, token] = process.argv.slice(2);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const client = new RealtimeClient(url.replace("http", "ws") + "/realtime/v1", {
  transport: require("ws"),
  params: { apikey: token },
  accessToken: async () => token,
});
client
  .channel(topic, { config: { private: isPrivate === "private" } })
  .on("broadcast", { event: "job_update" }, (message) => say({ message }))
  .subscribe((status) => say({ status }));
setTimeout(() => process.exit(3), 60000);
"""


@pytest.fixture(scope="module")
def client_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the client and give a script that prints what it hears."""
    folder = tmp_path_factory.mktemp("realtime-js")
    done = subprocess.run(
        ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"the client cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    script = folder / "listen.js"
    script.write_text(SCRIPT)
    return script


class Browser:
    """The client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def open(cls, script: Path, url: str, topic: str, kind: str, token: str) -> Browser:
        """Join a topic."""
        process = await asyncio.create_subprocess_exec(
            "node", str(script), url, topic, kind, token, stdout=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def hears(self) -> dict[str, object]:
        """Return what the client says next."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        assert line, "the client left"
        found: dict[str, object] = json.loads(line)
        return found

    async def close(self) -> None:
        """End it."""
        self.process.kill()
        await self.process.communicate()


@pytest.mark.parametrize(
    ("workspace", "topic", "kind"),
    [
        ("default", "enrichment_updates", "open"),
        ("team-a", "enrichment_updates:team-a", "private"),
    ],
)
async def test_supabases_own_client_hears_of_a_job(
    database_url, conn, queue, eventually, client_script, workspace, topic, kind
):
    async with phoenix() as server, broadcasting(database_url, server):
        server.may_join = lambda name, token, is_private: (
            not is_private or name == f"realtime:enrichment_updates:{token}"
        )
        await eventually(lambda: leads(conn))
        browser = await Browser.open(client_script, server.url, topic, kind, "team-a")
        stranger = await Browser.open(client_script, server.url, topic, kind, "team-b")
        try:
            assert await browser.hears() == {"status": "SUBSCRIBED"}
            heard = await stranger.hears()
            assert heard == {"status": "SUBSCRIBED" if kind == "open" else "CHANNEL_ERROR"}
            job_id = (await queue.enqueue(an_email_job(workspace_id=workspace))).id
            created = (await browser.hears())["message"]
            await queue.cancel(workspace_id=workspace, job_id=job_id)
            cancelled = (await browser.hears())["message"]
        finally:
            await browser.close()
            await stranger.close()

    assert created["event"] == cancelled["event"] == "job_update"
    assert created["payload"]["jobId"] == cancelled["payload"]["jobId"] == str(job_id)
    assert [one["payload"]["status"] for one in (created, cancelled)] == ["pending", "cancelled"]
