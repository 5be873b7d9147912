//! A picture and what happened after it: together they are the state at every later moment, whichever way the picture
//! was taken and whoever writes meanwhile.

use std::collections::BTreeMap;

use approval_authority::proto::{
    Approval, ApprovalState, EventType, ListApprovalsRequest, Start, WatchApprovalsResponse,
    WithdrawApprovalRequest, watch_approvals_response::Message,
};
use futures_util::future::join_all;
use tokio::sync::watch;

use super::{
    check::{Asked, Entry, check_stream, entries},
    read_up_to,
};
use crate::{
    database::Database,
    harness::{Caller, id},
    rng::Rng,
    server::Process,
    watch::{after, from, next},
};

const WRITERS: usize = 16;

/// Changes by each of them. All approvals that come of them fit on one page.
const CHANGES: usize = 70;

const PICTURES: usize = 15;

/// How far each approval has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Picture(BTreeMap<String, (i32, ApprovalState)>);

impl Picture {
    fn of(approvals: &[Approval]) -> Self {
        let approvals = approvals
            .iter()
            .map(|approval| (approval.id.clone(), (approval.version, approval.state())));
        Self(approvals.collect())
    }

    fn pending(&self) -> Self {
        let pending = self.0.iter().filter(|(_, (_, state))| *state == ApprovalState::Pending);
        Self(pending.map(|(id, standing)| (id.clone(), *standing)).collect())
    }
}

/// What the events make of a picture, and those that do not follow on it. `whole`: it shows every approval, and not
/// only those that are pending; one that is not there may else have been approved before.
fn follow(mut picture: Picture, events: &[Entry], whole: bool) -> (Picture, Vec<Entry>) {
    let mut unfit = Vec::new();
    for event in events {
        let before = picture.0.get(&event.approval).map_or(0, |(version, _)| *version);
        let of_one_that_was_approved = before == 0
            && !whole
            && matches!(
                event.kind,
                EventType::Consumed | EventType::Revoked | EventType::ResultReported
            );
        if event.version != before + 1 && !of_one_that_was_approved {
            unfit.push(event.clone());
        }
        let state = match event.kind {
            EventType::Requested => ApprovalState::Pending,
            EventType::Approved => ApprovalState::Approved,
            EventType::Denied => ApprovalState::Denied,
            EventType::Consumed => ApprovalState::Consumed,
            EventType::Withdrawn => ApprovalState::Withdrawn,
            other => panic!("nobody does {other:?} here"),
        };
        picture.0.insert(event.approval.clone(), (event.version, state));
    }
    (picture, unfit)
}

/// How a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One page of a list.
    Page,
    /// Pages of a list, read one after the other: later ones may show what happens after the cursor.
    Pages,
    /// START_PENDING.
    Pending,
}

/// A picture, and the messages that followed it.
struct Taken {
    way: Way,
    picture: Picture,
    messages: Vec<WatchApprovalsResponse>,
}

/// Takes a picture with the help of one server, and the events after it from another.
async fn take(
    way: Way,
    one: Caller,
    other: Caller,
    mut end: watch::Receiver<Option<i64>>,
) -> Taken {
    let (mut approvals, mut messages) = (Vec::new(), Vec::new());
    let mut stream = if way == Way::Pending {
        let mut stream = other.watch(from(Start::Pending)).await.expect("a stream");
        loop {
            let response = next(&mut stream).await;
            messages.push(response.clone());
            match response.message.expect("a message") {
                Message::PendingApproval(approval) => approvals.push(approval),
                Message::Bookmark(mark) => {
                    assert!(mark.pending_complete);
                    break stream;
                }
                Message::Event(event) => panic!("before the bookmark: {event:?}"),
            }
        }
    } else {
        let page_size = if way == Way::Page { 500 } else { 7 };
        let mut request = ListApprovalsRequest { page_size, ..Default::default() };
        let first = one.list(request.clone()).await.expect("a page");
        let (cursor, mut token) = (first.watch_cursor, first.next_page_token);
        approvals.extend(first.approvals);
        while !token.is_empty() {
            assert_eq!(way, Way::Pages, "all of them on one page");
            request.page_token = token;
            let page = one.list(request.clone()).await.expect("a page");
            approvals.extend(page.approvals);
            token = page.next_page_token;
        }
        let mut stream = other.watch(after(&cursor)).await.expect("a stream");
        messages.push(next(&mut stream).await);
        stream
    };
    let head = end.wait_for(Option::is_some).await.expect("an end").expect("is some");
    let at = messages.last().expect("a bookmark");
    if crate::watch::revision(at) < head {
        read_up_to(&mut stream, head, &mut messages).await.expect("it goes on");
    }
    Taken { way, picture: Picture::of(&approvals), messages }
}

/// Changes approvals in a few workspaces, which other writers change too.
async fn write(backend: Caller, alice: Caller, mut rng: Rng, done: watch::Sender<usize>) {
    for _ in 0..CHANGES {
        let workspace = format!("w{}", rng.index(0..30));
        // Held, or let through by an approval of another's.
        let asked = id(&backend.require(&workspace, "secret_write").await);
        match rng.index(0..4) {
            // Whoever is late is refused.
            0 => drop(alice.decide(&asked, approval_authority::proto::Decision::Approve).await),
            1 if rng.one_in(4) => {
                let deny = approval_authority::proto::Decision::Deny;
                drop(alice.decide(&asked, deny).await);
            }
            2 => {
                let withdraw = WithdrawApprovalRequest { approval_id: asked, ..Default::default() };
                drop(backend.approvals.clone().withdraw_approval(withdraw).await);
            }
            _ => {}
        }
        done.send_modify(|done| *done += 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_and_what_follows_it_are_the_state() {
    let database = Database::new().await;
    let (one, two) = tokio::join!(Process::serve(&database.url), Process::serve(&database.url));
    let servers = [&one, &two];
    let (done, doing) = watch::channel(0);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let server = servers[writer % 2];
        let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
        let rng = Rng::drawn(&format!("writer {writer}"));
        writers.push(tokio::spawn(write(backend, alice, rng, done.clone())));
    }
    let (end, ending) = watch::channel(None);
    let mut rng = Rng::drawn("pictures");
    let mut pictures = Vec::new();
    for number in 0..PICTURES {
        let way = [Way::Page, Way::Pages, Way::Pending][number % 3];
        let first = rng.index(0..2);
        let one = servers[first].caller("alice").await;
        let other = servers[1 - first].caller("viewer").await;
        let moment = rng.index(0..WRITERS * CHANGES);
        let (mut doing, ending) = (doing.clone(), ending.clone());
        pictures.push(tokio::spawn(async move {
            doing.wait_for(|done| *done >= moment).await.expect("writers");
            take(way, one, other, ending).await
        }));
    }
    for writer in join_all(writers).await {
        writer.expect("written");
    }
    let head = database.count("SELECT max(revision) FROM approval_authority.events").await;
    end.send_replace(Some(head));
    let state = state(&database).await;
    for taken in join_all(pictures).await {
        let Taken { way, picture, messages } = taken.expect("taken");
        assert_eq!(check_stream(&messages, Asked::All), []);
        let mut events = entries(&messages);
        println!("{way:?}: {} approvals, {} events after them", picture.0.len(), events.len());
        if way == Way::Pages {
            // What a later page showed already.
            events.retain(|event| {
                picture.0.get(&event.approval).is_none_or(|(version, _)| event.version > *version)
            });
        }
        let (reached, unfit) = follow(picture, &events, way != Way::Pending);
        assert_eq!(unfit, [], "{way:?}");
        if way == Way::Pending {
            assert_eq!(reached.pending(), state.pending());
        } else {
            assert_eq!(reached, state, "{way:?}");
        }
    }
}

async fn state(database: &Database) -> Picture {
    let read = "SELECT id::text, version, state FROM approval_authority.approvals";
    let rows = database.connect().await.query(read, &[]).await.expect("approvals");
    let approvals = rows.iter().map(|row| {
        let state = format!("APPROVAL_STATE_{}", row.get::<_, &str>(2));
        let state = ApprovalState::from_str_name(&state).expect("a state");
        (row.get(0), (row.get(1), state))
    });
    Picture(approvals.collect())
}

#[test]
fn an_event_that_was_in_the_picture_or_is_lost_after_it_does_not_fit() {
    let event = |version, kind| Entry {
        revision: i64::from(version),
        kind,
        workspace: "w1".to_owned(),
        approval: "a1".to_owned(),
        version,
    };
    let [asked, approved, used] = [
        event(1, EventType::Requested),
        event(2, EventType::Approved),
        event(3, EventType::Consumed),
    ];
    let empty = Picture::default();
    let (all, unfit) =
        follow(empty.clone(), &[asked.clone(), approved.clone(), used.clone()], true);
    assert_eq!((all.0["a1"], unfit), ((3, ApprovalState::Consumed), vec![]));
    let (pending, _) = follow(empty.clone(), std::slice::from_ref(&asked), true);
    for whole in [true, false] {
        let (_, twice) = follow(pending.clone(), std::slice::from_ref(&asked), whole);
        assert_eq!(twice, std::slice::from_ref(&asked));
        let (_, lost) = follow(pending.clone(), std::slice::from_ref(&used), whole);
        assert_eq!(lost, std::slice::from_ref(&used));
        let (_, unknown) = follow(empty.clone(), std::slice::from_ref(&approved), whole);
        assert_eq!(unknown, std::slice::from_ref(&approved));
    }
    assert_eq!(follow(empty.clone(), std::slice::from_ref(&used), false).1, []);
    assert_eq!(follow(empty, std::slice::from_ref(&used), true).1, [used]);
}
