"""A reader acks a part, goes away and comes back on another connection: it goes on behind what it acked."""

from common import *  # noqa: F403

stub, _ = connect()
append(stub, "orders", "0", "1", "2", "3", "4")
call, opened = subscribe(stub, "orders", "billing")
assert (opened.epoch, opened.next, opened.next_offset) == (1, 0, 5), opened
assert take(call, 5) == [(i, str(i)) for i in range(5)]
assert next(call).WhichOneof("frame") == "live"


def ack(epoch, offset):
    return stub.Ack(broker.AckRequest(stream="orders", subscription="billing", epoch=epoch, offset=offset), timeout=PATIENCE)


acked = ack(1, 2)
assert (acked.offset, acked.next, acked.stale) == (2, 3, False), acked
beyond = refused(lambda: ack(1, 5))
assert (beyond.status, beyond.error.code) == (grpc.StatusCode.OUT_OF_RANGE, "ack_beyond_end"), beyond
call.cancel()
# Somebody who takes little at a time cannot ack what was not sent.
narrow, opened = subscribe(stub, "orders", "slow", credit=session.Credit(events=1, bytes=1000))
take(narrow, 1)
ahead = refused(lambda: stub.Ack(broker.AckRequest(stream="orders", subscription="slow", epoch=opened.epoch, offset=3), timeout=PATIENCE))
assert (ahead.status, ahead.error.code, ahead.error.rule) == (grpc.StatusCode.FAILED_PRECONDITION, "ack_not_delivered", "C-10"), ahead
narrow.cancel()

other, _ = connect(("grpc.use_local_subchannel_pool", 1))
call, opened = subscribe(other, "orders", "billing")
assert (opened.epoch, opened.next) == (2, 3), opened
assert take(call, 2) == [(3, "3"), (4, "4")]
# What is appended now is pushed.
append(stub, "orders", "5")
assert take(call, 1) == [(5, "5")]
assert ack(2, 5).next == 6
call.cancel()
