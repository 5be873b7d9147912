//! `ApprovalService`: the gate, the decision and the feed.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    convert,
    deadline::{self, carry_out, within},
    fields::Fields,
    guard::{self, Admitted},
    limits::Part,
    page,
    rights::Rights,
    stream, watch,
};
use crate::{
    approval::{
        Operation, Terms,
        gate::{Gate, Require},
    },
    auth::{Access, Caller, Scope},
    error::Error,
    feed::{Feed, cursor::Cursor},
    ledger::Ledger,
    metrics::Outcomes,
    names::{Action, IdempotencyKey, Namespace, OnBehalfOf, Text, WorkspaceId},
    policy::Gating,
    proto::{self, approval_service_server},
    store::{
        Store,
        listing::{Filter, Selection},
        workspaces::is_below,
    },
    waiting,
};

/// Actions that a list may be narrowed to: each is looked up in each of a thousand workspaces.
const ACTIONS: usize = 50;

/// A page ends early rather than be longer than this, in bytes: clients accept 4 MiB unless told otherwise, and
/// nobody may make a list that an approver cannot read.
const PAGE_BYTES: usize = 3 * 1024 * 1024;

/// The service. Each call holds it as long as its work goes on.
pub struct ApprovalService {
    /// Reads.
    pub store: Store,
    /// Changes.
    pub ledger: Ledger,
    /// Follows.
    pub feed: Feed,
    /// Who callers are and what they may do, now.
    pub access: tokio::sync::watch::Receiver<Arc<Access>>,
    /// How long a message of a stream may wait to be taken.
    pub unread: Duration,
    /// Cancelled when the server drains.
    pub draining: CancellationToken,
    /// What the gate says.
    pub outcomes: Outcomes,
}

#[tonic::async_trait]
impl approval_service_server::ApprovalService for Arc<ApprovalService> {
    type WatchApprovalsStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchApprovalsResponse, Status>> + Send>>;

    async fn require_approval(
        &self,
        mut request: Request<proto::RequireApprovalRequest>,
    ) -> Result<Response<proto::RequireApprovalResponse>, Status> {
        let deadline = deadline::of(request.metadata());
        let Admitted { caller, place, .. } = guard::admitted(&mut request)?;
        let asked = Asked::parse(request.into_inner(), &caller)?;
        let wait = deadline::wait(deadline, asked.wait);
        if !wait.is_zero() {
            place.turn(Part::Waits)?;
        }
        // Nobody waits for who is not there any more.
        let gone = CancellationToken::new();
        let _here = gone.clone().drop_guard();
        let work = Box::pin(self.clone().require(caller, asked, wait, gone));
        let answer = within(deadline, wait, place, Error::OutcomeUnknown, work).await?;
        Ok(Response::new(answer))
    }

    async fn decide(
        &self,
        request: Request<proto::DecideRequest>,
    ) -> Result<Response<proto::DecideResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, ApprovalService::decide).await
    }

    async fn watch_approvals(
        &self,
        mut request: Request<proto::WatchApprovalsRequest>,
    ) -> Result<Response<Self::WatchApprovalsStream>, Status> {
        let deadline = deadline::of(request.metadata());
        let Admitted { caller, place, line } = guard::admitted(&mut request)?;
        place.turn(Part::Watches)?;
        let (service, request) = (self.clone(), request.into_inner());
        let start = Box::pin(async move {
            watch::start(&service.store, &service.feed, &service.access, caller, request).await
        });
        let late = Error::StoreUnavailable;
        let watch = within(deadline, Duration::ZERO, place.clone(), late, start).await?;
        let stream = stream::of(watch, place, line, self.unread, self.draining.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Result<Response<proto::GetApprovalResponse>, Status> {
        carry_out(self, request, Error::StoreUnavailable, ApprovalService::get).await
    }

    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        carry_out(self, request, Error::StoreUnavailable, ApprovalService::list).await
    }

    async fn withdraw_approval(
        &self,
        request: Request<proto::WithdrawApprovalRequest>,
    ) -> Result<Response<proto::WithdrawApprovalResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, ApprovalService::withdraw).await
    }

    async fn revoke_approval(
        &self,
        request: Request<proto::RevokeApprovalRequest>,
    ) -> Result<Response<proto::RevokeApprovalResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, ApprovalService::revoke).await
    }

    async fn report_result(
        &self,
        request: Request<proto::ReportResultRequest>,
    ) -> Result<Response<proto::ReportResultResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, ApprovalService::report).await
    }

    async fn get_policy(
        &self,
        mut request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        let Admitted { caller, .. } = guard::admitted(&mut request)?;
        Ok(Response::new(convert::policy(&caller.policy)))
    }
}

impl ApprovalService {
    async fn require(
        self: Arc<Self>,
        caller: Caller,
        asked: Asked,
        wait: Duration,
        gone: CancellationToken,
    ) -> Result<proto::RequireApprovalResponse, Error> {
        let until = Instant::now() + wait;
        let workspace = &asked.operation.workspace_id;
        let scope = caller.scope(&asked.namespace).ok_or(Error::RoleMissing)?;
        if !scope.holds_for(&self.store, &asked.namespace, workspace).await? {
            return Err(Error::RoleMissing);
        }
        let terms = match caller.policy.gating(&asked.operation.action)? {
            Gating::Gated(terms) => terms,
            Gating::NotGated => {
                self.outcomes.not_required();
                return Ok(proto::RequireApprovalResponse {
                    outcome: proto::Outcome::NotRequired.into(),
                    ..Default::default()
                });
            }
        };
        let Asked { namespace, operation, reason, key, .. } = asked;
        let (workspace, action) = (operation.workspace_id.clone(), operation.action.clone());
        let renewed = || {
            let rights = Rights::new(&self.access, caller.clone(), namespace.clone());
            renewed_terms(rights, self.store.clone(), workspace.clone(), action.clone())
        };
        let call = Require { namespace: namespace.clone(), operation, reason, key, terms };
        let released = async {
            tokio::select! {
                () = self.draining.cancelled() => {}
                () = gone.cancelled() => {}
            }
        };
        let (ledger, feed) = (&self.ledger, &self.feed);
        let gate = waiting::require(ledger, feed, call, until, renewed, released, &gone).await?;
        match &gate {
            Gate::Approved { replayed, .. } => self.outcomes.approved(*replayed),
            Gate::Pending(_) => self.outcomes.pending(),
            Gate::Denied { .. } => self.outcomes.denied(),
        }
        convert::gate(&gate)
    }

    async fn get(
        self: Arc<Self>,
        caller: Caller,
        request: proto::GetApprovalRequest,
    ) -> Result<proto::GetApprovalResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.approval_id(&request.approval_id);
        let (Some(namespace), Some(id)) = (namespace, id) else {
            return Err(fields.into_error());
        };
        let approval = self.visible(&caller, &namespace, id).await?;
        Ok(proto::GetApprovalResponse { approval: Some(convert::approval(&approval)?) })
    }

    async fn list(
        self: Arc<Self>,
        caller: Caller,
        request: proto::ListApprovalsRequest,
    ) -> Result<proto::ListApprovalsResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let workspaces =
            fields.names("workspace_ids", &request.workspace_ids, |id| WorkspaceId::parse(id));
        let states = fields.states(&request.states);
        let parse = |name: &str| Action::parse(name);
        let actions = fields.names_up_to(ACTIONS, "actions", &request.actions, parse);
        let size = fields.page_size(request.page_size);
        let (Some(namespace), Some(workspaces), Some(states), Some(actions), Some(size)) =
            (namespace, workspaces, states, actions, size)
        else {
            return Err(fields.into_error());
        };
        let scope = caller.scope(&namespace).ok_or(Error::RoleMissing)?;
        let list = (&namespace, &workspaces, request.include_descendants, &states, &actions);
        let before = page::read(&list, &request.page_token)?;
        let before = before.as_deref().map(uuid::Uuid::from_slice).transpose();
        let before = before.map_err(|_| Error::invalid("page_token", "is not one of this list"))?;

        let descend = request.include_descendants;
        let selected = select(&self.store, &namespace, &scope, &workspaces, descend).await?;
        let filter =
            Filter { workspaces: selected, states: states.clone(), actions: actions.clone() };
        let found = self.store.approvals(&namespace, &filter, before, size).await?;
        let (mut approvals, mut bytes, mut rest) = (Vec::new(), 0, found.rest);
        for approval in &found.approvals {
            let message = convert::approval(approval)?;
            bytes += message.encoded_len();
            if let Some(last) = approvals.len().checked_sub(1)
                && bytes > PAGE_BYTES
            {
                rest = Some(found.approvals[last].id());
                break;
            }
            approvals.push(message);
        }
        let next_page_token =
            rest.map(|rest| page::token(&list, rest.as_bytes())).unwrap_or_default();
        let watch_cursor = match before {
            None => Cursor::at_end(&namespace, &found.log).encode(),
            Some(_) => String::new(),
        };
        Ok(proto::ListApprovalsResponse { approvals, next_page_token, watch_cursor })
    }
}

/// On which terms a caller that has waited asks again, by what is in force now; none where nothing is asked any more.
async fn renewed_terms(
    mut rights: Rights,
    store: Store,
    workspace: WorkspaceId,
    action: Action,
) -> Result<Option<Terms>, Error> {
    let scope = rights.now()?;
    if !scope.holds_for(&store, rights.namespace(), &workspace).await? {
        return Err(Error::RoleMissing);
    }
    match rights.policy().gating(&action)? {
        Gating::Gated(terms) => Ok(Some(terms)),
        Gating::NotGated => Ok(None),
    }
}

/// A call to the gate, parsed.
struct Asked {
    namespace: Namespace,
    operation: Operation,
    reason: Text,
    key: Option<IdempotencyKey>,
    wait: Duration,
}

impl Asked {
    fn parse(request: proto::RequireApprovalRequest, caller: &Caller) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let workspace_id = fields.check("workspace_id", WorkspaceId::parse(&request.workspace_id));
        let action = fields.check("action", Action::parse(&request.action));
        let reason = fields.check("reason", Text::parse(&request.reason));
        let context = fields.context(request.context);
        let key = fields.optional("idempotency_key", &request.idempotency_key, |key| {
            IdempotencyKey::parse(key)
        });
        let wait = fields.wait(request.wait);
        let on_behalf_of =
            fields.optional("on_behalf_of", &request.on_behalf_of, |name| OnBehalfOf::parse(name));
        let (
            Some(namespace),
            Some(workspace_id),
            Some(action),
            Some(reason),
            Some(context),
            Some(key),
            Some(wait),
            Some(on_behalf_of),
        ) = (namespace, workspace_id, action, reason, context, key, wait, on_behalf_of)
        else {
            return Err(fields.into_error());
        };
        let principal = caller.principal.clone();
        let operation = Operation::new(workspace_id, action, context, principal, on_behalf_of);
        Ok(Self { namespace, operation, reason, key, wait })
    }
}

/// The workspaces that are asked for, as far as they may be seen.
async fn select(
    store: &Store,
    namespace: &Namespace,
    scope: &Scope,
    asked: &[WorkspaceId],
    include_descendants: bool,
) -> Result<Selection, Error> {
    let roots = match scope {
        Scope::Subtrees(roots) if !asked.is_empty() => roots,
        Scope::Subtrees(_) => return Ok(scope.selection()),
        Scope::All => return Ok(Selection::of(asked, include_descendants)),
    };
    let paths = store.paths(namespace, &[asked, roots].concat()).await?;
    let below = |some: &[WorkspaceId], others: &[WorkspaceId]| -> Vec<WorkspaceId> {
        some.iter().filter(|id| is_below(&paths, id, others)).cloned().collect()
    };
    let visible = below(asked, roots);
    // Of two subtrees one lies within the other, or they are apart.
    Ok(match include_descendants {
        false => Selection::These(visible),
        true => Selection::Below([visible, below(roots, asked)].concat()),
    })
}
