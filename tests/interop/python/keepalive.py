"""Pings of a client keep a silent reader alive; when nobody answers them, the client notices."""

import os
import signal
import time

from common import *  # noqa: F403

PINGS = (
    ("grpc.keepalive_time_ms", 200),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.http2.max_pings_without_data", 0),
)
stub, _ = connect(*PINGS)
calm, _ = connect(("grpc.use_local_subchannel_pool", 1))
append(calm, "orders", "0")
call, _ = subscribe(stub, "orders", "billing")
take(call, 1)
# Time for some pings: a broker that minds them would have hung up.
time.sleep(1.5)
append(calm, "orders", "1")
frame = next(call)
while frame.WhichOneof("frame") == "live":
    frame = next(call)
assert frame.events.batches[0].base_offset == 1, frame

os.kill(BROKER_PID, signal.SIGSTOP)
try:
    began = time.monotonic()
    list(call)
    raise AssertionError("a frozen broker must be noticed")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    assert time.monotonic() - began < PATIENCE / 2, "only the deadline noticed"
finally:
    os.kill(BROKER_PID, signal.SIGCONT)

call, opened = subscribe(stub, "orders", "billing")
assert opened.next == 0 and take(call, 2) == [(0, "0"), (1, "1")], opened
call.cancel()
