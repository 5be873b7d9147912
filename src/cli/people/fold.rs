//! Lines that are too long for a terminal. By itself it has them go on at its left edge, where what somebody else wrote
//! would pass for words of this program's.

use std::os::fd::AsFd;

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthChar;

/// Where values begin, below one another, and where long lines go on.
pub(super) const INDENT: &str = "             ";

/// A terminal narrower than this is taken to be so wide: there is no room for what it is to show.
const NARROWEST: usize = 2 * INDENT.len();

/// How wide a terminal is; none: that is not one.
pub(super) fn columns(there: impl AsFd) -> Option<usize> {
    terminal_size_of(there).map(|(Width(columns), _)| columns.into())
}

/// A text as it is to be shown there: as it is, unless that is a terminal.
pub(super) fn fitted(text: &str, there: impl AsFd) -> String {
    columns(there).map_or_else(|| text.to_owned(), |columns| folded(text, columns))
}

/// A text in lines of at most so many columns, which end between words where words are short. The only control characters
/// in it are ends of lines and styles.
fn folded(text: &str, columns: usize) -> String {
    let columns = columns.max(NARROWEST);
    let mut folded = String::with_capacity(text.len());
    let (mut column, mut in_style) = (0, false);
    // Behind the last space of the line, and in which column that is.
    let mut space = None;
    for c in text.chars() {
        match c {
            '\n' => (column, space) = (0, None),
            '\u{1b}' => in_style = true,
            _ if in_style => in_style = c != 'm',
            _ => {
                // Some are one column wide in some terminals and two in others.
                let width = c.width_cjk().unwrap_or(0);
                if column + width > columns {
                    // A long word is not to leave much of a line empty.
                    let (at, before) = space
                        .filter(|(_, before)| 3 * before > 2 * columns && c != ' ')
                        .unwrap_or((folded.len(), column));
                    folded.insert_str(at, &format!("\n{INDENT}"));
                    (column, space) = (INDENT.len() + column - before, None);
                }
                column += width;
                if c == ' ' {
                    space = Some((folded.len() + 1, column));
                }
            }
        }
        folded.push(c);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_goes_on_where_values_begin() {
        let twenty = "x".repeat(20);
        for (text, expected) in [
            (format!("{twenty}123456"), format!("{twenty}123456")),
            (format!("{twenty}1234567\nnext"), format!("{twenty}123456\n{INDENT}7\nnext")),
            (format!("{twenty}12345削"), format!("{twenty}12345\n{INDENT}削")),
            (format!("{twenty}12345…"), format!("{twenty}12345\n{INDENT}…")),
            (format!("{twenty}12345e\u{301}"), format!("{twenty}12345e\u{301}")),
            (
                format!("\u{1b}[33m{twenty}123456\u{1b}[0m7"),
                format!("\u{1b}[33m{twenty}123456\u{1b}[0m\n{INDENT}7"),
            ),
            (format!("{twenty} 1234567"), format!("{twenty} \n{INDENT}1234567")),
            (
                format!("{twenty} \u{1b}[33m12345\u{1b}[0m67"),
                format!("{twenty} \n{INDENT}\u{1b}[33m12345\u{1b}[0m67"),
            ),
            (format!("{twenty}123456 7"), format!("{twenty}123456\n{INDENT} 7")),
            (format!("short {twenty}7"), format!("short {twenty}\n{INDENT}7")),
        ] {
            assert_eq!(folded(&text, 26), expected);
            assert_eq!(folded(&text, 3), expected, "no narrower than that");
        }
        let long = folded(&"x".repeat(100), 40);
        let widths: Vec<usize> = long.lines().map(str::len).collect();
        assert_eq!(widths, [40, 40, 40, 19]);
    }
}
