import os
import time

n = 0
try:
    while True:
        os.makedirs(f"f{n}/g")
        os.symlink("/", f"f{n}/root")
        n += 3
except OSError as error:
    print("stopped", n, error.errno, flush=True)
time.sleep(0.5)
