"""One `Connect` stream for everything: producer, pipelined appends, a reader, acks, a refusal that ends nothing, and a half-close."""

import queue

from common import *  # noqa: F403

stub, _ = connect()
said = queue.Queue()
call = stub.Connect(iter(said.get, None), timeout=PATIENCE)


def say(**frame):
    said.put(session.ClientFrame(**frame))


def hear(kind):
    frame = next(call)
    assert frame.WhichOneof("frame") == kind, frame
    return getattr(frame, kind)


assert hear("hello").version
say(open_producer=session.OpenProducer(req=1, stream="orders", producer="p1"))
epoch = hear("producer_opened").epoch
for seq in range(3):
    stamp = session.ProducerStamp(id="p1", epoch=epoch, seq=seq)
    say(append=session.Append(req=10 + seq, stream="orders", producer=stamp, events=events(str(seq))))
assert [hear("appended").req for _ in range(3)] == [10, 11, 12]

say(subscribe=session.Subscribe(sub=7, stream="orders", subscription="billing", create=True))
assert hear("subscribed").sub == 7
assert take(call, 3) == [(0, "0"), (1, "1"), (2, "2")]
assert hear("live").next_offset == 3
say(ack=session.Ack(sub=7, offset=2))
assert hear("acked").next == 3

# A refusal is a frame; the connection lives on.
say(append=session.Append(req=20, stream="orders", expected_next_offset=0, events=events("7")))
error = hear("error")
assert (error.req, error.code, error.applied) == (20, "condition_failed", session.APPLIED_NO), error
say(append=session.Append(req=21, stream="orders", events=events("8")))
assert hear("error").code == "session_poisoned"
say(resume=session.Resume(req=22, stream="orders"))
assert hear("resumed").req == 22
say(ping=session.Ping())
hear("pong")

# What was asked before the half-close is answered; then the stream ends well.
say(append=session.Append(req=23, stream="orders", producer=session.ProducerStamp(id="p1", epoch=epoch, seq=3), events=events("3")))
said.put(None)
rest = [frame for frame in call]
assert [f.appended.req for f in rest if f.WhichOneof("frame") == "appended"] == [23], rest
assert call.code() == grpc.StatusCode.OK
