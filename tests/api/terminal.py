"""Runs a command on a terminal of its own and types as a person would. Prints everything that the terminal showed.

    terminal.py DIALOG COMMAND…

DIALOG is a JSON list of [prompt, typed, seen]: waits for the prompt and, unless what is typed may be seen, until the terminal echoes nothing; then types. The
exit code is the command's. The last line on stderr says whether the terminal echoes again.
"""

import fcntl
import json
import os
import select
import sys
import termios
import time

PATIENCE = 30.0

dialog, command = json.loads(sys.argv[1]), sys.argv[2:]
terminal, inside = os.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(inside, termios.TIOCSCTTY, 0)
    for standard in (0, 1, 2):
        os.dup2(inside, standard)
    os.closerange(3, 64)
    os.execve(command[0], command, dict(os.environ))

until = time.monotonic() + PATIENCE
shown = b""
ended = None


def look(wait):
    """Takes what the terminal shows; notices the command's end."""
    global shown, ended
    if time.monotonic() > until:
        os.kill(child, 9)
        sys.exit(f"nothing more happens; the terminal showed {shown!r}")
    if ended is None:
        done, status = os.waitpid(child, os.WNOHANG)
        ended = os.waitstatus_to_exitcode(status) if done else None
    if select.select([terminal], [], [], wait)[0]:
        shown += os.read(terminal, 4096)
        return True
    return False


def echoes():
    return bool(termios.tcgetattr(inside)[3] & termios.ECHO)


at = 0
for prompt, typed, seen in dialog:
    while prompt.encode() not in shown[at:]:
        if not look(0.01) and ended is not None:
            sys.exit(f"it ended with {ended} before it asked {prompt!r}; the terminal showed {shown!r}")
    at = shown.index(prompt.encode(), at) + len(prompt.encode())
    while not seen and echoes():
        look(0.001)
    os.write(terminal, typed.encode())
while ended is None:
    look(0.01)
while look(0):
    pass
sys.stdout.buffer.write(shown)
sys.stdout.flush()
print("echoes" if echoes() else "silent", file=sys.stderr)
sys.exit(ended if ended >= 0 else 128 - ended)
