import os
import time

n = 0
open("one", "w").close()
try:
    while True:
        os.link("one", f"link{n}")
        n += 1
except OSError as error:
    print("stopped", n, error.errno, flush=True)
time.sleep(0.5)
