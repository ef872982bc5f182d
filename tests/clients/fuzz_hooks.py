"""Schemathesis sends no slash in a path, but model ids and file keys have some: most cases get a real one."""

import json
import os
import zlib

import schemathesis

REAL = json.loads(os.environ["FUZZ_PATHS"])


@schemathesis.hook
def before_call(context, case, kwargs):
    real = REAL.get(case.operation.path)
    # The case decides, not its turn: the same seed does the same.
    if real and zlib.crc32(repr((case.path_parameters, case.headers)).encode()) % 4:
        case.path_parameters = dict(real)
