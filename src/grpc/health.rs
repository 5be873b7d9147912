//! Whether callers should come, said in two ways that agree: gRPC health, and `/readyz` of the admin listener.

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::{HealthReporter, health_reporter},
};

use crate::admin::{Phase, Readiness};

/// What is said of the whole server, and of each service.
const NAMES: [&str; 3] = ["", "approvals.v1.ApprovalService", "approvals.v1.WorkspaceService"];

/// Says it in both ways.
pub(super) struct Health {
    reporter: HealthReporter,
    readiness: Readiness,
}

impl Health {
    /// Of a server that has seen its database. With the service that tells callers.
    pub(super) async fn serving(readiness: Readiness) -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self { reporter, readiness };
        health.say(ServingStatus::Serving).await;
        health.readiness.reach(Phase::Serving);
        (health, service)
    }

    /// New calls should go elsewhere from now on.
    pub(super) async fn draining(&self) {
        self.readiness.reach(Phase::Draining);
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for name in NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
