//! What the fuzz tests share: texts and numbers that nobody expects, slips that spoil what is good, and a runner that
//! counts. Each test lies beside what it fuzzes, and holds more of it than that it does not panic.
//!
//! `PROPTEST_CASES=25000 cargo test --release --lib fuzz -- --show-output` has each look at 200,000 cases.

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};
use serde_json::Value;

use crate::visible::Sentence;

/// By how much a test looks at more cases than proptest would: most take microseconds.
const TIMES: u32 = 8;

/// What a case came to.
pub(crate) type Outcome = Result<&'static str, TestCaseError>;

/// Checks a great many cases and prints what came of them. Each of `wanted` must: a test that never gets past the first
/// check has shown nothing.
pub(crate) fn run<S: Strategy>(
    what: &str,
    wanted: &[&str],
    cases: S,
    check: impl Fn(S::Value) -> Outcome,
) {
    let standard = ProptestConfig::default();
    let config =
        ProptestConfig { cases: standard.cases * TIMES, failure_persistence: None, ..standard };
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let checked = TestRunner::new(config).run(&cases, |case| {
        *seen.borrow_mut().entry(check(case)?).or_default() += 1;
        Ok(())
    });
    let seen = seen.into_inner();
    println!("fuzzed {what}: {} cases, {seen:?}", seen.values().sum::<u32>());
    if let Err(failed) = checked {
        panic!("{failed}");
    }
    for outcome in wanted {
        assert!(seen.contains_key(outcome), "never seen: {outcome}");
    }
}

/// Something that happened to some bytes on their way, or that somebody did to them.
#[derive(Clone, Debug)]
pub(crate) enum Slip {
    Flipped(Index, u8),
    CutOff(Index),
    LeftOut(Index, usize),
    Twice(Index, usize),
    Inserted(Index, Vec<u8>),
}

/// What readers of numbers, texts and lengths stumble over.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"=",
    b".",
    b",",
    b"[",
    b"]",
    b"{",
    b"}",
    b"-",
    b"0",
    b"1e999",
    b"9223372036854775808",
    // No UTF-8: overlong, a surrogate, beyond the last character, cut short.
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    // Lengths of protobuf: 4 GiB, and more than there are.
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
];

/// No slip to four of them.
pub(crate) fn slips() -> impl Strategy<Value = Vec<Slip>> {
    let at = any::<Index>;
    let inserted = prop_oneof![
        select(PIECES).prop_map(<[u8]>::to_vec),
        vec(any::<u8>(), 1..8),
        (any::<u8>(), 1..2_000usize).prop_map(|(byte, times)| vec![byte; times]),
    ];
    let slip = prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Slip::Flipped(at, bit)),
        at().prop_map(Slip::CutOff),
        (at(), 1..40usize).prop_map(|(at, length)| Slip::LeftOut(at, length)),
        (at(), 1..40usize).prop_map(|(at, length)| Slip::Twice(at, length)),
        (at(), inserted).prop_map(|(at, bytes)| Slip::Inserted(at, bytes)),
    ];
    vec(slip, 0..5)
}

/// No slip, more often than not.
pub(crate) fn few_slips() -> impl Strategy<Value = Vec<Slip>> {
    prop_oneof![3 => Just(Vec::new()), 1 => slips()]
}

/// The bytes as they are after these slips.
pub(crate) fn spoilt(bytes: &[u8], slips: &[Slip]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for slip in slips {
        let length = bytes.len();
        let part = |at: &Index, long: usize| {
            let start = at.index(length + 1);
            start..(start + long).min(length)
        };
        match slip {
            Slip::Flipped(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
            Slip::Flipped(..) => {}
            Slip::CutOff(at) => bytes.truncate(at.index(length + 1)),
            Slip::LeftOut(at, long) => drop(bytes.drain(part(at, *long))),
            Slip::Twice(at, long) => {
                let again = bytes[part(at, *long)].to_vec();
                let start = at.index(length + 1);
                bytes.splice(start..start, again);
            }
            Slip::Inserted(at, more) => {
                let start = at.index(length + 1);
                bytes.splice(start..start, more.iter().copied());
            }
        }
    }
    bytes
}

/// The same of a text; what is no UTF-8 then is replaced, as a client's library would.
pub(crate) fn spoilt_text(text: &str, slips: &[Slip]) -> String {
    String::from_utf8_lossy(&spoilt(text.as_bytes(), slips)).into_owned()
}

/// Names that are good, names that are not, and texts at every limit of the contract.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let good = ["default", "acme", "w1", "unlisted", "because", "alice", "tokens:alice"];
    let odd = [
        "",
        " ",
        "\0",
        "a\nb",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{202e}nimda",
        "a\u{200b}b",
        "\u{feff}",
        "\u{3164}",
        "\u{2028}",
        "*",
        ":",
        "a:",
        "Acme!",
        "\u{e9}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{1f600}",
        "\u{10ffff}",
        "01890000-0000-7000-8000-000000000000",
        "01890000-0000-7000-8000-00000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ];
    let lengths = [62, 63, 64, 65, 127, 128, 129, 200, 201, 256, 257, 512, 513, 2_000, 2_001];
    let long = (select(&["a", "\u{e9}", "\u{1f600}", "\u{1}"]), select(lengths.to_vec()));
    prop_oneof![
        3 => select(good.to_vec()).prop_map(str::to_owned),
        3 => select(odd.to_vec()).prop_map(str::to_owned),
        1 => long.prop_map(|(unit, times)| unit.repeat(times)),
        1 => vec(any::<char>(), 0..20).prop_map(|characters| characters.into_iter().collect()),
    ]
}

/// Doubles, those at the edges above all; some are no numbers.
pub(crate) fn numbers() -> impl Strategy<Value = f64> {
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        9_007_199_254_740_991.0,
        9_007_199_254_740_992.0,
        -9_007_199_254_740_991.0,
        -9_007_199_254_740_992.0,
        1e21,
        1e-7,
        1e308,
        -1e308,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        f64::EPSILON,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    prop_oneof![
        select(edges.to_vec()),
        (-1_000..1_000i32).prop_map(f64::from),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

/// JSON of every form, and so deep that nobody takes it.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        // What is not finite becomes null: JSON has no word for it.
        numbers().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((texts(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let deep = (0..100usize, any::<bool>()).prop_map(|(levels, lists)| {
        (0..levels).fold(Value::Null, |inner, _| match lists {
            true => Value::Array(vec![inner]),
            false => Value::Object([("d".to_owned(), inner)].into_iter().collect()),
        })
    });
    prop_oneof![8 => tree, 1 => deep]
}

/// Whether a fault can be shown: it is not longer than people read, and repeats nothing that moves a cursor or hides.
pub(crate) fn can_be_shown(fault: &str) -> Result<(), TestCaseError> {
    prop_assert!(fault.len() <= 2_000, "{} bytes", fault.len());
    prop_assert_eq!(Sentence(fault).to_string(), fault);
    Ok(())
}

/// What stands where something else should, in TOML.
const ODD_VALUES: &[&str] = &[
    "0",
    "-1",
    "10001",
    "4294967297",
    "9223372036854775807",
    "9223372036854775808",
    "1.0",
    "nan",
    "-inf",
    "true",
    "false",
    "2027-01-01T00:00:00Z",
    "2027-01-01",
    "\"\"",
    "\"s3cret\"",
    "\"-1h\"",
    "\"1y\"",
    "\"P400D\"",
    "\"99999999999999999999h\"",
    "\"\\u0000\"",
    "\"\\u202e\"",
    "[]",
    "[\"*\", \"s3cret\"]",
    "[\"\"]",
    "[1]",
    "[[]]",
    "{}",
    "{ s = \"s3cret\" }",
    "",
];

/// The lines of a table of TOML with these keys: most with what is good for them, some without, a few that are wrong, misspelt
/// or there twice.
pub(crate) fn toml_table(
    keys: &'static [(&'static str, &'static [&'static str])],
) -> impl Strategy<Value = String> {
    let line = |&(key, good): &(&'static str, &'static [&'static str])| {
        let good = move || select(good).prop_map(move |value| format!("{key} = {value}\n"));
        prop_oneof![
            60 => good(),
            30 => Just(String::new()),
            4 => select(ODD_VALUES).prop_map(move |value| format!("{key} = {value}\n")),
            1 => good().prop_map(|line| format!("{line}{line}")),
            1 => good().prop_map(|line| format!("x{line}")),
            1 => good().prop_map(|line| line.to_uppercase()),
        ]
    };
    keys.iter().map(line).collect::<Vec<_>>().prop_map(|lines| lines.concat())
}
