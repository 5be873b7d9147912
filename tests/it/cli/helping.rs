//! Help, completions and manual pages.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use super::{bare, run};
use crate::commands::Dev;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").unwrap_or_default();
    let (list, _) = list.split_once("\n\n").unwrap_or((list, ""));
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_has_an_example_in_its_help() {
    let help = run(bare(&["--help"])).await.out;
    let mut left: Vec<Vec<String>> = commands(&help).into_iter().map(|name| vec![name]).collect();
    let mut seen = 0;
    while let Some(command) = left.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = run(bare(&arguments)).await.out;
        let below = commands(&help);
        left.extend(below.iter().map(|name| [&command[..], std::slice::from_ref(name)].concat()));
        let example = format!("\n  approval-authority {}", command.join(" "));
        assert!(!below.is_empty() || help.contains(&example), "{command:?}: {help}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen} commands");
}

#[tokio::test]
async fn shells_complete_and_readers_of_manuals_read() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let script = run(bare(&["completions", shell])).await;
        assert_eq!(script.code, Some(0), "{script:?}");
        assert!(script.out.contains(word) && script.out.contains("withdraw"), "{shell}");
        if shell == "bash" {
            let mut bash = tokio::process::Command::new("bash");
            let mut bash = bash.arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
            let mut stdin = bash.stdin.take().expect("piped");
            stdin.write_all(script.out.as_bytes()).await.expect("written");
            drop(stdin);
            assert!(bash.wait().await.expect("ended").success(), "it is no bash");
        }
    }
    let page = run(bare(&["man"])).await.out;
    assert!(
        page.starts_with(".ie") && page.contains(".TH approval") && page.contains("Exit codes")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("man1");
    let ran = run(bare(&["man", "--dir", &dir.display().to_string()])).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let page = std::fs::read_to_string(dir.join("approval-authority-approve.1")).expect("a page");
    assert!(page.contains("Examples:") && page.contains("request\\-hash"), "{page}");
}

#[tokio::test]
async fn what_dev_prints_for_people_works_at_once() {
    let dev = Dev::start_fresh().await;
    let (_, lines) = dev.output.split_once("Or decide with this program").expect("its part");
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains('/')).collect();
    let [export, pending, ..] = lines.as_slice() else { panic!("{}", dev.output) };
    dev.caller("workspace-server").await.require("w1", "delete_workspace").await;
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", &format!("{export}\n{pending}")]).kill_on_drop(true);
    let ran = run(command).await;
    assert!(ran.out.contains("delete_workspace  w1"), "{ran:?}");
}
