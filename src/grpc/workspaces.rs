//! `WorkspaceService`: the trees along which approvals escalate.

use tonic::{Request, Response, Status};

use super::{convert, deadline::carry_out, fields::Fields, page};
use crate::{
    auth::{Caller, Scope},
    error::Error,
    names::WorkspaceId,
    proto::{self, workspace_service_server},
    store::{Store, workspaces::Workspace},
    visible::Visible,
};

/// Longest display name, in characters.
const DISPLAY_NAME: usize = 200;

/// The service.
#[derive(Clone)]
pub struct WorkspaceService {
    /// Where the trees are.
    pub store: Store,
}

#[tonic::async_trait]
impl workspace_service_server::WorkspaceService for WorkspaceService {
    async fn put_workspace(
        &self,
        request: Request<proto::PutWorkspaceRequest>,
    ) -> Result<Response<proto::PutWorkspaceResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, Self::put).await
    }

    async fn list_workspaces(
        &self,
        request: Request<proto::ListWorkspacesRequest>,
    ) -> Result<Response<proto::ListWorkspacesResponse>, Status> {
        carry_out(self, request, Error::StoreUnavailable, Self::list).await
    }

    async fn delete_workspace(
        &self,
        request: Request<proto::DeleteWorkspaceRequest>,
    ) -> Result<Response<proto::DeleteWorkspaceResponse>, Status> {
        carry_out(self, request, Error::OutcomeUnknown, Self::delete).await
    }
}

impl WorkspaceService {
    async fn put(
        self,
        caller: Caller,
        request: proto::PutWorkspaceRequest,
    ) -> Result<proto::PutWorkspaceResponse, Error> {
        let workspace = parse(request.workspace)?;
        let scope = caller.scope(&workspace.namespace).ok_or(Error::RoleMissing)?;
        self.store.put_workspace(&workspace, |path| scope.covers(path)).await?;
        // Approvers of the new parent have a say in it from now on: who moved it should be found.
        let parent = workspace.parent_id.as_ref().map(|id| Visible(id.as_str()));
        let parent = parent.map(tracing::field::display);
        tracing::info!(actor = %caller.principal, namespace = %workspace.namespace,
            workspace = %Visible(workspace.id.as_str()), parent, "workspace put");
        Ok(proto::PutWorkspaceResponse { workspace: Some(convert::workspace(&workspace)) })
    }

    async fn list(
        self,
        caller: Caller,
        request: proto::ListWorkspacesRequest,
    ) -> Result<proto::ListWorkspacesResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let size = fields.page_size(request.page_size);
        let (Some(namespace), Some(size)) = (namespace, size) else {
            return Err(fields.into_error());
        };
        let scope = caller.scope(&namespace).ok_or(Error::RoleMissing)?;
        let list = ("workspaces", &namespace);
        let after = page::read(&list, &request.page_token)?.unwrap_or_default();
        let after = String::from_utf8(after)
            .ok()
            .filter(|after| after.is_empty() || WorkspaceId::parse(after).is_ok());
        let after = after.ok_or_else(|| Error::invalid("page_token", "is not one of this list"))?;
        let roots = match &scope {
            Scope::All => None,
            Scope::Subtrees(roots) => Some(&roots[..]),
        };
        let mut workspaces = self.store.workspaces(&namespace, &after, roots, size + 1).await?;
        let more = workspaces.len() > size;
        workspaces.truncate(size);
        let next_page_token = match workspaces.last() {
            Some(last) if more => page::token(&list, last.id.as_str().as_bytes()),
            Some(_) | None => String::new(),
        };
        let workspaces = workspaces.iter().map(convert::workspace).collect();
        Ok(proto::ListWorkspacesResponse { workspaces, next_page_token })
    }

    async fn delete(
        self,
        caller: Caller,
        request: proto::DeleteWorkspaceRequest,
    ) -> Result<proto::DeleteWorkspaceResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.check("workspace_id", WorkspaceId::parse(&request.workspace_id));
        let (Some(namespace), Some(id)) = (namespace, id) else {
            return Err(fields.into_error());
        };
        let scope = caller.scope(&namespace).ok_or(Error::RoleMissing)?;
        self.store.delete_workspace(&namespace, &id, |path| scope.covers(path)).await?;
        tracing::info!(actor = %caller.principal, %namespace, workspace = %Visible(id.as_str()), "workspace deleted");
        Ok(proto::DeleteWorkspaceResponse {})
    }
}

fn parse(workspace: Option<proto::Workspace>) -> Result<Workspace, Error> {
    let mut fields = Fields::default();
    let Some(workspace) = workspace else {
        return Err(Error::invalid("workspace", "is required"));
    };
    let namespace = fields.namespace_in("workspace.namespace", &workspace.namespace);
    let id = fields.check("workspace.id", WorkspaceId::parse(&workspace.id));
    let parent_id =
        fields.optional("workspace.parent_id", &workspace.parent_id, |id| WorkspaceId::parse(id));
    let name = workspace.display_name;
    let fits = name.chars().count() <= DISPLAY_NAME && !name.chars().any(char::is_control);
    let why = format!("must be at most {DISPLAY_NAME} characters, none of them control characters");
    let display_name = fields.check("workspace.display_name", fits.then_some(name).ok_or(why));
    let (Some(namespace), Some(id), Some(parent_id), Some(display_name)) =
        (namespace, id, parent_id, display_name)
    else {
        return Err(fields.into_error());
    };
    Ok(Workspace { namespace, id, parent_id, display_name })
}
