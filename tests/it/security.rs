//! `SECURITY.md`: the tests that it names are there.

use std::{fs, path::Path};

/// All code below a folder.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it").path());
    let texts = entries.map(|path| match path.is_dir() {
        true => code(&path),
        false => fs::read_to_string(path).unwrap_or_default(),
    });
    texts.collect()
}

#[test]
fn each_test_that_security_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = ["src", "tests"].map(|folder| code(&root.join(folder))).concat();
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("it");
    // Names like sentences: other code has fewer words.
    let named = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = named.filter(|name| name.matches('_').count() >= 3).collect();
    assert!(named.len() >= 15, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}()")), "{name}");
    }
}
