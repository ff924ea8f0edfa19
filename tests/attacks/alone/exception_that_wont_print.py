class Bad(Exception):
    def __str__(self):
        raise SystemExit(0)

    def __repr__(self):
        raise SystemExit(0)


raise Bad
