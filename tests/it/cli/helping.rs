//! Help, completions and manual pages.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::process::Command;

use super::{Terminal, bare, run};
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

/// What is typed before Tab is pressed, and what the last word becomes.
const TYPED: &[(&str, &str)] = &[
    ("app", "approve"),
    ("approve --req", "--request-hash"),
    ("list --state with", "withdrawn"),
    ("policy ch", "check"),
];

/// A folder with what makes a shell complete, under this name.
async fn completions(shell: &str, name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let script = run(bare(&["completions", shell])).await;
    assert_eq!(script.code, Some(0), "{script:?}");
    std::fs::write(folder.path().join(name), script.out).expect("written");
    folder
}

/// A shell that is used in no home but this folder.
fn shell(program: &str, arguments: &[&str], folder: &TempDir) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path()).env("HOME", folder.path());
    command.kill_on_drop(true);
    command
}

/// Where zsh and fish are.
async fn zsh_and_fish() -> [String; 2] {
    let paths = match std::env::var("SHELLS") {
        Ok(paths) => paths,
        Err(_) => {
            let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/shells");
            run(Command::new(script)).await.out
        }
    };
    let [zsh, fish] = paths.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{paths}") };
    [zsh, fish].map(str::to_owned)
}

#[tokio::test]
async fn bash_completes() {
    let folder = completions("bash", "script").await;
    // As bash does it where Tab is pressed: the name of the program, the word, and the one before it.
    let ask = r#"source ./script; COMP_WORDS=(approval-authority "$@"); COMP_CWORD=$#
        set -- $(complete -p approval-authority | grep -o -- '-F [^ ]*')
        "$2" approval-authority "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; echo "${COMPREPLY[@]}""#;
    for (words, offered) in TYPED {
        let arguments = ["-c", ask, "bash"].into_iter().chain(words.split(' '));
        let ran = run(shell("bash", &arguments.collect::<Vec<_>>(), &folder)).await;
        assert_eq!((ran.out.trim(), ran.err.as_str()), (*offered, ""), "{words}");
    }
}

#[tokio::test]
async fn fish_completes() {
    let folder = completions("fish", "script").await;
    let [_, fish] = zsh_and_fish().await;
    for (words, offered) in TYPED {
        let ask = format!("source script; complete -C 'approval-authority {words}'");
        let ran = run(shell(&fish, &["--no-config", "-c", &ask], &folder)).await;
        // Behind a tab it says what each is for.
        let found: Vec<&str> = ran.out.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!((&found[..], ran.err.as_str()), (&[*offered][..], ""), "{words}");
    }
}

/// It completes on a terminal alone.
#[tokio::test]
async fn zsh_completes() {
    // The name by which it finds the script.
    let folder = completions("zsh", "_approval-authority").await;
    let [zsh, _] = zsh_and_fish().await;
    for (words, offered) in TYPED {
        let mut command = shell(&zsh, &["-f", "-i"], &folder);
        command.env("TERM", "dumb").env("PS1", "ready> ").env("COLUMNS", "200");
        let mut terminal = Terminal::start(command);
        terminal.shows("ready> ").await;
        terminal
            .types("fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; PS1=load'ed> '\n");
        terminal.shows("loaded> ").await;
        terminal.types(&format!("approval-authority {words}\t"));
        terminal.shows(offered).await;
    }
}

#[tokio::test]
async fn readers_of_manuals_read() {
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
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{export}\n{pending}")]).kill_on_drop(true);
    let ran = run(command).await;
    assert!(ran.out.contains("delete_workspace  w1"), "{ran:?}");
}
