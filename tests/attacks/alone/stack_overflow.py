import sys

sys.setrecursionlimit(10**9)


def down():
    return down() + 1


down()
