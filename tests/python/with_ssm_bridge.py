"""An operator's program with the library aws-ssm-bridge: the strictest reader of frames that we know of.

Argument: the id of a connected node. It takes stream URLs of AWS's host names only, so the endpoint has one of them
here. Every check is an assertion. It is started by tests/end_to_end/other_clients.rs.
"""

import asyncio
import http.server
import sys
import threading
import urllib.request

from aws_ssm_bridge import PortForwarder, SessionManager, run_command

NODE = sys.argv[1]
REGION = "us-east-1"
LIMIT = 60


async def text_until_end(output):
    text = b""
    async for chunk in output:
        text += chunk
    return text.decode()


async def a_shell(manager):
    session = await manager.start_session(NODE, reason="a test")
    output = session.output()
    await session.wait_ready()
    await session.send_terminal_size(101, 41)
    await session.send(b"stty size; seq 1 3000; echo sum-$((40+2)); exit\r")
    text = await asyncio.wait_for(text_until_end(output), LIMIT)
    assert "41 101\r\n" in text, text
    assert "".join(f"{number}\r\n" for number in range(1, 3001)) in text, text
    assert "sum-42" in text, text
    await asyncio.wait_for(session.wait_closed(), LIMIT)


async def a_silent_program_takes_input(manager):
    """Nothing comes out before something goes in: this client waits to be told that it may send."""
    session = await manager.start_session(
        NODE, document_name="AWS-StartInteractiveCommand", parameters={"command": ["head -n 1 >/dev/null; echo read"]}
    )
    output = session.output()
    await session.wait_ready()
    await session.send(b"a line\r")
    text = await asyncio.wait_for(text_until_end(output), LIMIT)
    assert text.endswith("read\r\n"), text


async def a_command_without_terminal():
    text = await asyncio.wait_for(run_command(NODE, "seq 1 20", region=REGION), LIMIT)
    assert text.splitlines() == [str(number) for number in range(1, 21)], text


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with as many bytes as the path says."""

    def do_GET(self):
        body = b"x" * int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


async def a_forwarded_port(manager):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    session = await manager.start_port_forward(NODE, server.server_port)
    await session.wait_ready()
    forwarder = await PortForwarder.bind()
    serving = asyncio.ensure_future(forwarder.forward(session))

    def get(length, limit=LIMIT):
        with urllib.request.urlopen(f"http://127.0.0.1:{forwarder.port}/{length}", timeout=limit) as page:
            return len(page.read())

    # The library takes a session for ready when its endpoint takes data, which is before the handshake with the agent.
    # What it sends before that is complete agents throw away, the stock one as well: of a connection that is waiting
    # already the begin may be lost, and nobody sends it again.
    for attempt in range(5):
        try:
            await asyncio.to_thread(get, 0, 5)
            break
        except TimeoutError:
            assert attempt < 4, "not one answer came"
    lengths = [0, 1, 1024, 100_000, 300_000] * 4
    got = await asyncio.gather(*(asyncio.to_thread(get, length) for length in lengths))
    assert got == lengths, got
    forwarder.stop()
    await session.terminate()
    await asyncio.wait({serving}, timeout=LIMIT)
    server.shutdown()


async def main():
    manager = await SessionManager.new(region=REGION)
    await a_shell(manager)
    await a_silent_program_takes_input(manager)
    await a_command_without_terminal()
    await a_forwarded_port(manager)
    print("all checks passed")


asyncio.run(main())
