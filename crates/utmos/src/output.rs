//! Everything that is written for the user. Results go to standard output, all else to standard error.
//!
//! A reader that has gone away (`utmos catalog | head`) is no error, so what cannot be written is dropped.

use std::{
    fmt::{Arguments, Display},
    io::Write,
};

/// A line of the result.
pub fn line(text: impl Display) {
    let _gone = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line about how it goes.
pub fn note(text: impl Display) {
    let _gone = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line about what went wrong.
pub fn trouble(text: Arguments<'_>) {
    note(text);
}

/// A result as JSON, for programs.
pub fn json(value: &serde_json::Value) {
    line(format_args!("{value:#}"));
}

/// Rows under a head, in columns.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    for text in columns(head, rows) {
        line(text);
    }
}

fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let head = head.map(str::to_owned);
    let mut widths = [0; N];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let write = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&head].into_iter().chain(rows).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_blanks() {
        let rows = [["a".to_owned(), "x".to_owned()], ["längst".to_owned(), String::new()]];
        assert_eq!(columns(["NAME", "B"], &rows), ["NAME    B", "a       x", "längst"]);
    }
}
