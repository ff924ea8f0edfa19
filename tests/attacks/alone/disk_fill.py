import time

n = 0
try:
    while True:
        with open(f"file{n}", "wb") as file:
            for _ in range(16):
                file.write(b"x" * (1 << 20))
        n += 1
except OSError as error:
    print("stopped", error.errno, flush=True)
time.sleep(0.5)
