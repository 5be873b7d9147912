//! Who calls, and what they may do: credentials into a [`Caller`], roles from the policy, default deny.

use std::sync::Arc;

use jiff::Timestamp;

use self::{
    jwt::Issuers,
    mtls::Certificate,
    permissions::{Grant, Reach},
    tokens::{TokenHash, Tokens},
};
use crate::{
    approval::Operation,
    error::Error,
    names::{Namespace, Principal, WorkspaceId},
    policy::{Binding, Policy, Selector},
    store::{Store, listing::Selection},
};

pub mod jwks;
pub mod jwt;
pub mod mtls;
pub mod permissions;
pub mod tokens;

/// Who callers are and what they may do. Both are replaced as one, so that no call meets the credentials of one
/// moment and the policy of another.
#[derive(Debug)]
pub struct Access {
    /// The tokens that are known.
    pub tokens: Tokens,
    /// The issuers whose JWTs are taken.
    pub issuers: Issuers,
    /// Which name of a client certificate speaks for its holder; unset: none does.
    pub mtls: Option<mtls::Subject>,
    /// The policy in force.
    pub policy: Arc<Policy>,
}

/// What a caller has shown, in a form that can be looked at again while its call goes on.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token of the `tokens` authenticator.
    Token(TokenHash),
    /// A client certificate of the `mtls` authenticator, verified when the connection was made.
    Certificate(Arc<Certificate>),
    /// A JWT that was verified, by whom it spoke for. It is good until it expires: an issuer has no other way to take
    /// one back.
    Jwt(Identity),
}

/// All that a caller shows with a call. It cannot be printed.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// The bearer token of the call.
    pub bearer: Option<&'a str>,
    /// The verified client certificate of its connection.
    pub certificate: Option<&'a Arc<Certificate>>,
}

/// Who a credential speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The principal.
    pub principal: Principal,
    /// Its groups.
    pub groups: Vec<Principal>,
    /// Until when the credential is good; for ever, if none.
    pub expires: Option<Timestamp>,
}

impl Access {
    /// Who shows this, to make a call that these grants open. Exactly one credential: of two, one would have to be
    /// chosen, and whoever added the other, be it a proxy or a thief, meant something else by it.
    pub async fn admit(
        &self,
        shown: Shown<'_>,
        grants: &'static [Grant],
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let credential = match (shown.bearer, self.naming(shown.certificate)) {
            (Some(bearer), None) if jwt::is_meant(bearer) => {
                Credential::Jwt(self.issuers.admit(bearer, now).await?)
            }
            (Some(bearer), None) => Credential::Token(TokenHash::of(bearer)?),
            (None, Some(certificate)) => Credential::Certificate(certificate.clone()),
            (Some(_), Some(_)) => {
                tracing::info!("refused a bearer token beside a client certificate");
                return Err(Error::Unauthenticated);
            }
            (None, None) => return Err(Error::Unauthenticated),
        };
        let identity = self.identify(&credential, now)?;
        Ok(self.caller(credential, identity, grants))
    }

    /// A certificate, if it names anybody. One that does not is no credential.
    fn naming<'a>(
        &self,
        certificate: Option<&'a Arc<Certificate>>,
    ) -> Option<&'a Arc<Certificate>> {
        let (certificate, subject) = (certificate?, self.mtls?);
        subject.principal(certificate).is_some().then_some(certificate)
    }

    /// Whom a credential speaks for now.
    fn identify(&self, credential: &Credential, now: Timestamp) -> Result<Identity, Error> {
        match credential {
            Credential::Token(hash) => self.tokens.holder(hash, now),
            Credential::Certificate(certificate) => {
                self.mtls.ok_or(Error::Unauthenticated)?.holder(certificate, now)
            }
            Credential::Jwt(identity) => self.issuers.still_good(identity, now),
        }
    }

    fn caller(
        &self,
        credential: Credential,
        identity: Identity,
        grants: &'static [Grant],
    ) -> Caller {
        let Identity { principal, groups, expires } = identity;
        Caller { principal, groups, credential, expires, grants, policy: self.policy.clone() }
    }
}

/// An authenticated caller, making a call under the policy in force.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The groups it is in, `<authenticator>:<group>`.
    pub groups: Vec<Principal>,
    /// What it has shown.
    pub credential: Credential,
    /// Until when its credential is good; for ever, if none.
    pub expires: Option<Timestamp>,
    /// What opens the call that it makes.
    pub grants: &'static [Grant],
    /// The policy that says which roles it holds.
    pub policy: Arc<Policy>,
}

/// The workspaces of a namespace for which a call is open to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// These and all below them.
    Subtrees(Vec<WorkspaceId>),
}

impl Scope {
    /// Whether it holds for a workspace, given the workspace and its ancestors.
    pub fn covers(&self, path: &[WorkspaceId]) -> bool {
        match self {
            Self::All => true,
            Self::Subtrees(roots) => path.iter().any(|workspace| roots.contains(workspace)),
        }
    }

    /// The workspaces for which it holds.
    pub fn selection(&self) -> Selection {
        match self {
            Self::All => Selection::All,
            Self::Subtrees(roots) => Selection::Below(roots.clone()),
        }
    }

    /// Whether it holds for a workspace; reads the tree only where that decides.
    pub async fn holds_for(
        &self,
        store: &Store,
        namespace: &Namespace,
        workspace: &WorkspaceId,
    ) -> Result<bool, Error> {
        if self.covers(std::slice::from_ref(workspace)) {
            return Ok(true);
        }
        Ok(self.covers(&store.path(namespace, workspace).await?))
    }
}

impl Caller {
    /// The same caller by what is in force now. [`Error::Unauthenticated`] when its credential is not, or is
    /// another's.
    pub fn renewed(&self, access: &Access, now: Timestamp) -> Result<Self, Error> {
        let identity = access.identify(&self.credential, now)?;
        let renewed = access.caller(self.credential.clone(), identity, self.grants);
        if renewed.principal == self.principal { Ok(renewed) } else { Err(Error::Unauthenticated) }
    }

    /// Where in a namespace the call is open to the caller; none where it is closed.
    pub fn scope(&self, namespace: &Namespace) -> Option<Scope> {
        self.scope_by(self.grants, namespace, None)
    }

    /// Where in a namespace these grants would open to the caller a call about an operation.
    pub fn scope_about(
        &self,
        grants: &[Grant],
        namespace: &Namespace,
        operation: &Operation,
    ) -> Option<Scope> {
        self.scope_by(grants, namespace, Some(operation))
    }

    /// Whether the call is open to the caller anywhere, for anything.
    pub fn holds_any(&self) -> bool {
        self.bindings().any(|binding| self.grants.iter().any(|(role, _)| *role == binding.role))
    }

    fn scope_by(
        &self,
        grants: &[Grant],
        namespace: &Namespace,
        about: Option<&Operation>,
    ) -> Option<Scope> {
        let mut roots = Vec::new();
        for binding in self.bindings().filter(|binding| binding.namespaces.selects(namespace)) {
            for (_, reach) in grants.iter().filter(|(role, _)| *role == binding.role) {
                let opens = match (reach, about) {
                    (Reach::Workspaces, _) => true,
                    (Reach::Actions, Some(about)) => binding.actions.selects(&about.action),
                    (Reach::Own, Some(about)) if about.requested_by == self.principal => {
                        return Some(Scope::All);
                    }
                    (Reach::Actions | Reach::Own | Reach::Everything, _) => false,
                };
                match &binding.workspaces {
                    _ if !opens => {}
                    Selector::All(_) => return Some(Scope::All),
                    Selector::Some(workspaces) => roots.extend(workspaces.iter().cloned()),
                }
            }
        }
        (!roots.is_empty()).then_some(Scope::Subtrees(roots))
    }

    fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.policy.bindings().iter().filter(|binding| {
            binding.principals.contains(&self.principal)
                || binding.groups.iter().any(|group| self.groups.contains(group))
        })
    }
}
