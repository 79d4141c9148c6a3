"""An operator's program with the library pyssm-client, which neither answers a handshake's questions nor repeats itself.

Argument: the id of a connected node. Every check is an assertion. Started by tests/end_to_end/other_clients.rs.
"""

import os
import sys

from pyssm_client.exec import run_command_sync

NODE = sys.argv[1]
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]

result = run_command_sync(NODE, "seq 1 2000; echo sum-$((40+2)); (exit 3)", endpoint_url=ENDPOINT, timeout=60)
lines = result.stdout.decode().splitlines()
first = lines.index("1")
assert lines[first : first + 2001] == [str(number) for number in range(1, 2001)] + ["sum-42"], lines
assert result.exit_code == 3, result
print("all checks passed")
