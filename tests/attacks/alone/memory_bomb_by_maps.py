import mmap

kept = []
while True:
    one = mmap.mmap(-1, 16 << 20)
    one.write(b"x" * (16 << 20))
    kept.append(one)
