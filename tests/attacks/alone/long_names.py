import os
import time

n = 0
try:
    while True:
        open(f"{n:09}" + "\u2603" * 82, "w").close()
        os.mkdir(b"\xff\n\x1b[2J" + b"%09d" % n + b"\x01" * 200)
        n += 2
except OSError as error:
    print("stopped", n, error.errno, flush=True)
time.sleep(0.5)
