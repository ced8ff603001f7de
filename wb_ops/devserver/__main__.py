"""``python -m wb_ops.devserver``: serve until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import threading

from wb_ops.devserver.server import DevServer


def main() -> None:
    """Parse the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m wb_ops.devserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port of the API; 0 takes a free one")
    parser.add_argument("--db", default=":memory:", help="a SQLite file that outlives the server")
    options = parser.parse_args()
    serve(port=options.port, path=options.db)


def serve(*, port: int, path: str) -> None:
    """Print one JSON line with the addresses and the key, then serve until a signal comes."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with DevServer(port=port, path=path) as server:
        addresses = {
            "url": server.url,
            "storage_url": server.storage_url,
            "api_key": server.api_key,
        }
        print(json.dumps(addresses), flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
