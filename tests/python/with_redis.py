"""Redis's own client, with a server at the other end of a forwarded port. Argument: the local port.

Started by tests/end_to_end/port_forwarding_programs.rs.
"""

import hashlib
import random
import sys
import threading

import redis

PORT = int(sys.argv[1])
store = redis.Redis(port=PORT, socket_timeout=60)

# large values both ways
value = random.Random(1).randbytes(8_000_000)
assert store.set("large", value)
assert hashlib.sha256(store.get("large")).digest() == hashlib.sha256(value).digest()

# many small questions without waiting for each answer
pipeline = store.pipeline(transaction=False)
for number in range(20_000):
    pipeline.rpush("list", number)
assert pipeline.execute() == list(range(1, 20_001))
assert [int(number) for number in store.lrange("list", 0, -1)] == list(range(20_000))


# counting from many connections at once
def count():
    own = redis.Redis(port=PORT, socket_timeout=60)
    for _ in range(100):
        own.incr("counter")


threads = [threading.Thread(target=count) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert int(store.get("counter")) == 2000

# one that waits for a message, while others talk
listener = store.pubsub()
listener.subscribe("news")
assert listener.get_message(timeout=60)["type"] == "subscribe"
store.publish("news", b"here it is")
assert listener.get_message(timeout=60)["data"] == b"here it is"
print("all checks passed")
