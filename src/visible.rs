//! What can be seen of a text. Names of people must be all of that; other text is shown with the rest spelt out,
//! so that it can neither move a terminal's cursor nor pass for another text.

use std::{fmt, mem};

/// Characters that are not shown, look like another, or change how others are shown: Unicode's format characters
/// (general category Cf), those that are ignored by default (`Default_Ignorable_Code_Point`), separators of lines, and
/// spaces but for the plain one and the wide one of running text in East Asia.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Displays a text on one line, as Rust spells what cannot be seen of it: `\n`, `\u{1b}`, `\\` for a backslash, and `\u{20}`
/// for a space at its beginning or end. No two texts come out the same.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.trim_end_matches(' ').len();
        // What stands before the first is as good as a space.
        let mut before = ' ';
        self.0.char_indices().try_for_each(|(at, c)| match (mem::replace(&mut before, c), c) {
            (' ', ' ') => write!(f, "{}", c.escape_unicode()),
            (_, ' ') if at >= end => write!(f, "{}", c.escape_unicode()),
            (_, '\\') => write!(f, "\\\\"),
            (_, c) => write_seen(f, c),
        })
    }
}

/// Displays a sentence on one line, its control and invisible characters as [`Visible`] does; what it quotes has been made
/// visible already, so that backslashes and spaces are left alone.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a>(pub &'a str);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_seen(f, c))
    }
}

fn write_seen(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        c if c.is_control() || is_invisible(c) => write!(f, "{}", c.escape_default()),
        c => write!(f, "{c}"),
    }
}

#[cfg(test)]
mod tests {
    use icu_properties::{
        CodePointMapData, CodePointSetData,
        props::{DefaultIgnorableCodePoint, GeneralCategory},
    };

    use super::*;

    #[test]
    fn what_unicode_says_cannot_be_seen_is_known() {
        let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
        let categories = CodePointMapData::<GeneralCategory>::new();
        for c in '\0'..=char::MAX {
            let unseen = match categories.get(c) {
                GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator => true,
                GeneralCategory::SpaceSeparator => !matches!(c, ' ' | '\u{3000}'),
                // A pattern of Braille without a dot is no space to Unicode.
                _ => c == '\u{2800}',
            };
            let unseen = unseen || ignorable.contains(c);
            assert_eq!(is_invisible(c), unseen, "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn what_cannot_be_seen_is_spelt_out_and_the_rest_is_left_alone() {
        for (text, shown) in [
            ("Löscht “alles”, 削除　する", "Löscht “alles”, 削除　する"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[2J\u{7f}\u{9b}2J", "\\u{1b}[2J\\u{7f}\\u{9b}2J"),
            ("\u{202e}ecilA\u{2069}", "\\u{202e}ecilA\\u{2069}"),
            ("a\u{200b}b\u{2028}c\u{3164}", "a\\u{200b}b\\u{2028}c\\u{3164}"),
            ("\u{e0041}\u{e0100}\u{fe0f}", "\\u{e0041}\\u{e0100}\\u{fe0f}"),
            ("w1\\u{200b}", "w1\\\\u{200b}"),
            ("a b\u{a0}c", "a b\\u{a0}c"),
            ("a   b", "a \\u{20}\\u{20}b"),
            (" w1  ", "\\u{20}w1\\u{20}\\u{20}"),
            ("  ", "\\u{20}\\u{20}"),
        ] {
            assert_eq!(Visible(text).to_string(), shown);
            assert_eq!(Sentence(shown).to_string(), shown);
        }
        assert_eq!(Sentence(" \u{1b}\\ ").to_string(), " \\u{1b}\\ ");
    }
}
