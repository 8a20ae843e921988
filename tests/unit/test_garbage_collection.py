"""When the garbage collector runs; in processes of their own, since each has one collector."""

import subprocess
import sys

KEPT_TWICE = """
import gc, weakref
from kvr_sync.garbage_collection import keep_what_is_there

class Thing:
    pass

thing = Thing()
thing.itself = thing
seen = weakref.ref(thing)
keep_what_is_there()
del thing
gc.collect()
print("kept" if seen() else "gone")
keep_what_is_there()
print("kept" if seen() else "gone")
"""


def test_what_was_kept_is_freed_when_something_else_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", KEPT_TWICE], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["kept", "gone"]
