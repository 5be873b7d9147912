//! Tables for people: plain columns, in a terminal and in a pipe.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use crate::visible::Visible;

/// Between two columns.
const GAP: usize = 2;

/// Rows below headings. What a cell holds is shown on one line and with nothing invisible in it, whoever wrote it.
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(headings: [&str; COLUMNS]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
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
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(cell);
                // Not by the formatter, which takes every character to be one column wide.
                line.extend(std::iter::repeat_n(' ', width + GAP - cell.width()));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
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
}
