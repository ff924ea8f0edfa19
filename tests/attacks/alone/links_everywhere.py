import os

os.makedirs("a/b")
for n in range(200):
    os.symlink("/", f"a/root{n}")
    os.symlink("..", f"a/b/up{n}")
    os.symlink("/dev/zero", f"a/b/zero{n}")
os.symlink("loop", "loop")
print("made")
