//! What a backend wants to do, and how the authority is asked for it.

use prost_types::Struct;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Fault;
use crate::{
    digest::{Context, RequestHash},
    names::{Action, Namespace, OnBehalfOf, Text, WorkspaceId},
    proto::{RequireApprovalRequest, json},
};

/// An operation that may need an approval: its approval is good for exactly this, for one that differs in anything but
/// the reason it is none.
///
/// What is wrong with it is said when it is asked for, and then it is held.
#[derive(Clone, Debug)]
pub struct Operation {
    namespace: Option<String>,
    workspace_id: String,
    action: String,
    context: Result<Context, String>,
    on_behalf_of: Option<String>,
    reason: String,
}

/// An operation that can be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Without an idempotency key, and without a wait.
    pub(super) message: RequireApprovalRequest,
    pub(super) namespace: Namespace,
    pub(super) hash: RequestHash,
}

impl Operation {
    /// An action in a workspace, without parameters, in the default namespace.
    pub fn new(workspace_id: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            namespace: None,
            workspace_id: workspace_id.into(),
            action: action.into(),
            context: Context::new(Map::new()),
            on_behalf_of: None,
            reason: String::new(),
        }
    }

    /// The organisation, in a deployment for several.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The operation's parameters, all that decide what it does: anything that serializes to a JSON object.
    pub fn context(mut self, parameters: impl Serialize) -> Self {
        self.context = match serde_json::to_value(parameters) {
            Ok(Value::Object(members)) => Context::new(members),
            Ok(_) => Err("is no JSON object".to_owned()),
            Err(error) => Err(format!("cannot be expressed as JSON: {error}")),
        };
        self
    }

    /// The same, as protobuf has it.
    pub fn context_struct(mut self, parameters: Struct) -> Self {
        self.context = json::members(parameters).and_then(Context::new);
        self
    }

    /// The person or agent in whose name this backend asks, by the name under which they would approve. They may not.
    pub fn on_behalf_of(mut self, name: impl Into<String>) -> Self {
        self.on_behalf_of = Some(name.into());
        self
    }

    /// Why it is wanted, for the approver to read.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The workspace that it acts in.
    pub fn workspace_id(&self) -> &str {
        &self.workspace_id
    }

    /// What it does there.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Its parameters in RFC 8785 form, as they are hashed and shown; empty if they are no good.
    pub fn parameters(&self) -> &str {
        self.context.as_ref().map_or("", Context::as_str)
    }

    /// As the authority is asked for it; or all that is wrong with it.
    pub(crate) fn ask(&self) -> Result<Asked, Fault> {
        let namespace = self
            .namespace
            .as_deref()
            .map_or_else(|| Ok(Namespace::default_namespace()), Namespace::parse);
        let workspace = WorkspaceId::parse(&self.workspace_id);
        let action = Action::parse(&self.action);
        // An empty name is no name: who forgot to fill it in is told so, and not taken for one who has none to say.
        let on_behalf_of = self.on_behalf_of.as_ref().map(OnBehalfOf::parse).transpose();
        let reason = Text::parse(&self.reason);
        let wrong = |field: &str, why: Option<&String>| why.map(|why| format!("{field} {why}"));
        let wrongs: Vec<String> = [
            wrong("namespace", namespace.as_ref().err()),
            wrong("workspace_id", workspace.as_ref().err()),
            wrong("action", action.as_ref().err()),
            wrong("context", self.context.as_ref().err()),
            wrong("on_behalf_of", on_behalf_of.as_ref().err()),
            wrong("reason", reason.as_ref().err()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (Ok(namespace), Ok(workspace), Ok(action), Ok(context), Ok(on_behalf_of), Ok(_)) =
            (namespace, workspace, action, &self.context, on_behalf_of, reason)
        else {
            return Err(Fault::Invalid(wrongs.join("; ")));
        };
        let parameters =
            serde_json::from_str(context.as_str()).map_err(|e| Fault::Invalid(e.to_string()))?;
        let message = RequireApprovalRequest {
            namespace: namespace.to_string(),
            workspace_id: workspace.to_string(),
            action: action.to_string(),
            reason: self.reason.clone(),
            context: Some(json::object(parameters)),
            on_behalf_of: on_behalf_of.map(String::from).unwrap_or_default(),
            ..Default::default()
        };
        let hash = RequestHash::of(&workspace, &action, context);
        Ok(Asked { message, namespace, hash })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = Operation::new("", "Delete Workspace")
            .namespace("Acme!")
            .context(json!(["no object"]))
            .on_behalf_of("")
            .reason("x".repeat(2_001));
        let fault = wrong.ask().expect_err("wrong").to_string();
        for field in ["namespace", "workspace_id", "action", "context", "on_behalf_of", "reason"] {
            assert!(fault.contains(&format!("{field} ")), "{field}: {fault}");
        }
        let large = Operation::new("w", "a").context(json!({"n": 9_007_199_254_740_993_u64}));
        assert!(large.ask().expect_err("too large").to_string().contains("as a string"));
    }

    #[test]
    fn a_context_is_the_same_in_json_and_in_protobuf() {
        let parameters = json!({"b": [1, 2.5, null, {"c": "é"}], "a": true});
        let one = Operation::new("w", "a").context(parameters).ask().expect("good");
        let again =
            Operation::new("w", "a").context_struct(one.message.context.clone().expect("set"));
        let again = again.ask().expect("good");
        assert_eq!((again.hash, &again.message), (one.hash, &one.message));
        let other = Operation::new("w", "a").context(json!({})).ask().expect("good");
        assert_ne!(other.hash, one.hash);
        assert_eq!(other.hash, Operation::new("w", "a").ask().expect("good").hash);
    }
}
