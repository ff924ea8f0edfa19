try:
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
    print("GAINED")
except OSError as error:
    print("stopped", error.errno)
