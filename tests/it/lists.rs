//! Lists of a large history, in all their shapes, against a plain reading of what is there.

use std::collections::{BTreeSet, HashMap};

use approval_authority::{
    approval::{Approval, Operation, State, gate::Gate},
    digest::Context,
    names::Namespace,
    proto::{
        self, ApprovalState, ListApprovalsRequest, ListWorkspacesRequest, Start,
        watch_approvals_response::Message,
    },
    store::listing::{Filter, Selection},
};
use uuid::Uuid;

use crate::{
    database::Database,
    harness::{Caller, TestServer},
    rng::Rng,
    service::{Service, call},
    watch::from,
};

/// In the tree that `tree-approver` may see: more than are looked at one by one before anything else.
const IN_TREE: usize = 1_500;

/// So many of the newest approvals are nearly all of workspaces that are in no tree, and the older ones are not.
const NEWEST: usize = 2_500;
const OLDER: usize = 1_500;

const LISTS: usize = 60;

struct Row {
    id: Uuid,
    workspace: String,
    action: &'static str,
    state: State,
}

/// What the database holds.
struct Held {
    /// Newest first.
    rows: Vec<Row>,
    parents: HashMap<String, String>,
}

impl Held {
    fn drawn(rng: &mut Rng) -> Self {
        let roots = ["tree", "few"].map(|root| (root.to_owned(), "top".to_owned()));
        let mut parents = HashMap::from(roots);
        for n in 0..IN_TREE {
            let parent = if n < 10 { "tree".to_owned() } else { format!("t{}", n / 10) };
            parents.insert(format!("t{n}"), parent);
        }
        for n in 0..10 {
            parents.insert(format!("f{n}"), "few".to_owned());
        }
        let row = |n: usize| {
            let workspace = match rng.index(0..100) {
                at if at < if n < NEWEST { 1 } else { 60 } => format!("t{}", rng.index(0..IN_TREE)),
                at if at < if n < NEWEST { 3 } else { 80 } => format!("f{}", rng.index(0..10)),
                _ => format!("apart-{}", rng.index(0..2_000)),
            };
            let action = match rng.index(0..500) {
                0 => "org_token_mint",
                1..50 => "secret_write",
                _ => "delete_workspace",
            };
            let state = match rng.index(0..100) {
                0..40 => State::Pending,
                40..50 => State::Denied,
                50..53 => State::Withdrawn,
                53..90 => State::Consumed,
                _ => State::Expired,
            };
            let time = 1_790_000_000_000 - 1_000 * n as u64;
            let id = uuid::Builder::from_unix_timestamp_millis(time, &[n as u8; 10]).into_uuid();
            Row { id, workspace, action, state }
        };
        Self { rows: (0..NEWEST + OLDER).map(row).collect(), parents }
    }

    async fn write(&self, database: &Database) {
        let client = database.connect().await;
        let below = self.parents.iter().map(|(id, parent)| (id.as_str(), Some(parent.as_str())));
        let (ids, parents): (Vec<&str>, Vec<Option<&str>>) = below.chain([("top", None)]).unzip();
        let workspaces =
            "INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
            SELECT 'default', id, parent, '' FROM unnest($1::text[], $2::text[]) AS w (id, parent)";
        let log = "WITH log AS (
                INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('default', gen_random_uuid()))
            INSERT INTO approval_authority.log_locks (namespace) VALUES ('default')";
        client.execute(log, &[]).await.expect("a log");
        client.execute(workspaces, &[&ids, &parents]).await.expect("workspaces");

        let ids: Vec<Uuid> = self.rows.iter().map(|row| row.id).collect();
        let workspaces: Vec<&str> = self.rows.iter().map(|row| row.workspace.as_str()).collect();
        let actions: Vec<&str> = self.rows.iter().map(|row| row.action).collect();
        let states: Vec<&str> = self.rows.iter().map(|row| row.state.as_str()).collect();
        let approvals = "INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context,
                request_hash, requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms,
                policy_digest, recent_denials, create_time, state, version, expire_time, decide_time, consume_time,
                consumed_by, cooldown_end)
            SELECT 'default', r.id, r.workspace, r.action, '{}', sha256(r.id::text::bytea), 'tokens:backend', '', '', 1, 1, 1,
                '', 0, t.time, r.state, 1, t.time + interval '1 day',
                CASE WHEN r.state IN ('DENIED', 'CONSUMED') THEN t.time END, CASE WHEN r.state = 'CONSUMED' THEN t.time END,
                CASE WHEN r.state = 'CONSUMED' THEN 'tokens:backend' END, CASE WHEN r.state = 'DENIED' THEN t.time END
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS r (id, workspace, action, state)
            CROSS JOIN (SELECT clock_timestamp() AS time) AS t";
        client
            .execute(approvals, &[&ids, &workspaces, &actions, &states])
            .await
            .expect("approvals");
        let events = "INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id,
                version, state, verdicts, expire_time, event_time, batch_id)
            SELECT 'default', row_number() OVER (ORDER BY a.id), 'REQUESTED', a.workspace_id, a.id, 1, 'PENDING', '[]',
                a.expire_time, a.create_time, gen_random_uuid()
            FROM approval_authority.approvals AS a";
        client.execute(events, &[]).await.expect("events");
    }

    fn is_at_or_below(&self, workspace: &str, root: &str) -> bool {
        let mut at = Some(workspace);
        while let Some(here) = at {
            if here == root {
                return true;
            }
            at = self.parents.get(here).map(String::as_str);
        }
        false
    }

    fn listed(&self, request: &ListApprovalsRequest, visible: Option<&str>) -> Vec<String> {
        let is_asked = |workspace: &str| {
            let is_below = |root: &String| match request.include_descendants {
                true => self.is_at_or_below(workspace, root),
                false => workspace == root,
            };
            request.workspace_ids.is_empty() || request.workspace_ids.iter().any(is_below)
        };
        let rows = self.rows.iter().filter(|row| {
            visible.is_none_or(|root| self.is_at_or_below(&row.workspace, root))
                && is_asked(&row.workspace)
                && (request.states.is_empty() || request.states.contains(&known(row.state).into()))
                && (request.actions.is_empty()
                    || request.actions.iter().any(|action| action == row.action))
        });
        rows.map(|row| row.id.to_string()).collect()
    }
}

fn known(state: State) -> ApprovalState {
    ApprovalState::from_str_name(&format!("APPROVAL_STATE_{}", state.as_str())).expect("a state")
}

fn drawn_request(rng: &mut Rng) -> ListApprovalsRequest {
    let workspace = |rng: &mut Rng| match rng.index(0..7) {
        0 => "top".to_owned(),
        6 => "tree".to_owned(),
        1 => "few".to_owned(),
        2 => format!("t{}", rng.index(0..20)),
        3 => format!("f{}", rng.index(0..10)),
        4 => format!("t{}", rng.index(0..IN_TREE)),
        _ => format!("apart-{}", rng.index(0..2_000)),
    };
    let states = [State::Pending, State::Denied, State::Withdrawn, State::Consumed, State::Revoked];
    let actions = ["delete_workspace", "secret_write", "org_token_mint", "nobodys"];
    let few = |rng: &mut Rng| if rng.one_in(3) { 0 } else { rng.index(1..3) };
    ListApprovalsRequest {
        workspace_ids: (0..few(rng)).map(|_| workspace(rng)).collect(),
        include_descendants: !rng.one_in(4),
        states: (0..few(rng)).map(|_| known(*rng.pick(&states).expect("one")).into()).collect(),
        actions: (0..few(rng)).map(|_| (*rng.pick(&actions).expect("one")).to_owned()).collect(),
        page_size: *rng.pick(&[20, 50, 500]).expect("one"),
        ..Default::default()
    }
}

async fn all_pages(caller: &Caller, mut request: ListApprovalsRequest) -> Vec<String> {
    let mut listed = Vec::new();
    loop {
        let page = caller.list(request.clone()).await.expect("a page");
        listed.extend(page.approvals.into_iter().map(|approval| approval.id));
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

async fn all_workspaces(caller: &Caller) -> Vec<String> {
    let mut request = ListWorkspacesRequest { page_size: 400, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        let page = caller.workspaces.clone().list_workspaces(request.clone()).await;
        let page = page.expect("a page").into_inner();
        listed.extend(page.workspaces.into_iter().map(|workspace| workspace.id));
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

async fn all_pending(caller: &Caller, request: proto::WatchApprovalsRequest) -> Vec<String> {
    let mut stream = caller.watch(request).await.expect("a stream");
    let mut pending = Vec::new();
    loop {
        match stream.message().await.expect("a message").expect("no end").message {
            Some(Message::PendingApproval(approval)) => pending.push(approval.id),
            _ => return pending,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_of_a_large_tree_is_what_a_plain_reading_finds() {
    let mut rng = Rng::drawn("lists");
    let held = Held::drawn(&mut rng);
    let database = Database::new().await;
    held.write(&database).await;
    let server = TestServer::on(&database.url).await;
    let (viewer, tree) = (server.caller("viewer").await, server.caller("tree-approver").await);

    let mut found = 0;
    for _ in 0..LISTS {
        let request = drawn_request(&mut rng);
        for (caller, visible) in [(&viewer, None), (&tree, Some("tree"))] {
            let listed = all_pages(caller, request.clone()).await;
            assert!(listed == held.listed(&request, visible), "{visible:?} {request:?}");
            found += listed.len();
        }
    }
    println!("{LISTS} lists, twice each: {found} approvals found");

    let ids: BTreeSet<&String> = held.parents.keys().collect();
    let below: Vec<&String> =
        ids.into_iter().filter(|id| held.is_at_or_below(id, "tree")).collect();
    assert_eq!(all_workspaces(&tree).await.iter().collect::<Vec<_>>(), below);
    for (workspace_ids, include_descendants) in
        [(vec![], false), (vec!["tree"], true), (vec!["few", "t7"], false), (vec!["t3"], true)]
    {
        let workspace_ids: Vec<String> = workspace_ids.into_iter().map(str::to_owned).collect();
        for (caller, visible) in [(&viewer, None), (&tree, Some("tree"))] {
            let list = ListApprovalsRequest {
                workspace_ids: workspace_ids.clone(),
                include_descendants,
                states: vec![ApprovalState::Pending.into()],
                ..Default::default()
            };
            let mut expected = held.listed(&list, visible);
            expected.reverse();
            let workspace_ids = workspace_ids.clone();
            let watch = proto::WatchApprovalsRequest {
                workspace_ids,
                include_descendants,
                ..from(Start::Pending)
            };
            assert!(all_pending(caller, watch).await == expected, "{visible:?} {list:?}");
        }
    }
}

/// Of a tree of which nothing is among the newest, each of many workspaces was looked at for one page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_takes_no_more_the_rarer_it_is_what_is_listed() {
    /// More than are looked at one by one.
    const WORKSPACES: usize = 10_100;
    /// The oldest of all.
    const IN_TREE: usize = 30;
    const APART: usize = 25_000;
    let database = Database::new().await;
    let fill = format!(
        "INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('default', gen_random_uuid());
        INSERT INTO approval_authority.log_locks (namespace) VALUES ('default');
        INSERT INTO approval_authority.workspaces (namespace, id, parent_id, display_name)
        SELECT 'default', 'tree', NULL, '' UNION ALL
        SELECT 'default', 't' || n, 'tree', '' FROM generate_series(1, {WORKSPACES}) AS n;
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
            on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
            create_time, state, version, expire_time)
        SELECT 'default', (lpad(to_hex(1790000000000 + n), 12, '0') || '7000800000000000' || lpad(to_hex(n), 4, '0'))::uuid,
            CASE WHEN n <= {IN_TREE} THEN 't' || n ELSE 'apart' END, 'delete_workspace', '{{}}',
            sha256(n::text::bytea), 'tokens:backend', '', '', 1, 1, 1, '', 0, t.time, 'PENDING', 1,
            t.time + interval '1 day'
        FROM generate_series(1, {IN_TREE} + {APART}) AS n CROSS JOIN (SELECT clock_timestamp() AS time) AS t"
    );
    database.connect().await.batch_execute(&fill).await.expect("filled");
    let server = TestServer::on(&database.url).await;
    let tree = server.caller("tree-approver").await;
    let mut list = ListApprovalsRequest {
        states: vec![ApprovalState::Pending.into()],
        page_size: 20,
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let page = tree.list(list.clone()).await.expect("a page");
        assert_eq!(page.watch_cursor.is_empty(), !pages.is_empty(), "on the first page");
        pages.push(page.approvals.len());
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!(pages, [0, 0, 20, 10], "ten thousand are looked at for each");
}

/// Five hundred of the largest contexts were fetched for a page of fifty.
#[tokio::test]
async fn no_more_is_fetched_than_has_room_on_a_page() {
    const HELD: usize = 60;
    let service = Service::new().await;
    let mut expected: Vec<Uuid> = Vec::new();
    for number in 0..HELD {
        let text = format!(r#"{{"text":"{number:02}{}"}}"#, "x".repeat(60_000));
        let mut call = call();
        call.operation = Operation::new(
            call.operation.workspace_id,
            call.operation.action,
            Context::from_canonical(&text),
            call.operation.requested_by,
            None,
        );
        let Gate::Pending(approval) = service.ledger.require(call).await.expect("an answer") else {
            panic!("nobody has approved it");
        };
        expected.insert(0, approval.id());
    }
    let all = Filter { workspaces: Selection::All, states: vec![], actions: vec![] };
    let namespace = Namespace::default_namespace();
    let (mut listed, mut pages, mut before) = (Vec::new(), Vec::new(), None);
    loop {
        let page = service.store.approvals(&namespace, &all, before, 500).await.expect("a page");
        pages.push(page.approvals.len());
        listed.extend(page.approvals.iter().map(Approval::id));
        before = page.rest;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(listed, expected);
    assert_eq!(pages, [52, 8], "of 60 KB each, in 3 MiB");
}
