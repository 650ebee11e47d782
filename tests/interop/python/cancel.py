"""Who cancels has left: the subscription has no reader any more, its cursor is where it was, and the channel goes on."""

import time

from common import *  # noqa: F403

stub, manager = connect()
append(stub, "orders", "0", "1")


def status():
    return manager.GetSubscription(admin.GetSubscriptionRequest(stream="orders", name="billing"), timeout=PATIENCE).status


call, _ = subscribe(stub, "orders", "billing")
take(call, 2)
assert status() == "Running"
call.cancel()
try:
    list(call)
    raise AssertionError("a cancelled call ends with an error")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.CANCELLED, error
until = time.monotonic() + PATIENCE
while status() != "Stopped":
    assert time.monotonic() < until, "the broker did not notice"
call, opened = subscribe(stub, "orders", "billing")
assert opened.next == 0 and take(call, 2) == [(0, "0"), (1, "1")], opened
call.cancel()
