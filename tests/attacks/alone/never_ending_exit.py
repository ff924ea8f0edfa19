import atexit
import time


def stay():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass


atexit.register(stay)
print("exiting", flush=True)
