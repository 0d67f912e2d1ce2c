"""A2A over gRPC, the services of 1.0 and of 0.3 on one port."""

import os

# Its library, written in C++, has a log of its own, which would stand between the lines of ours.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
