import socket

kept = []
sent = 0
try:
    while True:
        one, other = socket.socketpair()
        kept += [one, other]
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        except OSError:
            pass
        one.setblocking(False)
        try:
            while True:
                sent += one.send(b"x" * 65536)
        except BlockingIOError:
            pass
except OSError as error:
    print(sent < 128 << 20, error.errno)
