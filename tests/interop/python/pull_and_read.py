"""Without a stream of one's own: pulls with tokens, and reads that follow."""

from common import *  # noqa: F403

stub, manager = connect()
append(stub, "orders", "0", "1", "2", "3")
manager.CreateSubscription(admin.CreateSubscriptionRequest(stream="orders", name="billing"), timeout=PATIENCE)
pulled = stub.Pull(broker.PullRequest(stream="orders", subscription="billing", max_events=2), timeout=PATIENCE)
data = [e.data for b in pulled.batches for e in b.events]
assert data == [b"0", b"1"] and pulled.next == 2 and pulled.lag.events == 2, pulled
acked = stub.Ack(broker.AckRequest(stream="orders", subscription="billing", ack_token=pulled.ack_token), timeout=PATIENCE)
assert (acked.offset, acked.next) == (1, 2), acked
forged = refused(lambda: stub.Ack(broker.AckRequest(stream="orders", subscription="billing", ack_token="x" + pulled.ack_token), timeout=PATIENCE))
assert forged.error.code == "bad_ack_token", forged

# Read a part, and go on where it ended; then follow.
read = list(stub.Read(broker.ReadRequest(stream="orders", limit=3), timeout=PATIENCE))
assert [e.data for r in read for b in r.batches for e in b.events] == [b"0", b"1", b"2"] and read[-1].next == 3, read
following = stub.Read(broker.ReadRequest(**{"from": session.Start(offset=3)}, stream="orders", follow=True), timeout=PATIENCE)


def next_event():
    while not (batches := next(following).batches):
        pass
    return batches[0].events[0].data


assert next_event() == b"3"
append(stub, "orders", "4")
assert next_event() == b"4"
following.cancel()

missing = refused(lambda: list(stub.Read(broker.ReadRequest(stream="no such stream"), timeout=PATIENCE)))
assert (missing.status, missing.error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "bad_parameter"), missing
beyond = refused(lambda: list(stub.Read(broker.ReadRequest(stream="orders", after=99), timeout=PATIENCE)))
assert (beyond.status, beyond.error.code) == (grpc.StatusCode.OUT_OF_RANGE, "offset_beyond_end"), beyond
