"""``python -m pipelines.probe ADDRESS``: is the server there well? For health checks.

Standard library only, except for gRPC: a check that runs every few seconds must cost little.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

ANSWER_S = 4.0
DAGSTER_SERVICE = "DagsterApi"


def problem_of(address: str) -> str | None:
    """Return what is wrong with the server at an http:// or grpc:// address, None when well."""
    parts = urlsplit(address)
    if parts.scheme == "grpc":
        return grpc_problem(parts.netloc)
    if parts.scheme != "http":
        return "the address must begin with http:// or grpc://"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S):  # noqa: S310 - the scheme is http
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def grpc_problem(place: str, answer_s: float = ANSWER_S) -> str | None:
    """Return why Dagster's gRPC server at host:port is not serving, None when it is."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(place) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            question = health_pb2.HealthCheckRequest(service=DAGSTER_SERVICE)
            answer = stub.Check(question, timeout=answer_s)
        except grpc.RpcError as error:
            return str(error.code().name)
    return None if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


def main() -> None:
    """Print what is wrong, if anything, and exit with 1."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pipelines.probe ADDRESS")
    problem = problem_of(sys.argv[1])
    if problem is not None:
        sys.exit(f"{sys.argv[1]}: {problem}")


if __name__ == "__main__":
    main()
