"""A deadline on a silent stream ends it with DEADLINE_EXCEEDED, and the cursor stays; a deadline that is far away changes nothing."""

import time

from common import *  # noqa: F403

stub, _ = connect()
append(stub, "orders", "0")
began = time.monotonic()
call, _ = subscribe(stub, "orders", "billing", timeout=1)
assert take(call, 1) == [(0, "0")]
try:
    frames = [frame.WhichOneof("frame") for frame in call]
    raise AssertionError(f"it ended well after {frames}")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert time.monotonic() - began >= 0.9, "the deadline came too early"

# An append with time to spare is what it was; the reader finds what it did not ack.
append(stub, "orders", "1")
call, opened = subscribe(stub, "orders", "billing")
assert opened.next == 0 and take(call, 2) == [(0, "0"), (1, "1")], opened
call.cancel()
