import sys

for _ in range(600):
    sys.stdout.write("x" * 65536)
sys.stdout.flush()
