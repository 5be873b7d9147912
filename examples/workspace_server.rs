//! A backend that deletes workspaces, and asks before it does.
//!
//!     make run            # in another terminal: the authority, with a token for this backend
//!     cargo run --example workspace_server -- http://127.0.0.1:50051 TOKEN_FILE
//!     curl -X DELETE http://127.0.0.1:8080/workspaces/w1

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use approval_authority::gate::{
    Gate, Operation,
    layer::{Clearance, GateLayer, Gating},
};
use axum::{
    Extension, Router,
    extract::State,
    http::{Method, StatusCode, request::Parts},
    routing::{delete, get},
};
use percent_encoding::percent_decode_str;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(authority), Some(token_file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: workspace_server AUTHORITY_URL TOKEN_FILE".into());
    };
    let gate = Gate::connect(authority, token_file).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, app(gate, ["w1", "w2", "w3"])).await?;
    Ok(())
}

/// The names of the workspaces that there are.
type Workspaces = Arc<Mutex<BTreeSet<String>>>;

/// The server's routes. One layer gates them all, so that a route that is added is not forgotten.
pub fn app<'n>(gate: Gate, names: impl IntoIterator<Item = &'n str>) -> Router {
    let workspaces: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    Router::new()
        .route("/workspaces", get(list))
        .route("/workspaces/{id}", delete(remove))
        .with_state(Arc::new(Mutex::new(workspaces)))
        .layer(GateLayer::new(gate, operation))
}

/// What a request would do that needs an approval.
fn operation(request: &Parts) -> Gating {
    if request.method != Method::DELETE {
        return Gating::Ungated;
    }
    let Some(id) = request.uri.path().strip_prefix("/workspaces/") else {
        return Gating::Unclear("only workspaces can be deleted".to_owned());
    };
    match percent_decode_str(id).decode_utf8() {
        Ok(id) => {
            let reason = request.headers.get("x-reason").and_then(|reason| reason.to_str().ok());
            Gating::Gated(Operation::new(id, "delete_workspace").reason(reason.unwrap_or_default()))
        }
        Err(_) => Gating::Unclear("the workspace's id is no UTF-8".to_owned()),
    }
}

async fn list(State(workspaces): State<Workspaces>) -> String {
    let workspaces = workspaces.lock().unwrap_or_else(PoisonError::into_inner);
    workspaces.iter().fold(String::new(), |list, id| list + id + "\n")
}

/// Acts on what was approved: there is no other way to learn which workspace is meant, and no clearance but the gate's.
async fn remove(
    State(workspaces): State<Workspaces>,
    Extension(cleared): Extension<Clearance>,
) -> StatusCode {
    let mut workspaces = workspaces.lock().unwrap_or_else(PoisonError::into_inner);
    match workspaces.remove(cleared.operation().workspace_id()) {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    }
}
