"""Deletes a workspace, if a person has approved exactly that.

usage: delete_workspace.py AUTHORITY TOKEN_FILE WORKSPACE     (AUTHORITY: https://HOST:PORT, or http://HOST:PORT on this machine)
Exit codes: 0 let through and done; 3 held, a person has been asked; 5 denied; 7 held for want of an answer.
"""

import sys
from urllib.parse import urlsplit

import grpc
from approvals.v1 import approvals_pb2 as pb
from gate import Denied, Gate, Held, Pending, Unavailable


def channel_to(url):
    # Without TLS the token goes no further than this machine: local credentials refuse to.
    credentials = {"https": grpc.ssl_channel_credentials, "http": grpc.local_channel_credentials}
    authority = urlsplit(url)
    return grpc.secure_channel(authority.netloc, credentials[authority.scheme]())


def delete(workspace_id):
    print(f"deleted {workspace_id}")


def main(authority, token_file, workspace_id):
    gate = Gate(channel_to(authority), token_file)
    try:
        approval = gate.require(
            workspace_id, "delete_workspace", {"with_backups": True}, reason="nobody has used it since May"
        )
    except Held as held:
        print(held)
        return 3 if isinstance(held, Pending) else 5 if isinstance(held, Denied) else 7
    # Nothing raised: it may be done now, once. To do it again, ask again.
    result = pb.RESULT_FAILED
    try:
        delete(workspace_id)
        result = pb.RESULT_SUCCEEDED
    finally:
        try:
            gate.report(approval, result)
        except Unavailable as fault:
            print(f"what became of it is not on record: {fault}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
