//! What the service manager is told, where there is one that asked for it by `NOTIFY_SOCKET`.

use sd_notify::NotifyState;

/// Calls are answered from now on.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The server drains, and ends within its grace.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
