//! What the keeper says of its rounds, and of what waits for people.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use super::{numbers, until_page};
use crate::{database::Database, server::Process, service::Service};

/// Writes approvals that are pending. `which` is a query for the namespace of each, a number within it, and since when it waits.
async fn fill(database: &Database, which: &str) {
    let fill = format!(
        "INSERT INTO approval_authority.logs (namespace, epoch)
            SELECT w.namespace, gen_random_uuid() FROM ({which}) AS w (namespace, n, time) GROUP BY w.namespace;
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash, requested_by,
            on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest, recent_denials,
            create_time, state, version, expire_time)
        SELECT w.namespace, (lpad(to_hex((extract(epoch FROM w.time) * 1000)::bigint), 12, '0') || '7000'
                || '8' || substr(md5(w.namespace || w.n), 1, 15))::uuid,
            'w1', 'delete_workspace', '{{}}', sha256(convert_to(w.namespace || w.n, 'UTF8')), 'tokens:backend', '', '', 1, 1, 1,
            '', 0, w.time, 'PENDING', 1, w.time + interval '50 days'
        FROM ({which}) AS w (namespace, n, time)"
    );
    database.connect().await.batch_execute(&fill).await.expect("filled");
}

/// A number of one kind of the keeper's work.
fn of(page: &BTreeMap<String, f64>, work: &str, name: &str) -> f64 {
    let series = format!("approval_authority_keeper_{name}{{work=\"{work}\"}}");
    // The page is there before the keeper is.
    page.get(&series).copied().unwrap_or_default()
}

/// The oldest of each namespace is seen, however many there are in others.
#[tokio::test]
async fn pending_approvals_are_counted_within_bounds_and_the_oldest_first() {
    let database = Database::new().await;
    let which = "SELECT 'large', n, clock_timestamp() - n * interval '1 second' FROM generate_series(1, 3000) AS n
        UNION ALL SELECT 'small', 1, clock_timestamp() - interval '2 days'";
    fill(&database, which).await;
    let ages = database.store().pending_ages().await.expect("ages");
    assert_eq!(ages.len(), 501, "half of a thousand for each of two, and one has one");
    let most = ages.iter().max().expect("some");
    assert!(*most > Duration::from_secs(47 * 3600), "{most:?}");
    let oldest_of_the_large = ages.iter().filter(|age| **age < Duration::from_secs(4000));
    assert!(oldest_of_the_large.clone().all(|age| *age > Duration::from_secs(2400)));
    assert_eq!(oldest_of_the_large.count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_people_is_told_apart_by_age_for_as_long_as_it_waits() {
    let database = Database::new().await;
    let began = Instant::now();
    let which = "SELECT 'default', age || n, clock_timestamp() - age::interval
        FROM (VALUES (1, '1 minute'), (2, '30 minutes'), (3, '2 hours'), (4, '10 hours'), (5, '2 days')) AS a (count, age)
        CROSS JOIN LATERAL generate_series(1, a.count) AS n";
    fill(&database, which).await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let ages = |page: &BTreeMap<String, f64>| {
        ["under_5m", "5m_to_1h", "1h_to_4h", "4h_to_24h", "over_24h"].map(|age| {
            let series = format!("approval_authority_pending_approvals{{age=\"{age}\"}}");
            page.get(&series).copied()
        })
    };
    until_page(admin, |page| ages(page) == [1.0, 2.0, 3.0, 4.0, 5.0].map(Some)).await;
    let oldest = "approval_authority_pending_oldest_seconds";
    let waited = numbers(admin).await[oldest] - 2.0 * 86_400.0;
    let range = 0.0..=began.elapsed().as_secs_f64();
    assert!(range.contains(&waited), "{waited} not in {range:?}");

    let settle = "DELETE FROM approval_authority.approvals";
    database.connect().await.batch_execute(settle).await.expect("settled");
    until_page(admin, |page| ages(page) == [Some(0.0); 5] && page[oldest] == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_fails_is_no_run() {
    let database = Database::new().await;
    let owner = database.connect().await;
    // What every round begins with.
    let hide = "ALTER TABLE approval_authority.logs RENAME TO hidden";
    owner.batch_execute(hide).await.expect("hidden");
    let began = Instant::now();
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let each = |page: &BTreeMap<String, f64>, name: &str| {
        ["deadlines", "retention", "pending"].map(|work| of(page, work, name))
    };
    let (failures, last) = ("failures_total", "last_run_timestamp_seconds");
    until_page(admin, |page| each(page, failures).iter().all(|failures| *failures > 0.0)).await;
    let page = numbers(admin).await;
    let rounds = 1.0 + began.elapsed().as_secs_f64() / 10.0;
    assert!(each(&page, failures)[1..].iter().all(|failures| *failures <= rounds), "{page:?}");
    assert_eq!(each(&page, last), [0.0; 3]);

    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.expect("later").as_secs() as f64
    };
    let before = now();
    let show = "ALTER TABLE approval_authority.hidden RENAME TO logs";
    owner.batch_execute(show).await.expect("shown");
    until_page(admin, |page| each(page, last)[0] > 0.0).await;
    until_page(admin, |page| each(page, last).iter().all(|last| *last > 0.0)).await;
    let page = numbers(admin).await;
    for last in each(&page, last) {
        assert!((before..=now()).contains(&last), "{last}");
    }
}

/// A transaction that holds approvals is the usual reason for a keeper that does not get on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_after_which_an_approval_is_still_due_is_no_run() {
    let service = Service::new().await;
    let held = service.pending().await;
    let mut other = service.database.connect().await;
    let holder = other.transaction().await.expect("begun");
    let lock = format!("SELECT FROM approval_authority.approvals WHERE id = '{held}' FOR UPDATE");
    holder.execute(&lock, &[]).await.expect("locked");
    service.database.move_clock("8 days").await;
    let mut process = Process::serve(&service.database.url).await;
    let admin = process.admin().await;
    let of = |page: &BTreeMap<String, f64>, name: &str| of(page, "deadlines", name);
    until_page(admin, |page| of(page, "failures_total") > 0.0).await;
    assert_eq!(of(&numbers(admin).await, "last_run_timestamp_seconds"), 0.0);
    holder.rollback().await.expect("let go");
    until_page(admin, |page| of(page, "last_run_timestamp_seconds") > 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_in_which_one_log_was_not_seen_to_is_no_run() {
    let service = Service::new().await;
    service.pending().await;
    service.database.move_clock("91 days").await;
    let owner = service.database.connect().await;
    for function in
        ["cut_log(text, bigint, integer)", "clear_approvals(text, bigint, uuid, integer)"]
    {
        let may = async |word: &str, to: &str| {
            let function = format!("EXECUTE ON FUNCTION approval_authority.{function}");
            let statement = format!("{word} {function} {to} approval_authority_service");
            owner.batch_execute(&statement).await.expect("done");
        };
        may("REVOKE", "FROM").await;
        let mut process = Process::serve(&service.database.url).await;
        let admin = process.admin().await;
        let of = |page: &BTreeMap<String, f64>, name: &str| of(page, "retention", name);
        until_page(admin, |page| of(page, "failures_total") > 0.0).await;
        let last = of(&numbers(admin).await, "last_run_timestamp_seconds");
        assert_eq!(last, 0.0, "{function}");
        may("GRANT", "TO").await;
        until_page(admin, |page| of(page, "last_run_timestamp_seconds") > 0.0).await;
    }
}
