//! What is written about the metrics, and what is made of them, against the page of a server that has been used; and the
//! judgement of Prometheus' own promtool.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
};

use tokio::{io::AsyncWriteExt, process::Command};

use super::get;
use crate::{
    database::Database,
    documents::{code, read, rows},
    harness::id,
    server::Process,
};

/// The page of a server that has been used.
async fn used_page() -> String {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let held = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&held).await;
    backend.require("w1", "delete_workspace").await;
    alice.deny(&id(&backend.require("w2", "delete_workspace").await)).await;
    let (status, page) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    page
}

/// A metric: its type and its labels.
type About = (String, BTreeSet<String>);

fn metrics_of(page: &str) -> BTreeMap<String, About> {
    let mut metrics: BTreeMap<String, About> = BTreeMap::new();
    for line in page.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').expect("a type");
            metrics.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let (labels, _) = rest.rsplit_once('}').expect("an end");
        let family = &mut metrics.get_mut(family(name)).expect("a type").1;
        let labels = labels.split("\",").filter_map(|label| label.split_once('='));
        family.extend(labels.map(|(name, _)| name.to_owned()).filter(|name| name != "le"));
    }
    metrics
}

/// The metric that a series is of.
fn family(series: &str) -> &str {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| series.strip_suffix(part)).unwrap_or(series)
}

fn documented() -> BTreeMap<String, About> {
    let text = read("docs/metrics.md");
    let rows = rows(&text).into_iter().map(|cells| {
        let labels = code(cells[2]).into_iter().map(str::to_owned);
        (code(cells[0])[0].to_owned(), (cells[1].to_owned(), labels.collect()))
    });
    rows.collect()
}

/// The names of metrics in an expression: what is neither a function, nor a label, nor a keyword.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let mut inside = Vec::new();
    for letter in expression.chars() {
        match letter {
            '"' if inside.last() == Some(&'"') => drop(inside.pop()),
            _ if inside.last() == Some(&'"') => {}
            '"' | '{' | '[' => inside.push(letter),
            '}' | ']' => drop(inside.pop()),
            _ if inside.is_empty() => bare.push(letter),
            _ => {}
        }
    }
    for grouping in ["by (", "without (", "on ("] {
        while let Some((before, after)) = bare.split_once(grouping) {
            let (_, after) = after.split_once(')').expect("its end");
            bare = format!("{before} {after}");
        }
    }
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|letter| !is_word(letter)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        if !after.trim_start().starts_with('(')
            && !is_number
            && !["and", "or", "unless"].contains(&word)
        {
            found.insert(family(word).to_owned());
        }
        rest = after;
    }
    found
}

/// The values of a key in a file of rules: each is on one line.
fn values(text: &str, key: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key))
        .map(|value| value.trim().to_owned())
        .collect()
}

async fn promtool(arguments: &[&str], input: &str) -> String {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/promtool");
    let path = match std::env::var("PROMTOOL") {
        Ok(path) => path,
        Err(_) => {
            let found = Command::new(scripts).output().await.expect("the script");
            String::from_utf8(found.stdout).expect("a path").trim().to_owned()
        }
    };
    let mut command = Command::new(path);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("read");
    drop(stdin);
    let done = child.wait_with_output().await.expect("promtool");
    let said =
        [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_documented_and_every_expression_is_of_metrics_that_there_are() {
    let page = used_page().await;
    let there = metrics_of(&page);
    assert_eq!(there, documented(), "docs/metrics.md against the page");
    let lint = promtool(&["check", "metrics"], &page).await;
    assert_eq!(lint, "", "promtool has nothing to say");

    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/approval-authority.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let shown = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let shown: Vec<String> =
        shown.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect();
    let alerts = values(&read("deploy/prometheus/alerts.yml"), "expr:");
    assert!(shown.len() >= 12 && alerts.len() >= 9, "{} {}", shown.len(), alerts.len());
    for expression in shown.iter().chain(&alerts) {
        let used = metrics_in(expression);
        assert!(!used.is_empty(), "{expression:?} is of nothing");
        for metric in used {
            assert!(there.contains_key(&metric), "{metric} in {expression:?} is not there");
        }
    }
    println!("{} metrics, {} panels, {} alerts", there.len(), shown.len(), alerts.len());
}

#[tokio::test]
async fn every_alert_fires_when_it_should_and_is_in_the_runbook() {
    promtool(&["check", "rules", "deploy/prometheus/alerts.yml"], "").await;
    promtool(&["test", "rules", "deploy/prometheus/alerts_test.yml"], "").await;
    let rules = read("deploy/prometheus/alerts.yml");
    let (names, runbook) = (values(&rules, "alert:"), values(&rules, "runbook:"));
    let tested = values(&read("deploy/prometheus/alerts_test.yml"), "alertname:");
    let text = read("docs/runbook.md");
    let (_, alerts) = text.split_once("\n## Alerts\n").expect("the chapter");
    let alerts = alerts.split("\n## ").next().expect("the chapter");
    let headings: Vec<&str> = alerts.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(names, headings, "alerts, and what the runbook says of them, in one order");
    let links: Vec<String> =
        names.iter().map(|name| format!("docs/runbook.md#{}", name.to_lowercase())).collect();
    assert_eq!(runbook, links);
    for name in &names {
        assert!(tested.contains(name), "{name} is not tested");
    }
}

#[test]
fn the_metrics_of_an_expression_are_told_from_all_else_in_it() {
    let found = metrics_in(
        "histogram_quantile(0.9, sum by (le, kind) (rate(a_seconds_bucket{x=\"y_total\"}[5m]))) > 2 and b_total / on (c) d",
    );
    let expected = ["a_seconds", "b_total", "d"].map(str::to_owned);
    assert_eq!(found, expected.into());
}
