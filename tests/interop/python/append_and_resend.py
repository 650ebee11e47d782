"""A batch that is sent again is stored once, and the answer says so; a hole in the numbers is refused."""

from common import *  # noqa: F403

stub, _ = connect()
opened = stub.OpenProducer(session.OpenProducer(req=1, stream="orders", producer="p1"), timeout=PATIENCE)
assert (opened.epoch, opened.HasField("last_seq"), opened.origin) == (1, False, "created"), opened


def send(epoch, seq, *data):
    return append(stub, "orders", *data, producer=session.ProducerStamp(id="p1", epoch=epoch, seq=seq))


first = send(1, 0, '{"n":0}', '{"n":1}')
assert (first.first_offset, first.last_offset, first.count, first.duplicate, first.durability) == (0, 1, 2, False, "fsync"), first
again = send(1, 0, '{"n":0}', '{"n":1}')
assert (again.first_offset, again.last_offset, again.count, again.duplicate) == (0, 1, 2, True), again

hole = refused(lambda: send(1, 5, '{"n":5}'))
assert (hole.status, hole.error.code, hole.error.rule) == (grpc.StatusCode.FAILED_PRECONDITION, "producer_seq_gap", "P-8"), hole
assert hole.error.applied == session.APPLIED_NO and '"expected":2' in hole.error.details, hole

# Somebody who forgot everything asks where it was.
opened = stub.OpenProducer(session.OpenProducer(stream="orders", producer="p1", expect=session.EXPECT_RESUME), timeout=PATIENCE)
assert (opened.epoch, opened.last_seq, opened.next_offset, opened.origin) == (2, 1, 2, "resumed"), opened
assert send(2, 2, '{"n":2}').first_offset == 2

read = list(stub.Read(broker.ReadRequest(stream="orders"), timeout=PATIENCE))
data = [e.data.decode() for answer in read for batch in answer.batches for e in batch.events]
assert data == ['{"n":0}', '{"n":1}', '{"n":2}'], data
