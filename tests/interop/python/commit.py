"""Acks and appends, all or nothing; sent again it is a duplicate; a part that fails undoes the rest."""

from common import *  # noqa: F403

stub, manager = connect()
append(stub, "orders", "0", "1", "2")
call, opened = subscribe(stub, "orders", "billing")
take(call, 3)
producer = stub.OpenProducer(session.OpenProducer(producer="tx"), timeout=PATIENCE)
assert producer.epoch == 1 and not producer.HasField("stream_id"), producer


def commit(seq, offset, *outputs, checks=()):
    return stub.Commit(
        session.Commit(
            producer=session.ProducerStamp(id="tx", epoch=1, seq=seq),
            acks=[session.CommitAck(stream="orders", subscription="billing", epoch=opened.epoch, offset=offset)],
            appends=[session.CommitAppend(stream="invoices", events=events(*outputs))],
            checks=checks,
        ),
        timeout=PATIENCE,
    )


done = commit(0, 1, '{"n":1}')
assert [(a.offset, a.next) for a in done.acks] == [(1, 2)] and [(a.stream, a.first_offset) for a in done.appends] == [("invoices", 0)], done
again = commit(0, 1, '{"n":1}')
assert again.duplicate and again.appends == done.appends, again

failed = refused(lambda: commit(1, 2, '{"n":2}', checks=[session.CommitCheck(stream="orders", expected_next_offset=99)]))
assert failed.error.code == "txn_part_failed" and '"condition_failed"' in failed.error.details, failed
assert failed.status == grpc.StatusCode.FAILED_PRECONDITION, failed
where = manager.GetSubscription(admin.GetSubscriptionRequest(stream="orders", name="billing"), timeout=PATIENCE)
invoices = manager.GetStream(admin.GetStreamRequest(name="invoices"), timeout=PATIENCE)
assert (where.next, invoices.next_offset) == (2, 1), (where, invoices)
# Its number was not used up.
assert not commit(1, 2, '{"n":2}').duplicate
call.cancel()
