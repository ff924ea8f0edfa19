import os

os.write(1, bytes(range(256)) * 4)
os.write(2, b"\xff\xfe\x00")
