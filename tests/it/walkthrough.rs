//! The README's walk-through, line by line, with a real grpcurl against a real `dev`.

use std::process::Output;

use tokio::process::Command;

use crate::commands::Dev;

/// The fenced block of the README that follows a heading.
fn block_after(heading: &str) -> Vec<String> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("a README");
    let (_, after) = readme.split_once(heading).expect(heading);
    let (_, block) = after.split_once("```sh\n").expect("a block");
    let (block, _) = block.split_once("```").expect("an end");
    block.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A folder whose `grpcurl` is the one that the run was given, or that is on the PATH.
fn path_with_grpcurl(folder: &std::path::Path) -> String {
    let path = std::env::var("PATH").expect("a PATH");
    if let Ok(grpcurl) = std::env::var("GRPCURL") {
        std::os::unix::fs::symlink(grpcurl, folder.join("grpcurl")).expect("linked");
    }
    format!("{}:{path}", folder.display())
}

async fn sh(script: &str, path: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("PATH", path).kill_on_drop(true);
    command.output().await.expect("a shell")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    let dev = Dev::start_fresh().await;
    let programs = tempfile::tempdir().expect("a folder");
    let path = path_with_grpcurl(programs.path());
    let lines = block_after("## Try it");
    assert_eq!(lines.len(), 3, "three lines to paste");
    let address = dev.address.to_string();
    let here: Vec<String> =
        lines.iter().map(|line| line.replace("127.0.0.1:50051", &address)).collect();
    for line in &here {
        assert!(dev.output.contains(line), "dev prints the same line: {line}");
    }
    let credentials: Vec<&str> =
        dev.output.lines().filter(|line| line.starts_with("export ")).collect();
    let credentials = credentials.join("\n");

    // Each line is pasted after those before it; a step prints what its last line prints.
    let asked = format!("{credentials}\n{}\necho ID=$ID", here[0]);
    let asked = sh(&asked, &path).await;
    let held = text(&asked.stderr);
    assert!(held.contains("OUTCOME_PENDING"), "{held}");
    let id = text(&asked.stdout).trim().strip_prefix("ID=").expect("an id").to_owned();
    assert_eq!(id.len(), 36, "{id}");

    let decided = sh(&format!("{credentials}\nID={id}\n{}", here[1]), &path).await;
    assert!(text(&decided.stdout).contains("APPROVAL_STATE_APPROVED"), "{decided:?}");
    let again = format!("{credentials}\n{}", here[2]);
    let through = sh(&again, &path).await;
    assert!(text(&through.stdout).contains("OUTCOME_APPROVED"), "{through:?}");
    assert!(text(&through.stdout).contains(&id));
    let held = sh(&again, &path).await;
    assert!(text(&held.stdout).contains("OUTCOME_PENDING"), "once: {held:?}");

    let watch = dev.output.lines().find(|line| line.contains("WatchApprovals")).expect("a line");
    let watched = sh(&format!("{credentials}\ntimeout 5 {watch}"), &path).await;
    for event in ["REQUESTED", "APPROVED", "CONSUMED"] {
        assert!(text(&watched.stdout).contains(&format!("EVENT_TYPE_{event}")), "{watched:?}");
    }
}

#[tokio::test]
async fn grpcurl_without_a_credential_or_with_the_wrong_one_is_refused() {
    let dev = Dev::start_fresh().await;
    let programs = tempfile::tempdir().expect("a folder");
    let path = path_with_grpcurl(programs.path());
    let lines = block_after("## Try it");
    let address = dev.address.to_string();
    let decide = lines[1].replace("127.0.0.1:50051", &address);

    let nobody = sh(&decide.replace("-H 'authorization: Bearer ${PERSON}'", ""), &path).await;
    assert!(text(&nobody.stderr).contains("Unauthenticated"), "{nobody:?}");
    let credential = |name: &str| {
        dev.output.lines().find(|line| line.starts_with(name)).expect("printed").to_owned()
    };
    let ask = format!("{}\n{}\necho ID=$ID", credential("export BACKEND="), lines[0]);
    let asked = sh(&ask.replace("127.0.0.1:50051", &address), &path).await;
    let id = text(&asked.stdout);
    let by_the_backend = decide.replace("${PERSON}", "${BACKEND}");
    let decide = format!("{}\n{}\n{by_the_backend}", credential("export BACKEND="), id.trim());
    let refused = sh(&decide, &path).await;
    assert!(text(&refused.stderr).contains("PermissionDenied"), "{refused:?}");

    // This grpcurl speaks the older reflection, v1alpha.
    let listed = sh(&format!("grpcurl -plaintext {address} list"), &path).await;
    for service in
        ["approvals.v1.ApprovalService", "grpc.health.v1.Health", "grpc.reflection.v1alpha."]
    {
        assert!(text(&listed.stdout).contains(service), "{listed:?}");
    }
}
