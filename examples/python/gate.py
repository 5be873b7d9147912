"""A gate in front of an operation, which lets nobody through but on the authority's word."""

import random
import time
import uuid
from pathlib import Path

import grpc
from approvals.v1 import approvals_pb2 as pb
from approvals.v1 import approvals_pb2_grpc as rpc

# What may be answered otherwise if it is asked again. Whatever else goes wrong would go wrong again.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class Held(Exception):
    """Do not execute the operation."""


class Pending(Held):
    """A person has been asked. Tell your caller, and ask again later with the same arguments."""


class Denied(Held):
    """A person said no. Tell your caller; asking again is no use before the cooldown has passed."""


class Unavailable(Held):
    """The authority's word could not be had, or not be relied upon. Asking again later may help."""


class Gate:
    """One for a process. The authority need not be there yet: the channel connects when it is needed."""

    def __init__(self, channel: grpc.Channel, token_file: str, deadline: float = 10.0):
        self._authority = rpc.ApprovalServiceStub(channel)
        self._token_file, self._deadline = Path(token_file), deadline

    def require(self, workspace_id, action, context=None, *, reason="", on_behalf_of="", namespace="default"):
        """Returns where the operation may be executed now, once: with the approval that was consumed, or None where
        the policy asks for none. Whatever it raises means "do not execute"; `Held` says why."""
        # A key for this attempt, so that a lost answer can be asked for again. Never make it from the operation.
        asked = pb.RequireApprovalRequest(
            namespace=namespace, workspace_id=workspace_id, action=action, reason=reason,
            on_behalf_of=on_behalf_of, idempotency_key=str(uuid.uuid4()),
        )
        asked.context.SetInParent()
        asked.context.update(context or {})
        answer = self._call(self._authority.RequireApproval, asked)
        outcome, approval = answer.outcome, answer.approval
        if outcome == pb.OUTCOME_NOT_REQUIRED and not answer.HasField("approval"):
            return None
        # All that the approval's request_hash is made of, and where it lies.
        if not approval.id or any(
            getattr(approval, field) != getattr(asked, field)
            for field in ("namespace", "workspace_id", "action", "context")
        ):
            raise Unavailable("the answer is not about what was asked")
        if outcome == pb.OUTCOME_PENDING:
            raise Pending(f"approval {approval.id} is pending")
        if outcome == pb.OUTCOME_DENIED:
            said = [verdict.reason for verdict in approval.verdicts if verdict.decision == pb.DECISION_DENY]
            raise Denied(f"approval {approval.id} was denied: {'; '.join(said)}")
        consumed = approval.state == pb.APPROVAL_STATE_CONSUMED and approval.on_behalf_of == on_behalf_of
        if outcome == pb.OUTCOME_APPROVED and consumed:
            return approval
        raise Unavailable(f"the answer cannot be relied upon: outcome {outcome}, state {approval.state}")

    def report(self, approval, result):
        """Puts on record what became of the operation. It was executed: an error here changes nothing about that."""
        if approval is not None:
            report = pb.ReportResultRequest(namespace=approval.namespace, approval_id=approval.id, result=result)
            self._call(self._authority.ReportResult, report)

    def _call(self, method, message):
        """Asks the same until there is an answer, or a refusal that would be repeated, or no time."""
        end, pause = time.monotonic() + self._deadline, 0.1
        while True:
            left = end - time.monotonic()
            try:
                # Read for each call: whoever renews the token replaces the file.
                token = self._token_file.read_text().strip()
                # Half of what is left: a server that swallows calls leaves time to ask again.
                patience = min(left, max(left / 2, 0.5))
                return method(message, timeout=patience, metadata=[("authorization", f"Bearer {token}")])
            except grpc.RpcError as error:
                if error.code() not in PASSING or time.monotonic() + pause >= end:
                    raise Unavailable(f"{error.code().name}: {error.details()}") from error
            except (OSError, ValueError) as error:
                raise Unavailable(f"no token that can be sent: {self._token_file}") from error
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 5)
