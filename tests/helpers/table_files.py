"""Small tables as files: their rows, and what is read of them."""

import warnings

from joulefront.search.training.table import prepare, table

ROWS = 60
NUMBERS = [round(1000.5 + 37.25 * k, 2) for k in range(ROWS)]


def german(value):
    return f"{value:,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")


def write(path, rows, *, header="a,y", encoding="utf-8", above=""):
    path.write_bytes((above + header + "\n" + "\n".join(rows) + "\n").encode(encoding))
    return path


def label(k):
    return "yes" if k % 3 else "no"


def of(task, name):
    return next(column for column in task.preprocessing["columns"] if column["name"] == name)


def read(path, target="y", **options):
    """The task, and every warning in one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = table(path, target, **options)
    return task, " | ".join(str(one.message) for one in caught)


PLAIN = [f"{value},{label(k)}" for k, value in enumerate(NUMBERS)]
SEMICOLON = [f"{german(value)};{label(k)}" for k, value in enumerate(NUMBERS)]


def parts_of(task):
    return task.train, task.validation, task.test


def said_of(data, target="y", **options):
    """Return a task and what was said of its table, a line for each warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = table(data, target, **options)
    return task, "\n".join(str(one.message) for one in caught)


def said_of_new(task, rows):
    """Return new rows as a task's model takes them, and what was said of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = prepare(task.preprocessing, rows)
    return made, "\n".join(str(one.message) for one in caught)
