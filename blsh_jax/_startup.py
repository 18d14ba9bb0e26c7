"""What comes before all other imports, which take a second: Ctrl-C ends ``blsh`` quietly by then.

``cli`` takes over when it runs. Other programs that import the package are left alone.
"""

import signal
import sys
from pathlib import Path

_MODULE = sys.argv[0] == "-m" and any(word.startswith("blsh_jax") for word in sys.orig_argv)
if (_MODULE or Path(sys.argv[0]).stem == "blsh") and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
