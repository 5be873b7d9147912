//! The server: services on a listener, until told to stop, and then the drain.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::{self, Server as Transport};

use super::{
    answer::REQUEST_BYTES,
    approvals::ApprovalService,
    connections::OPEN_CALLS,
    guard::Guard,
    health::Health,
    limits::{Limits, Places},
    listener::{Tls, connections},
    measure::{self, Measure},
    open::{self, OpenToAll},
    workspaces::WorkspaceService,
};
use crate::{
    admin::Admin,
    auth::Access,
    feed::Feed,
    keeper::{Keeper, Retention},
    ledger::Ledger,
    metrics::{Calls, Described, Outcomes},
    proto::{
        self, approval_service_server::ApprovalServiceServer,
        workspace_service_server::WorkspaceServiceServer,
    },
    store::Store,
};

/// Largest list of headers, in bytes: a JWT is most of it.
const HEADER_BYTES: u32 = 16 * 1024;

/// Streams at once on one connection. Clients keep what comes on top of them until there is room.
const STREAMS: u32 = 1024;

/// What a peer may send on a stream before anything of it is taken, in bytes: what is held of one that takes no answers. It is
/// what HTTP/2 begins with (RFC 9113 section 6.9.2).
const STREAM_WINDOW: u32 = 65_535;

/// The same on a connection. The transport takes half of it for the most that small frames may cost, at 256 bytes each: there is to be
/// room for a small request on every stream at once.
const CONNECTION_WINDOW: u32 = 512 * STREAMS;

/// Streams that a peer has opened and taken back before anybody has looked at them: more of them, and it is told to go
/// away. This is CVE-2023-44487.
const TAKEN_BACK: usize = 20;

/// Streams that a peer has had reset by breaking the rules, before it is told to go away.
const AT_FAULT: usize = 256;

/// Everything that answers calls.
pub struct Server {
    /// The database, whose schema has been checked.
    pub store: Store,
    /// Who callers are and what they may do, now.
    pub access: watch::Receiver<Arc<Access>>,
    /// What it shows its callers; unset: it speaks plaintext.
    pub tls: Option<Tls>,
    /// How much it takes on.
    pub limits: Limits,
    /// How long what is over is kept.
    pub retention: Retention,
    /// Whether the contract can be asked for.
    pub reflection: bool,
    /// What those who run it can see.
    pub admin: Admin,
    /// How long calls and streams in progress may take to end once the server drains.
    pub drain_grace: Duration,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every call and every stream had ended.
    Completely,
    /// The grace was over first.
    OutOfTime,
}

impl Server {
    /// Answers calls on a listener until `shutdown`, then drains: new calls are turned away, streams end after
    /// their last event, calls in progress are answered.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Drained, transport::Error> {
        let draining = CancellationToken::new();
        let feed = Feed::new(self.store.clone());
        let ledger = Ledger::new(self.store.clone());
        let keeper = Keeper::new(self.store.clone(), ledger.clone(), self.retention);
        let page = self.admin.page;
        page.add(ledger.measures());
        page.add(feed.measures());
        page.add(keeper.measures());
        let approvals = ApprovalService {
            store: self.store.clone(),
            ledger,
            feed: feed.clone(),
            access: self.access.clone(),
            unread: self.limits.unread,
            draining: draining.clone(),
            outcomes: Outcomes::default(),
        };
        page.add(approvals.outcomes.measures());
        let workspaces = WorkspaceService { store: self.store.clone() };
        let (places, unread) = (Places::new(self.limits), self.limits.unread);
        page.add(places.measures());
        let guard = Guard { access: self.access, places, unread };
        let approvals = ApprovalServiceServer::new(Arc::new(approvals))
            .max_decoding_message_size(REQUEST_BYTES);
        let workspaces =
            WorkspaceServiceServer::new(workspaces).max_decoding_message_size(REQUEST_BYTES);

        let (health, health_service) = Health::serving(self.admin.readiness).await;
        let health_service = health_service.max_decoding_message_size(open::REQUEST_BYTES);
        let calls = Calls::of(methods(self.reflection));
        page.add(calls.measures());
        let router = Transport::builder()
            .layer(Measure(Arc::new(calls)))
            .http2_max_header_list_size(HEADER_BYTES)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_pending_accept_reset_streams(Some(TAKEN_BACK))
            .http2_max_local_error_reset_streams(Some(AT_FAULT))
            .http2_keepalive_interval(Some(self.limits.silent))
            .http2_keepalive_timeout(Some(self.limits.silent * 2 / 3))
            .add_service(OpenToAll::one_of(OPEN_CALLS, health_service))
            .add_optional_service(self.reflection.then(reflection::v1).map(reflecting))
            .add_optional_service(self.reflection.then(reflection::v1alpha).map(reflecting))
            .add_service(guard.protect(approvals))
            .add_service(guard.protect(workspaces));
        let stopped = draining.clone().cancelled_owned();
        let connections = connections(listener, self.tls, self.limits);
        let serving = router.serve_with_incoming_shutdown(connections, stopped);
        let _following = AbortOnDropHandle::new(tokio::spawn(async move { feed.run().await }));
        let _keeping = AbortOnDropHandle::new(tokio::spawn(async move { keeper.run().await }));
        drive(serving, shutdown, &draining, &health, self.drain_grace).await
    }
}

/// For clients that try both versions. More is not needed by any, and each holds what is sent to it while nobody takes its
/// answers.
fn reflecting<S>(service: S) -> OpenToAll<S> {
    OpenToAll::one_of(2, service)
}

/// Of all services that callers find.
fn methods(reflection: bool) -> Vec<Described> {
    let mut methods = measure::methods(proto::DESCRIPTORS);
    methods.extend(measure::methods(tonic_health::pb::FILE_DESCRIPTOR_SET));
    if reflection {
        methods.extend(measure::methods(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        methods.extend(measure::methods(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
    }
    methods
}

async fn drive(
    serving: impl Future<Output = Result<(), transport::Error>>,
    shutdown: impl Future<Output = ()>,
    draining: &CancellationToken,
    health: &Health,
    grace: Duration,
) -> Result<Drained, transport::Error> {
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map(|()| Drained::Completely),
        () = shutdown => {}
    }
    tracing::info!("draining");
    health.draining().await;
    draining.cancel();
    match tokio::time::timeout(grace, serving).await {
        Ok(ended) => {
            tracing::info!("drained: every call has ended");
            ended.map(|()| Drained::Completely)
        }
        Err(_) => {
            tracing::warn!("drained: the grace is over and some calls are cut off");
            Ok(Drained::OutOfTime)
        }
    }
}

mod reflection {
    //! The contract, for grpcurl and its like; older ones speak v1alpha only.

    use tonic_reflection::server::{Builder, v1, v1alpha};

    use super::{open, proto::DESCRIPTORS};

    #[allow(clippy::expect_used)]
    pub(super) fn v1() -> v1::ServerReflectionServer<impl v1::ServerReflection> {
        let server = builder().build_v1();
        let server = server.expect("the descriptors are those that the build compiled");
        server.max_decoding_message_size(open::REQUEST_BYTES)
    }

    #[allow(clippy::expect_used)]
    pub(super) fn v1alpha() -> v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection> {
        let server = builder().build_v1alpha();
        let server = server.expect("the descriptors are those that the build compiled");
        server.max_decoding_message_size(open::REQUEST_BYTES)
    }

    fn builder() -> Builder<'static> {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    }
}
