# Shared memory that one process fills and others merely hold is in nobody's resident memory.
import mmap
import os
import time


def hold(fd, flags):
    try:
        kept = mmap.mmap(fd, 100 << 20, flags=flags)
    except (OSError, ValueError) as error:
        print("refused", type(error).__name__, flush=True)
        os._exit(0)
    if os.fork() == 0:
        try:
            for _ in range(100):
                kept.write(b"x" * (1 << 20))
        finally:
            os._exit(0)
    os.wait()
    print("held", flush=True)
    time.sleep(60)


for opening in (lambda: -1, lambda: os.open("/dev/zero", os.O_RDWR)):
    for _ in range(4):
        if os.fork() == 0:
            try:
                hold(opening(), mmap.MAP_SHARED)
            except OSError as error:
                print("refused", type(error).__name__, flush=True)
            finally:
                os._exit(0)
        time.sleep(0.1)
time.sleep(0.2)
print("over")
