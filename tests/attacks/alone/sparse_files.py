# Each within the limit of one file; none has a block of its own.
n = 0
try:
    while n < 150:
        with open(f"s{n}", "wb") as file:
            file.truncate(16 << 20)
        n += 1
except OSError as error:
    print("stopped", error.errno)
print("made", n)
