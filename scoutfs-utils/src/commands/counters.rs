// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs counters`: what a mount has done so far, in numbers.

use std::io::{self, BufWriter, Write};

use crate::cli::CountersArguments;
use crate::ioctl;

/// Columns of a terminal whose width is not known.
const COLUMNS: usize = 80;

/// Between two columns.
const GAP: &str = "  ";

type Named = (String, u64);

/// Prints them, by name.
pub fn run(arguments: &CountersArguments) -> Result<(), String> {
    let path = arguments.positional.as_ref().unwrap_or(&arguments.path.path);
    let entries = ioctl::counters(&ioctl::open(path)?).map_err(super::failed(path))?;
    let mut counters: Vec<Named> = entries
        .iter()
        .map(|entry| {
            let name = entry.name.split(|b| *b == 0).next().unwrap_or(&[]);
            (String::from_utf8_lossy(name).into_owned(), entry.value.get())
        })
        .collect();
    counters.sort_unstable();
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.json {
        let object: serde_json::Map<_, _> =
            counters.into_iter().map(|(name, value)| (name, value.into())).collect();
        writeln!(out, "{}", serde_json::Value::Object(object)).map_err(super::broken)?;
    } else {
        let width = if arguments.table { terminal_columns().unwrap_or(COLUMNS) } else { 0 };
        for line in table(&counters, width) {
            writeln!(out, "{line}").map_err(super::broken)?;
        }
    }
    out.flush().map_err(super::broken)
}

/// Columns of the terminal that standard output is.
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_col.into()).filter(|columns| *columns > 0)
}

/// Lines with as many columns of counters as fit into `width`; names go down a column first. Always at least one.
fn table(counters: &[Named], width: usize) -> Vec<String> {
    (1..=counters.len())
        .map(|rows| lines(counters, rows))
        .find(|lines| fits(lines, width))
        .unwrap_or_else(|| lines(counters, counters.len().max(1)))
}

fn fits(lines: &[String], width: usize) -> bool {
    lines.iter().all(|line| line.len() <= width)
}

fn lines(counters: &[Named], rows: usize) -> Vec<String> {
    let columns: Vec<Vec<String>> = counters
        .chunks(rows)
        .map(|column| {
            let names = column.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let values = column.iter().map(|(_, value)| value.to_string().len()).max().unwrap_or(0);
            column.iter().map(|(name, value)| format!("{name:<names$} {value:>values$}")).collect()
        })
        .collect();
    let row = |n: usize| columns.iter().filter_map(|c| c.get(n)).cloned().collect::<Vec<_>>().join(GAP);
    (0..rows.min(counters.len())).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Named> {
        [("a", 1), ("bb", 20), ("ccc", 300), ("d", 4), ("e", 5)].map(|(n, v)| (n.to_owned(), v)).to_vec()
    }

    #[test]
    fn columns_fill_the_width_and_no_more() {
        assert_eq!(table(&some(), 0), ["a     1", "bb   20", "ccc 300", "d     4", "e     5"]);
        assert_eq!(table(&some(), 7), table(&some(), 0));
        assert_eq!(table(&some(), 12), ["a     1  d 4", "bb   20  e 5", "ccc 300"]);
        assert_eq!(table(&some(), 29), ["a 1  bb 20  ccc 300  d 4  e 5"]);
        assert_eq!(table(&[], 80), [""; 0]);
    }
}
