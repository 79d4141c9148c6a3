"""Changes members of a job in the endpoint's database, as somebody who has captured the endpoint could."""

import json
import sqlite3
import sys

database, command_id, members = sys.argv[1:]
connection = sqlite3.connect(database)
(content,) = connection.execute(
    "SELECT job_content FROM command WHERE command_id = ?", (command_id,)
).fetchone()
job = json.loads(content)
for name, value in json.loads(members).items():
    if value is None:
        job.pop(name, None)
    else:
        job[name] = value
changed = connection.execute(
    "UPDATE command SET job_content = ? WHERE command_id = ?", (json.dumps(job), command_id)
)
assert changed.rowcount == 1
connection.commit()
print(json.dumps(job))
