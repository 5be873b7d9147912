//! What can be seen of a text. Names of people must be all of that; other text is shown with the rest spelt out,
//! so that it can neither move a terminal's cursor nor pass for another text.

use std::fmt;

/// Characters that are not shown, or that change how others are: Unicode's general category Cf as far as it
/// occurs in running text, its separators of lines, its fillers and its selectors of variants.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Displays a text on one line, its control and invisible characters as in Rust: `\n`, `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() || is_invisible(c) => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelt_out_and_the_rest_is_left_alone() {
        for (text, shown) in [
            ("Löscht “alles” \\ 削除", "Löscht “alles” \\ 削除"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[2J\u{7f}\u{9b}2J", "\\u{1b}[2J\\u{7f}\\u{9b}2J"),
            ("\u{202e}ecilA\u{2069}", "\\u{202e}ecilA\\u{2069}"),
            ("a\u{200b}b\u{2028}c\u{3164}", "a\\u{200b}b\\u{2028}c\\u{3164}"),
            ("\u{e0041}\u{e0100}\u{fe0f}", "\\u{e0041}\\u{e0100}\\u{fe0f}"),
        ] {
            assert_eq!(Visible(text).to_string(), shown);
        }
    }
}
