"""Who was replaced hears so as a status whose details a program can read, and cannot ack, commit or append any more."""

from common import *  # noqa: F403

stub, _ = connect()
append(stub, "orders", "0", "1")
old, first = subscribe(stub, "orders", "billing")
take(old, 2)
new, second = subscribe(stub, "orders", "billing")
assert (first.epoch, second.epoch) == (1, 2)

fenced = ends(old)
assert (fenced.status, fenced.error.code, fenced.error.rule) == (grpc.StatusCode.ABORTED, "session_fenced", "C-7"), fenced
assert '"epoch":2' in fenced.error.details and fenced.info.metadata["applied"] == "no" and fenced.info.metadata["retry"] == "decide", fenced

late = refused(lambda: stub.Ack(broker.AckRequest(stream="orders", subscription="billing", epoch=1, offset=1), timeout=PATIENCE))
assert (late.status, late.error.code) == (grpc.StatusCode.ABORTED, "session_fenced"), late
busy = refused(lambda: subscribe(stub, "orders", "billing", takeover=session.TAKEOVER_REJECT))
assert (busy.status, busy.error.code) == (grpc.StatusCode.ABORTED, "cursor_busy"), busy
assert take(new, 2) == [(0, "0"), (1, "1")]
new.cancel()

for _ in range(2):
    stub.OpenProducer(session.OpenProducer(stream="orders", producer="p1"), timeout=PATIENCE)
writer = refused(lambda: append(stub, "orders", "2", producer=session.ProducerStamp(id="p1", epoch=1, seq=0)))
assert (writer.status, writer.error.code) == (grpc.StatusCode.ABORTED, "producer_fenced"), writer
