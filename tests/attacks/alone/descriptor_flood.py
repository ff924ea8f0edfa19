import os

kept = []
try:
    while True:
        kept.extend(os.pipe())
except OSError as error:
    print(len(kept) < 1024, error.errno)
