import os
import time

depth = 0
while depth < 6:
    if os.fork():
        break
    os.setsid()
    depth += 1
if depth:
    if depth == 6:
        print("deepest", flush=True)
    time.sleep(600 if depth % 2 else 0)
    os._exit(0)
time.sleep(0.2)
