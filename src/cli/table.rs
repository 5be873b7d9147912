//! Tables for people: plain columns, in a terminal and in a pipe.

use std::{borrow::Cow, fmt};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::visible::Visible;

/// Between two columns.
const GAP: usize = 2;

/// Rows below headings. What a cell holds is shown on one line and with nothing invisible in it, whoever wrote it.
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
    room: Option<usize>,
}

/// The last columns, for which there may be no room, and what each of them keeps at least.
const SOFT: usize = 2;
const LEAST: usize = 10;

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(headings: [&str; COLUMNS]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)], room: None }
    }

    /// As wide as there is room: what is too much is cut off the cells of the last columns.
    pub(super) fn within(self, room: Option<usize>) -> Self {
        Self { room, ..self }
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| Visible(&cell).to_string()));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let all = widths.iter().sum::<usize>() + GAP * COLUMNS.saturating_sub(1);
        // The mark at the end of a cell that is cut is two columns wide in some terminals.
        let mut too_much = match self.room {
            Some(room) if all > room => all + SOFT - room,
            Some(_) | None => 0,
        };
        for width in widths.iter_mut().rev().take(SOFT) {
            let cut = too_much.min(width.saturating_sub(LEAST));
            *width -= cut;
            too_much -= cut;
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let cell = cut(cell, *width);
                line.push_str(&cell);
                // Not by the formatter, which takes every character to be one column wide.
                line.extend(std::iter::repeat_n(' ', width + GAP - cell.width()));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell in so many columns, with a mark where it goes on.
fn cut(cell: &str, width: usize) -> Cow<'_, str> {
    if cell.width() <= width {
        return cell.into();
    }
    let mut kept = String::new();
    for c in cell.chars() {
        if kept.width() + c.width().unwrap_or(0) >= width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_is_in_them() {
        let mut table = Table::new(["A", "B"]);
        for cell in ["削除削除削除削除", "e\u{301}", "a\nb\u{202e}"] {
            table.row([cell.to_owned(), "x".to_owned()]);
        }
        let expected = "\
A                 B
削除削除削除削除  x
e\u{301}                 x
a\\nb\\u{202e}      x
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn what_there_is_no_room_for_is_cut_off_the_last_columns() {
        let table = |room| {
            let mut table = Table::new(["ID", "WHO", "WHY"]).within(room);
            let cells =
                ["0123456789abcdef", "somebody in particular", "for a reason of some length"];
            table.row(cells.map(str::to_owned));
            table.row(["x", "削除削除削除削除", "削除"].map(str::to_owned));
            table.to_string()
        };
        for (room, expected) in [
            (
                69,
                "ID                WHO                     WHY\n\
                  0123456789abcdef  somebody in particular  for a reason of some length\n\
                  x                 削除削除削除削除        削除\n",
            ),
            (
                60,
                "ID                WHO                     WHY\n\
                  0123456789abcdef  somebody in particular  for a reason of…\n\
                  x                 削除削除削除削除        削除\n",
            ),
            (
                48,
                "ID                WHO               WHY\n\
                  0123456789abcdef  somebody in par…  for a rea…\n\
                  x                 削除削除削除削除  削除\n",
            ),
            (
                1,
                "ID                WHO         WHY\n\
                 0123456789abcdef  somebody …  for a rea…\n\
                 x                 削除削除…   削除\n",
            ),
        ] {
            assert_eq!(table(Some(room)), expected, "{room}");
        }
        assert_eq!(table(None), table(Some(69)));
    }
}
