raise ValueError("x" * (40 << 20))
