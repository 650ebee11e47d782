"""gRPC-web as a browser sends it: a plain HTTP/1.1 POST, and the trailers as the last piece of the body."""

import base64
import http.client
import struct

from common import *  # noqa: F403


def call(method, request, kind):
    """Returns the messages and the trailers of a call."""
    body = request.SerializeToString()
    body = struct.pack(">BI", 0, len(body)) + body
    text = kind.startswith("application/grpc-web-text")
    connection = http.client.HTTPConnection(ADDRESS, timeout=PATIENCE)
    headers = {"Content-Type": kind, "Accept": kind, "X-Grpc-Web": "1"}
    connection.request("POST", f"/tidelog.v1.Broker/{method}", base64.b64encode(body) if text else body, headers)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("Content-Type").startswith(kind), (answer.status, answer.getheaders())
    got = answer.read()
    if text:
        # Pieces that were encoded one by one end in `=` anywhere.
        got = b"".join(base64.b64decode(got[i : i + 4]) for i in range(0, len(got), 4))
    messages, trailers = [], dict(answer.getheaders())
    while got:
        flags, length = struct.unpack(">BI", got[:5])
        piece, got = got[5 : 5 + length], got[5 + length :]
        if flags & 0x80:
            trailers |= dict(line.split(":", 1) for line in piece.decode().strip().split("\r\n"))
        else:
            messages.append(piece)
    return messages, {name.lower(): value.strip() for name, value in trailers.items()}


for number, kind in enumerate(["application/grpc-web+proto", "application/grpc-web-text+proto"]):
    messages, trailers = call("Append", session.Append(stream="orders", events=events("0", "1")), kind)
    assert trailers["grpc-status"] == "0", trailers
    appended = session.Appended.FromString(messages[0])
    assert (appended.first_offset, appended.last_offset) == (2 * number, 2 * number + 1), appended

    messages, trailers = call("Read", broker.ReadRequest(stream="orders", after=2 * number), kind)
    batches = [b for m in messages for b in broker.ReadResponse.FromString(m).batches]
    assert [e.data for b in batches for e in b.events] == [b"1"] and trailers["grpc-status"] == "0", (batches, trailers)

    messages, trailers = call("Append", session.Append(stream="orders", events=events("7"), expected_next_offset=99), kind)
    assert messages == [] and trailers["grpc-status"] == str(grpc.StatusCode.FAILED_PRECONDITION.value[0]), trailers
    assert trailers["grpc-message"] and trailers["grpc-status-details-bin"], trailers
