"""How much memory something takes at once."""

import gc
import tracemalloc


class Peak:
    """The most that was allocated at once between beginning and end."""

    def __enter__(self) -> "Peak":
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
