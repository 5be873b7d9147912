//! `WatchApprovals`: a subscription as a stream of messages, with its cursors and bookmarks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{convert, fields::Fields, rights::Rights};
use crate::{
    approval::Approval,
    auth::{Access, Caller, Scope},
    error::Error,
    feed::{Feed, Subscription, cursor::Cursor},
    names::{Namespace, WorkspaceId},
    proto::{
        self, EventType, Start, WatchApprovalsRequest, WatchApprovalsResponse,
        watch_approvals_response::Message,
    },
    store::{Store, events::LoggedEvent, listing::Selection},
};

/// A quiet stream is sent a bookmark this often.
const QUIET: Duration = Duration::from_secs(15);

/// Pending approvals that are read at once.
const PENDING_PAGE: usize = 16;

/// A message, before it is put in the contract's words: a context takes up to thirty times the room in them.
pub(super) struct Told {
    what: What,
    /// Empty while there is no place to go on from.
    cursor: String,
}

enum What {
    Event(Arc<LoggedEvent>),
    Pending(Box<Approval>),
    Bookmark(proto::Bookmark),
}

impl Told {
    /// In the contract's words.
    pub(super) fn into_message(self) -> Result<WatchApprovalsResponse, Error> {
        let message = match self.what {
            What::Event(logged) => Message::Event(convert::event(logged.revision, &logged.event)?),
            What::Pending(approval) => Message::PendingApproval(convert::approval(&approval)?),
            What::Bookmark(bookmark) => Message::Bookmark(bookmark),
        };
        Ok(WatchApprovalsResponse { message: Some(message), cursor: self.cursor })
    }
}

/// Which events a subscriber is sent.
struct Filter {
    scope: Scope,
    workspaces: Vec<WorkspaceId>,
    include_descendants: bool,
    types: Vec<EventType>,
}

impl Filter {
    fn passes(&self, logged: &LoggedEvent) -> bool {
        let addressed = if self.workspaces.is_empty() {
            true
        } else if self.include_descendants {
            logged.path.iter().any(|workspace| self.workspaces.contains(workspace))
        } else {
            self.workspaces.contains(&logged.event.workspace_id)
        };
        let kind = convert::event_type(logged.event.kind);
        addressed
            && (self.types.is_empty() || self.types.contains(&kind))
            && self.scope.covers(&logged.path)
            && self.scope.covers(&logged.requested_in)
    }
}

/// A watch that has been checked and found where it starts.
pub(super) struct Watch {
    store: Store,
    /// Pending approvals that are still to be sent, as they were where the stream begins.
    pending: VecDeque<Uuid>,
    /// Sent before the first event: approvals that have been read, and then the bookmark.
    first: VecDeque<Told>,
    subscription: Subscription,
    filter: Filter,
    namespace: Namespace,
    epoch: Uuid,
    /// Where the stream stands: everything up to here has been sent or filtered out.
    revision: i64,
    tag: i64,
    /// When a bookmark is due.
    quiet_until: Instant,
    rights: Rights,
    /// While the server drains: the last revision that is still sent.
    last: Option<i64>,
}

/// Checks a request and finds where it starts.
pub(super) async fn start(
    store: &Store,
    feed: &Feed,
    access: &watch::Receiver<Arc<Access>>,
    caller: Caller,
    request: WatchApprovalsRequest,
) -> Result<Watch, Error> {
    let mut fields = Fields::default();
    let namespace = fields.namespace(&request.namespace);
    let workspaces =
        fields.names("workspace_ids", &request.workspace_ids, |id| WorkspaceId::parse(id));
    let types = event_types(&mut fields, &request.event_types);
    let from = Start::try_from(request.start);
    if from.is_err() {
        fields.refuse("start", "is no Start");
    }
    if !request.after_cursor.is_empty() && from.is_ok_and(|start| start != Start::Unspecified) {
        fields.refuse("start", "must be unset with after_cursor");
        return Err(fields.into_error());
    }
    let (Some(namespace), Some(workspaces), Some(types), Ok(from)) =
        (namespace, workspaces, types, from)
    else {
        return Err(fields.into_error());
    };
    let mut rights = Rights::new(access, caller, namespace.clone());
    let scope = rights.now()?;
    let include_descendants = request.include_descendants;
    let filter = Filter { scope, workspaces, include_descendants, types };
    let mut pending = None;
    let cursor = match from {
        _ if !request.after_cursor.is_empty() => {
            Cursor::decode(&request.after_cursor, &namespace)?.check(store).await?
        }
        Start::Unspecified => Cursor::at_end(&namespace, &store.log(&namespace).await?),
        Start::Oldest => {
            let log = store.log(&namespace).await?;
            let (revision, tag) = (log.floor, log.floor_tag);
            Cursor { namespace, epoch: log.epoch, revision, tag }
        }
        Start::Pending => {
            let visible = filter.scope.selection();
            let addressed = Selection::of(&filter.workspaces, include_descendants);
            let (ids, log) = store.pending(&namespace, &visible, &addressed).await?;
            pending = Some(ids);
            Cursor::at_end(&namespace, &log)
        }
    };
    Ok(Watch::at(store, feed, filter, cursor, pending, rights))
}

fn event_types(fields: &mut Fields, types: &[i32]) -> Option<Vec<EventType>> {
    fields.few("event_types", types)?;
    let parsed = types.iter().map(|number| match EventType::try_from(*number) {
        Ok(EventType::Unspecified) | Err(_) => Err(format!("holds {number}, which is no type")),
        Ok(known) => Ok(known),
    });
    fields.check("event_types", parsed.collect())
}

impl Watch {
    fn at(
        store: &Store,
        feed: &Feed,
        filter: Filter,
        cursor: Cursor,
        pending: Option<Vec<Uuid>>,
        rights: Rights,
    ) -> Self {
        let pending_complete = pending.is_some();
        let mut watch = Self {
            store: store.clone(),
            pending: pending.unwrap_or_default().into(),
            first: VecDeque::new(),
            subscription: feed.subscribe(&cursor.namespace, cursor.position()),
            filter,
            namespace: cursor.namespace,
            epoch: cursor.epoch,
            revision: cursor.revision,
            tag: cursor.tag,
            quiet_until: Instant::now() + QUIET,
            rights,
            last: None,
        };
        let bookmark = watch.bookmark(pending_complete);
        watch.first.push_back(bookmark);
        watch
    }

    /// The next message, once there is one; an error is the last.
    pub(super) async fn next(&mut self, draining: &CancellationToken) -> Result<Told, Error> {
        if self.rights.are_stale() {
            let scope = self.rights.now()?;
            if scope != self.filter.scope && !self.first.is_empty() {
                // What is still to be sent was chosen for other rights.
                return Err(Error::StoreUnavailable);
            }
            self.filter.scope = scope;
        }
        if !self.first.is_empty() && draining.is_cancelled() {
            return Err(Error::Draining);
        }
        while !self.pending.is_empty() && self.first.len() <= 1 {
            Box::pin(self.read_pending()).await?;
        }
        if let Some(first) = self.first.pop_front() {
            return Ok(first);
        }
        loop {
            if self.last.is_some_and(|last| self.revision >= last) {
                return Err(Error::Draining);
            }
            // Nothing need be waited for, nor timed, within a page.
            let logged = match self.subscription.in_hand() {
                Some(logged) => logged,
                None => tokio::select! {
                    biased;
                    // What had happened by now is still sent.
                    () = draining.cancelled(), if self.last.is_none() => {
                        self.last = Some(Box::pin(self.subscription.head()).await?);
                        continue;
                    }
                    () = self.rights.look_again() => {
                        self.filter.scope = self.rights.now()?;
                        continue;
                    }
                    () = tokio::time::sleep_until(self.quiet_until) => {
                        self.quiet_until = Instant::now() + QUIET;
                        return Ok(self.bookmark(false));
                    }
                    logged = self.subscription.next() => logged?,
                },
            };
            (self.revision, self.tag) = (logged.revision, logged.tag);
            if self.filter.passes(&logged) {
                self.quiet_until = Instant::now() + QUIET;
                return Ok(self.told(What::Event(logged)));
            }
        }
    }

    /// Lets go of what has been read ahead: the subscriber is in no hurry. It is read again when it is.
    pub(super) fn let_go(&mut self) {
        self.subscription.let_go();
    }

    /// Reads on in the pending approvals, in front of the bookmark that ends them.
    async fn read_pending(&mut self) -> Result<(), Error> {
        let ids: Vec<Uuid> = self.pending.drain(..PENDING_PAGE.min(self.pending.len())).collect();
        if self.pending.is_empty() {
            // Its room would be kept for as long as the stream lives.
            self.pending = VecDeque::new();
        }
        let bookmark = self.first.pop_back();
        let approvals = self.store.approvals_as_of(&self.namespace, &ids, self.revision).await?;
        if approvals.len() < ids.len() {
            // Retention has taken the events that told how these were.
            return Err(Error::CursorExpired);
        }
        self.first.extend(approvals.into_iter().map(|approval| {
            let what = What::Pending(Box::new(approval));
            Told { what, cursor: String::new() }
        }));
        self.first.extend(bookmark);
        Ok(())
    }

    /// Says where the stream stands. It is made of what has been sent, so it cannot run ahead of an event.
    fn bookmark(&self, pending_complete: bool) -> Told {
        let revision = self.revision;
        self.told(What::Bookmark(proto::Bookmark { revision, pending_complete }))
    }

    fn told(&self, what: What) -> Told {
        let Self { namespace, epoch, revision, tag, .. } = self;
        let cursor =
            Cursor { namespace: namespace.clone(), epoch: *epoch, revision: *revision, tag: *tag };
        Told { what, cursor: cursor.encode() }
    }
}
