import os

made = 0
while True:
    try:
        if os.fork() == 0:
            continue
        made += 1
    except OSError as error:
        print(made, error.errno)
        break
