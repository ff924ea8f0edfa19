import fcntl
import os

kept = 0
grown = 0
try:
    while True:
        read_end, write_end = os.pipe()
        try:
            grown = max(grown, fcntl.fcntl(write_end, 1031, 1 << 24))
        except OSError:
            pass
        os.set_blocking(write_end, False)
        try:
            while True:
                kept += os.write(write_end, b"x" * 65536)
        except BlockingIOError:
            pass
except OSError as error:
    print(kept < 32 << 20 and not grown, error.errno)
