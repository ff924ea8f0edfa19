import time

n = 0
try:
    while True:
        open(f"f{n}", "w").close()
        n += 1
except OSError as error:
    print("stopped", n, error.errno, flush=True)
time.sleep(0.5)
