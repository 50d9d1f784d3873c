import pdb

import pytest


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """The errors that the debugger would have opened at."""
    seen = []
    monkeypatch.setattr(pdb, "post_mortem", lambda trace: seen.append(trace.tb_frame.f_code.co_name))
    return seen
