"""The garbage collector of a worker, which is of another process than the tests'."""

import subprocess
import sys

WORKER = """
import asyncio, gc
from types import SimpleNamespace
from aphlict.process.channel import pair
from aphlict.process.worker import StopMode, Worker

class Node:
    async def start(self):
        assert gc.get_freeze_count() == 0
    def abort(self):
        pass

async def run():
    context = SimpleNamespace(log_handler=SimpleNamespace(flush_repeats=int, reopen=int))
    ours, supervisors = pair()
    worker = Worker(context, Node, ours)
    worker.stop(StopMode.ABORT)
    await worker.run()

asyncio.run(run())
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_objects_of_the_start_are_frozen() -> None:
    done = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, check=True)
    frozen, others = map(int, done.stdout.split())
    assert frozen > 20 * others
