"""Exporters of other libraries talk a lot; here they are heard only when something fails."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

#: Libraries that log through handlers of their own, which a redirected stderr does not reach.
LOGGERS = ("torch", "torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir", "skl2onnx")


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect what is printed, logged or warned inside into the returned text; nothing reaches the terminal."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for logger in loggers:
                logger.handlers, logger.propagate = [handler], False
            yield heard
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            for warning in warned:
                heard.write(f"{warning.category.__name__}: {warning.message}\n")
