"""A clock of the wall meter that is turned by hand."""

NANO = 1_000_000_000


class Clock:
    def __init__(self):
        self.ns = 10 * NANO

    def __call__(self):
        return self.ns

    def advance(self, seconds):
        self.ns += round(seconds * NANO)
