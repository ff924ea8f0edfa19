import tempfile
import time

kept = []
try:
    while True:
        kept.append(tempfile.NamedTemporaryFile())
        kept[-1].write(b"x" * (8 << 20))
        kept[-1].flush()
except OSError as error:
    print("stopped", error.errno, flush=True)
time.sleep(0.5)
