import os

n = 0
try:
    while n < 600:
        os.mkdir("d")
        os.chdir("d")
        n += 1
except OSError as error:
    print("stopped", error.errno)
