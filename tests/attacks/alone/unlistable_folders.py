# Folders that can't be listed from outside, to hide what is put in them.
import os

for call in (
    lambda: os.mkdir("a", 0o300),
    lambda: (os.umask(0o477), os.mkdir("b", 0o777)),
    lambda: (os.mkdir("c"), os.chmod("c", 0o300)),
):
    try:
        call()
    except OSError:
        pass
for name in "abc":
    try:
        open(f"{name}/file", "wb").write(b"x" * 1000)
    except OSError:
        pass
print("made")
