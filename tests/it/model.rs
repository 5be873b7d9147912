//! The service held against a model of it: random commands from several callers, through two servers, on a real
//! database whose clock is moved on. After each, the answer, each row and what is new in the log are what the model says.

use std::{collections::BTreeMap, sync::Mutex};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Runtime;

mod rules;
mod steps;
mod system;
mod words;

use steps::{Model, Step};
use system::System;
use words::{Answer, Command};

const CASES: u32 = 24;
const STEPS: usize = 40;

/// How often each command was given each answer, and how often each event was told.
type Counts = BTreeMap<String, u32>;

#[test]
fn the_service_does_what_the_model_does() {
    let mut config =
        Config { failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let cases = config.cases;
    println!("{cases} cases of {STEPS} commands; PROPTEST_RNG_SEED={seed} repeats them");

    let runtime = Runtime::new().expect("a runtime");
    let counts = Mutex::new(Counts::new());
    let commands = Model::sequential_strategy(STEPS);
    let run = TestRunner::new(config).run(&commands, |(_, steps, seen)| {
        let seen_to = || {
            if let Some(seen) = &seen {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        };
        runtime.block_on(case(&steps, seen_to, &counts))
    });
    let counts = counts.into_inner().expect("counts");
    match run {
        Ok(()) => println!("{counts:#?}"),
        Err(TestError::Fail(why, (_, steps, _))) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!("{why}\nThe shortest way there:\n{}", steps.join("\n"));
        }
        Err(other) => panic!("{other}"),
    }
    for wanted in WANTED.iter().filter(|_| cases >= CASES) {
        assert!(counts.contains_key(*wanted), "never seen: {wanted}");
    }
}

/// What a run must have come across, or it has shown little.
const WANTED: &[&str] = &[
    "require APPROVED",
    "require APPROVED again",
    "require DENIED",
    "require NOT_REQUIRED",
    "require PENDING",
    "require TOO_MANY_PENDING",
    "decide APPROVED",
    "decide DENIED",
    "decide NOT_PENDING",
    "decide PENDING",
    "decide SELF_APPROVAL",
    "told ESCALATED",
    "told EXPIRED",
];

/// `seen_to` is told of each step before it is taken.
async fn case(
    steps: &[Step],
    seen_to: impl Fn(),
    counts: &Mutex<Counts>,
) -> Result<(), TestCaseError> {
    let mut system = System::new().await;
    let mut taken = Ok(());
    for step in steps {
        seen_to();
        match system.take(step).await {
            Ok(answer) => {
                let named = format!("{} {}", command(&step.command), word(&answer));
                *counts.lock().expect("counts").entry(named).or_default() += 1;
            }
            Err(failed) => {
                taken = Err(failed);
                break;
            }
        }
    }
    for entry in system.log() {
        let kind = entry.kind.as_str_name().trim_start_matches("EVENT_TYPE_");
        *counts.lock().expect("counts").entry(format!("told {kind}")).or_default() += 1;
    }
    system.end().await;
    taken
}

fn command(command: &Command) -> &'static str {
    match command {
        Command::Require { .. } => "require",
        Command::Decide { .. } => "decide",
        Command::Withdraw { .. } => "withdraw",
        Command::Revoke { .. } => "revoke",
        Command::Report { .. } => "report",
    }
}

fn word(answer: &Answer) -> String {
    match answer {
        Answer::Gate { outcome, replayed, .. } => {
            let again = if *replayed { " again" } else { "" };
            let outcome = outcome.as_str_name().trim_start_matches("OUTCOME_");
            format!("{outcome}{again}")
        }
        Answer::Approval(about) => {
            about.state.as_str_name().trim_start_matches("APPROVAL_STATE_").to_owned()
        }
        Answer::Refused { reason, .. } => reason.clone(),
    }
}
