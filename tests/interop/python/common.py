"""What every script needs: the stubs that grpcio-tools made of our files, a channel, and refusals with their details."""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

ADDRESS, STUBS, BROKER_PID = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, STUBS)

from tidelog.v1 import admin_pb2 as admin  # noqa: E402, F401
from tidelog.v1 import admin_pb2_grpc, broker_pb2_grpc  # noqa: E402
from tidelog.v1 import broker_pb2 as broker  # noqa: E402, F401
from tidelog.v1 import event_pb2 as event  # noqa: E402
from tidelog.v1 import session_pb2 as session  # noqa: E402

# Nothing here takes this long.
PATIENCE = 60


def connect(*options):
    """A broker stub and an admin stub on a channel of their own."""
    channel = grpc.insecure_channel(ADDRESS, options=options)
    return broker_pb2_grpc.BrokerStub(channel), admin_pb2_grpc.AdminStub(channel)


def events(*data):
    """Events whose data is JSON."""
    return event.Events(events=[event.Event(data=d.encode()) for d in data])


def append(stub, stream, *data, **more):
    """Appends; returns the answer."""
    return stub.Append(session.Append(stream=stream, events=events(*data), **more), timeout=PATIENCE)


def subscribe(stub, stream, subscription, timeout=PATIENCE, **more):
    """Opens a reader; returns the call and what `subscribed` said."""
    call = stub.Subscribe(session.Subscribe(stream=stream, subscription=subscription, create=True, **more), timeout=timeout)
    first = next(call)
    assert first.WhichOneof("frame") == "subscribed", first
    return call, first.subscribed


def take(call, count):
    """The next events of a reader, as (offset, data)."""
    taken = []
    while len(taken) < count:
        frame = next(call)
        for batch in frame.events.batches:
            taken += [(batch.base_offset + i, e.data.decode()) for i, e in enumerate(batch.events)]
    assert len(taken) == count, taken
    return taken


class Refusal:
    """A refused call: its status and all that its details say."""

    def __init__(self, error):
        self.status, self.message = error.code(), error.details()
        self.info, self.error, self.retry = error_details_pb2.ErrorInfo(), session.Error(), None
        status = rpc_status.from_call(error)
        assert status is not None, f"no details: {error}"
        assert status.message == self.message and status.code == self.status.value[0], status
        kinds = set()
        for detail in status.details:
            kinds.add(detail.TypeName())
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                self.retry = error_details_pb2.RetryInfo()
                detail.Unpack(self.retry)
            detail.Unpack(self.info) or detail.Unpack(self.error)
        assert {"google.rpc.ErrorInfo", "tidelog.v1.Error"} <= kinds, kinds
        assert self.info.domain == "tidelog" and self.info.reason == self.error.code, status
        assert self.message.endswith("."), f"an error is a sentence: {self.message}"

    def __repr__(self):
        return f"{self.status} {self.error}"


def refused(call):
    """Runs a call that must be refused."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"not refused: {answer}")


def ends(call):
    """Reads a stream that must end with an error, to its end."""
    return refused(lambda: list(call))
