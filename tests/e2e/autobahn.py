"""Runs cases of the Autobahn suite against a WebSocket server that sends back what it gets.

autobahn.py URL CASE... prints a JSON object: each case's verdict on the exchange and on how it was closed.
"""

import asyncio
import json
import os
import sys

import kosoku


async def main(url, cases):
    try:
        results = await kosoku.run_fuzzingclient(url, cases=cases, concurrency=8)
    except kosoku.FailureError as failure:
        # Holds all of them.
        results = failure.results
    print(json.dumps({result.case_id: [result.behavior.value, result.behavior_close.value] for result in results}))


asyncio.run(main(sys.argv[1], sys.argv[2:]))
# Not by way of the interpreter's own end: the suite's native threads do not always survive that.
sys.stdout.flush()
os._exit(0)
