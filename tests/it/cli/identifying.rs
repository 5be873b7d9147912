//! Ids, and parts of them.

use approval_authority::proto::Approval;

use super::{Person, pending, short};
use crate::harness::TestServer;

#[tokio::test]
async fn an_approval_is_named_by_its_id_and_by_its_beginning_or_end_if_that_tells_it_apart() {
    let (_database, server) = TestServer::new().await;
    let (one, two) = (pending(&server, "w1").await, pending(&server, "w2").await);
    let alice = Person::of("alice", server.address);
    let beginning = &one.id[..24];
    let upper = one.id.to_uppercase();
    for name in [&one.id, beginning, short(&one), upper.as_str(), &one.id.replace('-', "")] {
        let shown = alice.runs(&["show", name]).await;
        assert_eq!(shown.code, Some(0), "{name}: {shown:?}");
        assert!(shown.out.contains(&one.id), "{name}: {shown:?}");
    }
    // Both were made within a minute of one another, and so begin alike.
    let ambiguous = alice.runs(&["show", &one.id[..6]]).await;
    assert_eq!(ambiguous.code, Some(2), "{ambiguous:?}");
    for Approval { id, workspace_id, .. } in [&one, &two] {
        assert!(ambiguous.err.contains(&format!("{id}  PENDING")), "{ambiguous:?}");
        assert!(ambiguous.err.contains(&format!("delete_workspace in {workspace_id}")));
    }
    let hash = &one.request_hash;
    let blind = alice.runs(&["approve", &one.id[..6], "--request-hash", hash]).await;
    assert_eq!(blind.code, Some(2), "{blind:?}");
    let nothing = alice.runs(&["show", "ffffffff"]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.err.contains("no approval that you may see"), "{nothing:?}");

    // What is pending is meant before what is over; what is over can still be named.
    server.caller("bob").await.deny(&two.id).await;
    let shown = alice.runs(&["show", &one.id[..6]]).await;
    assert!(shown.out.contains(&one.id), "{shown:?}");
    let over = alice.runs(&["approve", short(&two), "--request-hash", &two.request_hash]).await;
    assert_eq!(over.code, Some(6), "{over:?}");
    assert!(over.err.contains("it is DENIED"), "{over:?}");
}
