//! What is asked again, of whom, and under which key.

use std::{collections::HashSet, sync::Arc, time::Duration};

use approval_authority::gate::{Fault, Gate};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Token,
    fake::{Fake, SILENCE, through},
    fault, gate_of, let_through, operation, to,
};

async fn gate(servers: &[&Fake]) -> Gate {
    let addresses: Vec<_> = servers.iter().map(|fake| fake.address).collect();
    gate_of("backend", &addresses, |gate| gate).await
}

/// An authority that refuses so many calls with a status before it lets one through.
async fn refusing(times: usize, status: Status) -> Fake {
    let mut left = times;
    Fake::new(move |asked| {
        if left == 0 {
            return Ok(through(asked));
        }
        left -= 1;
        Err(status.clone())
    })
    .await
}

fn retry_later(code: Code) -> Status {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(10)));
    Status::with_error_details(code, "later", details)
}

#[tokio::test]
async fn one_attempt_has_one_key_however_often_it_is_asked_and_the_next_has_another() {
    for status in [
        Status::unavailable(""),
        Status::deadline_exceeded(""),
        Status::cancelled(""),
        retry_later(Code::Unavailable),
        retry_later(Code::ResourceExhausted),
    ] {
        let fake = refusing(2, status).await;
        let gate = gate(&[&fake]).await;
        let_through(gate.require(operation("w1")).await);
        let_through(gate.require(operation("w1")).await);
        let keys = fake.keys();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[0].len() == 36, "{keys:?}");
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 2, "{keys:?}");
    }
}

#[tokio::test]
async fn what_would_be_refused_again_is_asked_once() {
    for number in 1..=16 {
        let status = Status::new(Code::from(number), "no");
        if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable) {
            continue;
        }
        let fake = refusing(1, status.clone()).await;
        let fault = fault(gate(&[&fake]).await.require(operation("w1")).await);
        assert!(matches!(&fault, Fault::Refused(as_is) if as_is.code() == status.code()));
        assert_eq!(fake.keys().len(), 1, "{status:?}");
    }
}

#[tokio::test]
async fn what_stays_unavailable_is_held_at_the_deadline() {
    let fake = refusing(usize::MAX, Status::unavailable("")).await;
    let gate =
        gate_of("backend", &[fake.address], |gate| gate.deadline(Duration::from_secs(1))).await;
    let fault = fault(gate.require(operation("w1")).await);
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
    let keys = fake.keys();
    assert!((3..20).contains(&keys.len()), "with growing pauses: {}", keys.len());
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_answer_is_passed_over_until_the_next_one_cannot() {
    for status in [Status::unavailable(""), Status::unavailable(SILENCE)] {
        let (one, two) = (refusing(1, status).await, refusing(0, Status::ok("")).await);
        let servers = [one.address, two.address];
        let gate = gate_of("backend", &servers, |gate| gate.deadline(Duration::from_secs(4))).await;
        let_through(gate.require(operation("w1")).await);
        assert_eq!(one.keys(), two.keys(), "it is one attempt");
        let_through(gate.require(operation("w2")).await);
        assert_eq!((one.keys().len(), two.keys().len()), (1, 2), "the one that answers is asked");
    }
}

#[tokio::test]
async fn a_token_that_was_replaced_meanwhile_is_tried_at_once() {
    let token = Arc::new(Token::of("backend"));
    let (replaced, mut calls) = (token.clone(), 0);
    let fake = Fake::new(move |asked| {
        calls += 1;
        if calls == 1 {
            replaced.replace("another-token-for-tests");
            return Err(Status::unauthenticated(""));
        }
        Ok(through(asked))
    })
    .await;
    let gate = to(&[fake.address], &token).connect().await.expect("a gate");
    let_through(gate.require(operation("w1")).await);
    let keys = fake.keys();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
}
