"""Python's own HTTP server on a port of the loopback address. Arguments: the port, and the folder that it serves.

Started by tests/end_to_end/port_forwarding_programs.rs.
"""

import functools
import http.server
import sys


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


pages = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
Server(("127.0.0.1", int(sys.argv[1])), pages).serve_forever()
