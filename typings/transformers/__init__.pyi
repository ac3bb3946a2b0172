# Types of transformers are read as Any: its `__init__` binds every model family (2,000 files, most of a check's time).
from typing import Any

def __getattr__(name: str) -> Any: ...
