//! A table of words: columns as wide as their longest word, the first to the left, the others to the right,
//! but for a last one without a heading, which holds words.

use std::fmt;

/// A title, headings and rows.
#[derive(Debug)]
pub(super) struct Table {
    title: String,
    headings: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(title: &str, headings: Vec<String>) -> Self {
        Self { title: title.to_owned(), headings, rows: Vec::new() }
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    pub(super) fn row(&mut self, name: &str, cells: Vec<String>) {
        self.rows.push((name.to_owned(), cells));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cells: &mut dyn Iterator<Item = &str>| {
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let first = width(&mut self.rows.iter().map(|(name, _)| name.as_str()).chain([self.title.as_str()]));
        write!(f, "\n{:<first$}", self.title)?;
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
                width(&mut cells.chain([&self.headings[column]]).map(String::as_str))
            })
            .collect();
        for (heading, width) in self.headings.iter().zip(&widths) {
            write!(f, "  {heading:>width$}")?;
        }
        for (name, cells) in &self.rows {
            write!(f, "\n{name:<first$}")?;
            for ((cell, width), heading) in cells.iter().zip(&widths).zip(&self.headings) {
                match heading.as_str() {
                    "" => write!(f, "  {cell}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
        }
        Ok(())
    }
}
