error = None
for n in range(20_000):
    new = ValueError(n)
    new.__cause__ = error
    error = new
raise error
